"""What a running node can be asked and told, by who owns it: requests in, answers out.

One JSON object a line, over a UNIX socket in the state directory that only its owner can open::

    {"method": "status", "params": {}}      {"result": {...}}
    {"method": "limit", "params": {"upload": "10MB"}}      {"error": {"code": 2, "message": ...}}

Job: check requests, do them, say how it went; errors carry the exit code a command should end with.
It does NOT know the terminal (``faces``). Threat: whoever may open the socket is the owner, but a
line may be anything: at most ``limits.CONTROL_LINE_BYTES``, at most ``limits.CONTROL_CLIENTS`` at a
time. Tests: ``test_control``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorUNIX
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from p2pdist import __version__, closeup, limits
from p2pdist.closeup import PieceMap
from p2pdist.config import parse_rate
from p2pdist.descriptor import URI_SCHEME, DescriptorParser
from p2pdist.errors import ConfigurationError, P2PDistError
from p2pdist.fleet import SENTENCES, Host
from p2pdist.handout import receiver_command
from p2pdist.ids import HashKey, format_hash_key
from p2pdist.keptcontents import Given
from p2pdist.keptlimits import PROCESS
from p2pdist.logs import new_logger
from p2pdist.service import P2PDistService
from p2pdist.session import Session
from p2pdist.sockpath import short_way
from p2pdist.swarm.throttle import RateLimits

SOCKET_NAME: Final = "control"

Result = dict[str, Any]


class NoSuchContent(ConfigurationError):
    """No content here is called that."""


class Control:
    """Requests to one service.

    Args:
        service: that is asked and told.
        parser: of descriptors that are to be added.

    Attributes:
        service: likewise.
        page_url: of the page, with its key, once it is there.
    """

    log = new_logger()

    def __init__(self, service: P2PDistService, parser: DescriptorParser) -> None:
        self.service = service
        self._parser = parser
        self.page_url: str | None = None
        self._asked: Mapping[str, Callable[[Result], Result]] = {
            "status": self._status,
            "contents": self._contents,
            "fleet": self._fleet,
            "pieces": lambda params: closeup.pieces(self._session(params)),
            "peers": lambda params: closeup.peers(self._session(params)),
            "page": lambda _: {"url": self.page_url},
        }
        self._told: Mapping[str, Callable[[Result], Result | Deferred[Result]]] = {
            "limit": self._limit,
            "add": self._add,
            "remove": self._remove,
            "pause": self._pause,
            "resume": self._resume,
        }

    def answer(self, line: bytes) -> Deferred[Result]:
        """Return what to answer; fires with an object, never fails."""

        def work() -> Deferred[Result]:
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                raise ConfigurationError("a request is one JSON object on one line") from None
            if not isinstance(request, dict):
                raise ConfigurationError("a request is one JSON object on one line")
            return self.call(request.get("method"), request.get("params", {}))

        def failed(failure: Failure) -> Result:
            if failure.check(P2PDistError):
                error = failure.value
                assert isinstance(error, P2PDistError)
                return {"error": {"code": error.exit_code, "message": str(error)}}
            self.log.failure("a bug in answering a request", failure)
            return {"error": {"code": 1, "message": "a bug; the node's log says more"}}

        return maybeDeferred(work).addCallbacks(lambda result: {"result": result}, failed)

    def call(self, method: object, params: object) -> Deferred[Result]:
        """Do what a request asks.

        Returns:
            Fires with the result; fails with the :class:`P2PDistError` to tell the asker.
        """

        def work() -> Any:
            methods = {**self._asked, **self._told}
            known = methods.get(method) if isinstance(method, str) else None
            if known is None or not isinstance(params, dict):
                names = ", ".join(methods)
                raise ConfigurationError(f"expected a method of: {names}; and params, an object")
            return known(params)

        return maybeDeferred(work)

    def look(self, question: str, content: str | None = None) -> Result:
        """Return the answer to one of the questions, at once.

        Raises:
            NoSuchContent: it is about a content, and not about that one.
        """
        return self._asked[question]({"content": content})

    def piece_map(self, content: str) -> PieceMap:
        """Return where every piece of a content stands.

        Raises:
            NoSuchContent: there is none of that name.
        """
        return PieceMap.of(self._session({"content": content}))

    def moving(self) -> tuple[int, int]:
        """Return the bytes per second that come in and go out, of all contents together."""
        of_all = [one.transfer.progress() for one in self.service.contents.sessions.values()]
        down = sum(progress.download_bytes_per_s for progress in of_all)
        return round(down), round(sum(progress.upload_bytes_per_s for progress in of_all))

    # --- asked ---

    def _status(self, params: Result) -> Result:
        del params
        service = self.service
        return {
            "node": service.node_id.hex(),
            "version": __version__,
            "port": service.port,
            "directory": service.config.directory,
            "limits": _rates(service.contents.limits),
            "contents": [self._content(session) for session in service.contents.sessions.values()],
            "paused": [
                {"name": waiting.descriptor.name, "hash_key": format_hash_key(key)}
                for key, waiting in service.contents.paused.items()
            ],
        }

    def _contents(self, params: Result) -> Result:
        del params
        sessions = self.service.contents.sessions
        rows = [(format_hash_key(key), session.name) for key, session in sessions.items()]
        return {"contents": [{"hash_key": key, "name": name} for key, name in rows]}

    @staticmethod
    def _content(session: Session) -> Result:
        status = session.status()
        progress = status.progress
        hosts = session.fleet.hosts()
        return {
            "name": status.name,
            "hash_key": status.hash_key,
            "stage": status.stage.value,
            "path": status.path,
            "error": status.error,
            "waiting_for": status.waiting_for,
            "length": progress.length,
            "have_bytes": progress.have_bytes,
            "pieces": progress.pieces,
            "have_pieces": progress.have_pieces,
            "download_bytes_per_s": round(progress.download_bytes_per_s),
            "upload_bytes_per_s": round(progress.upload_bytes_per_s),
            "downloaded_bytes": progress.downloaded_bytes,
            "uploaded_bytes": progress.uploaded_bytes,
            "peers": progress.peers,
            "seeds": progress.seeds,
            "eta_s": None if progress.eta_s is None else round(progress.eta_s, 1),
            "checked": status.checked,
            "limits": _rates(session.limits),
            "nodes": [
                {"node": str(report.entry), "state": report.state.value} for report in status.nodes
            ],
            "fleet": {
                "nodes": sum(host.counts for host in hosts),
                "done": sum(host.record.report.complete for host in hosts),
            },
        }

    def _fleet(self, params: Result) -> Result:
        session = self._session(params)
        return {
            "name": session.name,
            "hash_key": format_hash_key(session.descriptor.hash_key),
            "length": session.transfer.progress().length,
            "hosts": [host_row(host) for host in session.fleet.hosts()],
        }

    # --- told ---

    def _limit(self, params: Result) -> Deferred[Result]:
        chosen = self._session(params) if params.get("content") is not None else None
        target = self.service.contents if chosen is None else chosen
        before = target.limits
        target.set_limits(
            RateLimits(
                upload=_rate(params, "upload", before.upload),
                download=_rate(params, "download", before.download),
            )
        )
        name = PROCESS if chosen is None else format_hash_key(chosen.descriptor.hash_key)
        saved = self.service.contents.kept.set(name, target.limits)
        return saved.addCallback(lambda _: {"limits": _rates(target.limits)})

    def _add(self, params: Result) -> Deferred[Result]:
        given = self._given(params)
        descriptor = given.descriptor(self._parser)
        service = self.service
        session = service.add(descriptor, path=given.path)
        answer = {
            "name": session.name,
            "hash_key": format_hash_key(descriptor.hash_key),
            "receive": receiver_command(
                str(params["descriptor"]),
                descriptor,
                service.port,
                service.config.listen,
                service.contents.machine.own_addresses,
            ),
        }
        return service.added.keep(descriptor.hash_key, given).addCallback(lambda _: answer)

    @staticmethod
    def _given(params: Result) -> Given:
        source = _text(params, "descriptor", None)
        if source is None:
            raise ConfigurationError(
                "add needs a descriptor: the path of its file, or its one line"
            )
        if not source.startswith(URI_SCHEME) and not os.path.isabs(source):  # noqa: PTH117
            # the asker's folder is not ours
            raise ConfigurationError(f"{source[:200]!a}: a path from the root is needed")
        return Given.read(source, _text(params, "path", None))

    def _remove(self, params: Result) -> Deferred[Result]:
        key = self._key(params)
        work = self.service.contents.remove(key)
        return work.addCallback(lambda _: self.service.added.forget(key)).addCallback(lambda _: {})

    def _pause(self, params: Result) -> Deferred[Result]:
        key = self._key(params)
        return self.service.contents.pause(key).addCallback(lambda _: {})

    def _resume(self, params: Result) -> Result:
        session = self.service.contents.resume(self._key(params))
        return {"name": session.name}

    # --- which content ---

    def _key(self, params: Result) -> HashKey:
        """Return the content a request names; the only one needs no name."""
        contents = self.service.contents
        named = {key: session.name for key, session in contents.sessions.items()}
        named |= {
            key: waiting.descriptor.name or format_hash_key(key)[:11]
            for key, waiting in contents.paused.items()
        }
        wanted = _text(params, "content", None)
        if wanted is None and len(named) == 1:
            return next(iter(named))
        found = [
            key
            for key, name in named.items()
            if wanted is not None
            and (name == wanted or (format_hash_key(key).startswith(wanted) and len(wanted) > 6))
        ]
        if len(found) != 1:
            there = ", ".join(sorted(map(ascii, named.values()))) or "none"
            what = "several contents are" if found else "no content is"
            asked = f"{what} called {wanted[:80]!a}" if wanted else "say which content"
            raise NoSuchContent(f"{asked}; there is {there}")
        return found[0]

    def _session(self, params: Result) -> Session:
        key = self._key(params)
        session = self.service.contents.sessions.get(key)
        if session is None:
            raise NoSuchContent("that content is paused; p2pdist resume lets it go on")
        return session


def host_row(host: Host) -> Result:
    """Return what a machine said of itself, as JSON."""
    report = host.record.report
    return {
        "node": host.record.node_id.hex(),
        "name": report.name,
        "state": report.state.name.lower(),
        "reason": report.reason.name.lower(),
        "why": SENTENCES[report.reason],
        "have_pieces": report.have,
        "pieces": report.pieces,
        "complete": report.complete,
        "download_bytes_per_s": report.down,
        "upload_bytes_per_s": report.up,
        "disk_free": report.disk_free or None,
        "version": report.version,
        "age_s": round(host.age_s, 1),
        "silent": host.silent,
        "lost": host.lost,
        "left": host.gone,
    }


def _rates(rates: RateLimits) -> Result:
    return {"upload": rates.upload, "download": rates.download}


def _text(params: Result, name: str, default: str | None) -> str | None:
    value = params.get(name, default)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name}: expected text")
    return value


def _rate(params: Result, name: str, default: int | None) -> int | None:
    text = _text(params, name, None)
    return default if text is None else parse_rate(text, name)


class ControlProtocol(LineOnlyReceiver):
    """One client; its requests are answered in order."""

    delimiter = b"\n"
    MAX_LENGTH = limits.CONTROL_LINE_BYTES

    def __init__(self, clients: ControlFactory) -> None:
        self._clients = clients

    def connectionMade(self) -> None:
        """Take the client, if there are not too many."""
        self._clients.clients += 1
        if self._clients.clients > limits.CONTROL_CLIENTS:
            self._say({"error": {"code": 1, "message": "too many commands at a time"}})
            self._close()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Note that the client is gone."""
        del reason
        self._clients.clients -= 1

    def lineReceived(self, line: bytes) -> None:
        """Answer a request."""
        self._clients.control.answer(line).addCallback(self._say)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a request nobody would make."""
        del line
        most = limits.CONTROL_LINE_BYTES
        self._say({"error": {"code": 2, "message": f"a request has at most {most} bytes"}})
        self._close()

    def _say(self, answer: Result) -> None:
        assert self.transport is not None
        self.transport.write(json.dumps(answer).encode() + b"\n")

    def _close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class ControlFactory(ServerFactory):
    """The clients.

    Args:
        control: what they ask.
    """

    noisy = False

    def __init__(self, control: Control) -> None:
        self.control = control
        self.clients = 0

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:
        """Take a client."""
        del addr
        return ControlProtocol(self)


class ControlService(Service):
    """Listens on the socket in the state directory.

    Args:
        reactor: opens it.
        control: what clients ask.
        state_dir: where it is.
    """

    log = new_logger()

    def __init__(self, reactor: IReactorUNIX, control: Control, state_dir: str) -> None:
        self.path = socket_path(state_dir)
        self._reactor = reactor
        self._factory = ControlFactory(control)
        self._port: IListeningPort | None = None
        self._way = ExitStack()

    def startService(self) -> None:
        """Open the socket; without one the node works on, and the log says why."""
        super().startService()
        try:
            way = self._way.enter_context(short_way(self.path))
            if os.path.exists(way):  # noqa: PTH110 -- of a killed run: the lock is ours now
                os.unlink(way)  # noqa: PTH108
            before = os.umask(0o177)
            try:
                self._port = self._reactor.listenUNIX(way, self._factory, mode=0o600)
            finally:
                os.umask(before)
        except Exception as error:  # noqa: BLE001 -- CannotListenError, OSError: the same to us
            self.log.warn(
                "p2pdist status and other commands cannot reach this node: {path}: {reason}",
                path=self.path,
                reason=str(error),
            )

    def stopService(self) -> Deferred[None] | None:
        """Close the socket."""
        super().stopService()
        port, self._port = self._port, None
        if port is None:
            self._way.close()
            return None
        return maybeDeferred(port.stopListening).addCallback(lambda _: self._way.close())


def socket_path(state_dir: str) -> str:
    """Return where the node with this state directory listens."""
    return os.path.join(state_dir, SOCKET_NAME)  # noqa: PTH118 -- text
