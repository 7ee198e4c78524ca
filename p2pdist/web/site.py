"""HTTP: bytes to requests to answers, with the rules of ``guard`` before anything else.

Job: one resource for every path, so that nothing can be reached around the rules; static files from
a dict made at the start; bodies, connections and idle time bounded. It does NOT know what the API
says (``api``). Threat: see ``guard``; besides, slow, large and many requests. Tests:
``test_web_attacks``, ``test_web_api``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from p2pdist import limits
from p2pdist.control import NoSuchContent, Result
from p2pdist.errors import P2PDistError
from p2pdist.logs import new_logger
from p2pdist.web import guard
from p2pdist.web.api import CONTENT, EVENTS, METRICS, Sources, check_body, match
from p2pdist.web.guard import Head
from p2pdist.web.stream import Hub, Reader

JSON_TYPE: Final = "application/json"
STREAM_TYPE: Final = "text/event-stream; charset=utf-8"
REFUSED: Final = frozenset({2, 4})
"""Exit codes of errors that are the asker's."""

Asset = tuple[str, bytes]


class PageRequest(Request):
    """A request with a bounded body.

    Attributes:
        gone: the other side hung up.
    """

    gone = False
    too_large = False

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body; beyond the bound answer at once and hang up."""
        if self.too_large:
            return
        assert self.content is not None
        if self.content.tell() + len(data) <= limits.WEB_BODY_BYTES:
            super().handleContentChunk(data)
            return
        self.too_large = True
        lines = [b"HTTP/1.1 413 Payload Too Large", b"Connection: close", b"Content-Length: 0"]
        lines += [name + b": " + value for name, value in guard.HEADERS.items()]
        transport: Any = self.channel.transport
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Note that nobody listens any more."""
        self.gone = True
        super().connectionLost(reason)

    def process(self) -> None:
        """Answer, unless that was done."""
        if not self.too_large:
            super().process()


class PageSite(Site):
    """The site; it logs no requests, which are the owner's own."""

    requestFactory = PageRequest
    displayTracebacks = False

    def __init__(self, page: Page, reactor: Any) -> None:
        super().__init__(
            page, requestFactory=PageRequest, timeout=limits.WEB_IDLE_S, reactor=reactor
        )

    def log(self, request: Any) -> None:
        """Keep silent."""


class Door(WrappingFactory):
    """Lets in at most ``limits.WEB_CONNECTIONS`` connections at a time."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Take a connection if there is room."""
        return None if self.full else super().buildProtocol(addr)

    @property
    def full(self) -> bool:
        """Whether there are so many."""
        return len(self.protocols) >= limits.WEB_CONNECTIONS


def head_of(request: Request) -> Head:
    """Return what the rules look at."""

    def all_of(name: bytes) -> Sequence[bytes]:
        return request.requestHeaders.getRawHeaders(name, [])

    return Head(
        method=request.method,
        hosts=all_of(b"host"),
        origins=all_of(b"origin"),
        sites=all_of(b"sec-fetch-site"),
        authorizations=all_of(b"authorization"),
        types=all_of(b"content-type"),
    )


@implementer(IResource)
@define(eq=False)
class Page:
    """Everything that is at this port.

    Args:
        clock: time.
        token: the key.
        names: what Host may be.
        assets: static files by path.
        sources: what the API answers from.
        hub: open pages.
        metrics: returns the text for Prometheus and its content type.
    """

    clock: IReactorTime
    token: str
    names: frozenset[bytes]
    assets: Mapping[str, Asset]
    sources: Sources
    hub: Hub
    metrics: Callable[[], Asset]
    isLeaf: bool = True
    server: Any = None
    _patience: guard.Patience = field(factory=guard.Patience)
    _late: list[IDelayedCall] = field(factory=list)
    _log = new_logger()

    def getChildWithDefault(self, name: bytes, request: PageRequest) -> Page:  # noqa: ARG002
        """Every path is this resource's."""
        return self

    def putChild(self, path: bytes, child: object) -> None:
        """There are no children."""
        raise NotImplementedError

    def render(self, request: PageRequest) -> bytes | int:
        """Answer a request."""
        for name, value in guard.HEADERS.items():
            request.setHeader(name, value)
        head = head_of(request)
        path = request.path.decode("latin-1")
        refusal = guard.stranger(head, self.names)
        reads = head.method == b"GET"
        if refusal is None and path in {*self.assets, EVENTS, METRICS} and not reads:
            refusal = 405
        if refusal is not None:
            return refuse(request, refusal)
        if path in self.assets:
            return say(request, *self.assets[path])
        if not guard.knows(head, self.token):
            return self._unknown(request)
        if path == METRICS:
            return say(request, *self.metrics())
        return self._stream(request) if path == EVENTS else self._api(request, head, path)

    def _unknown(self, request: PageRequest) -> int:
        """Refuse a request without the key; where many came, slowly."""
        wait_s = self._patience.failed(self.clock.seconds())
        request.setHeader(b"WWW-Authenticate", b"Bearer")
        body = refuse(request, 401)
        if wait_s:
            self._late = [call for call in self._late if call.active()]
            self._late.append(self.clock.callLater(wait_s, end, request, body))
        else:
            end(request, body)
        return NOT_DONE_YET

    def close(self) -> None:
        """End every stream; answer nothing more."""
        self.hub.close()
        for call in self._late:
            if call.active():
                call.cancel()

    def _api(self, request: PageRequest, head: Head, path: str) -> bytes | int:
        routes, named = match(path)
        route = routes.get(head.method.decode("latin-1"))
        if route is None:
            return refuse(request, 405 if routes else 404)
        if route.method == "POST" and not guard.is_json(head):
            return refuse(request, 415)

        def work() -> Deferred[Result]:
            body = read_json(request) if head.method == b"POST" else {}
            return route.act(self.sources, {**check_body(route, body), **named})

        def done(result: Result) -> None:
            if head.method == b"POST":
                self.hub.hurry()
            end(request, say(request, JSON_TYPE, json.dumps(result).encode()))

        def failed(failure: Failure) -> None:
            if failure.check(P2PDistError):
                error = failure.value
                assert isinstance(error, P2PDistError)
                end(request, refuse(request, status_of(error), str(error)))
            else:
                self._log.failure("a bug in answering {path}", failure, path=path)
                end(request, refuse(request, 500))

        maybeDeferred(work).addCallback(done).addErrback(failed)
        return NOT_DONE_YET

    def _stream(self, request: PageRequest) -> bytes | int:
        content = request.args.get(b"content", [b""])[0].decode("latin-1") or None
        if content is not None and not CONTENT.fullmatch(content):
            return refuse(request, 404)
        if self.hub.full:
            return refuse(request, 503)
        request.setHeader(b"Content-Type", STREAM_TYPE.encode())
        reader = Reader(request.write, request.channel.forceAbortClient)
        request.registerProducer(reader, True)
        request.notifyFinish().addBoth(lambda _: self.hub.left(reader))
        self.hub.join(reader, content)
        return NOT_DONE_YET


def status_of(error: P2PDistError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, NoSuchContent):
        return 404
    return 400 if error.exit_code in REFUSED else 409


def read_json(request: PageRequest) -> Any:
    """Return the body.

    Raises:
        P2PDistError: it is no JSON.
    """
    try:
        return json.loads(request.content.read() or b"{}") if request.content else {}
    except (ValueError, RecursionError):
        raise BadBody(guard.REASONS[400]) from None


class BadBody(P2PDistError):
    """The body is no JSON."""

    exit_code = 2


def say(request: PageRequest, kind: str, body: bytes) -> bytes:
    """Return a body, with its headers set."""
    request.setHeader(b"Content-Type", kind.encode())
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body


def refuse(request: PageRequest, status: int, message: str = "") -> bytes:
    """Return the body of a refusal, with its headers set; the connection ends with it."""
    request.setResponseCode(status)
    request.setHeader(b"Connection", b"close")
    request.channel.persistent = False
    error = {"status": status, "message": message or guard.REASONS[status]}
    return say(request, JSON_TYPE, json.dumps({"error": error}).encode())


def end(request: PageRequest, body: bytes) -> None:
    """Send the body, unless nobody listens any more."""
    if not request.gone:
        request.write(body)
        request.finish()
