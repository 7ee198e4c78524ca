"""The page as a service: opens its port on loopback, keeps its past, ends its streams.

Job: wire. It does NOT answer (``site``). Threat: the port must never be open to other machines:
there is no option for another address. Tests: ``test_web_service``.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogPublisher

from p2pdist import limits
from p2pdist.control import Control
from p2pdist.errors import ConfigurationError
from p2pdist.logs import new_logger
from p2pdist.web.api import Sources
from p2pdist.web.feed import Feed
from p2pdist.web.guard import names_of
from p2pdist.web.history import Logbook, Rates, Sample
from p2pdist.web.metrics import Metrics
from p2pdist.web.site import Asset, Door, Page, PageSite
from p2pdist.web.stream import Hub

LOOPBACK: Final = ("127.0.0.1", "::1")
KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def load_assets() -> dict[str, Asset]:
    """Return the page's files by path; ``/`` is ``index.html``."""
    found: dict[str, Asset] = {}
    for entry in resources.files("p2pdist.web").joinpath("assets").iterdir():
        name = entry.name
        kind = KINDS.get(name[name.rfind(".") :])
        if kind is not None:
            found["/" if name == "index.html" else f"/{name}"] = (kind, entry.read_bytes())
    return found


class WebService(Service):
    """The page of one node.

    Args:
        reactor: time and TCP.
        control: what it asks and tells.
        port: to listen on, 0 for any free one.
        token: the key.

    Attributes:
        port: that is open.
        url: of the page, with the key.
        rates: over time.
        log_lines: the last of the log.
    """

    log = new_logger()

    def __init__(self, reactor: Any, control: Control, port: int, token: str) -> None:
        self.port = port
        self._reactor = reactor
        self._control = control
        self._token = token
        self._ports: list[IListeningPort] = []
        self._page: Page | None = None
        self.rates = Rates()
        self.log_lines = Logbook()
        self._hub = Hub(reactor, self._feed)
        self._sampling = LoopingCall(self._sample)
        self._sampling.clock = reactor

    @property
    def url(self) -> str:
        """Of the page; behind ``#`` stands the key, which browsers do not send."""
        return f"http://127.0.0.1:{self.port}/#{self._token}"

    def bind(self) -> None:
        """Open the port on both loopback addresses; IPv6 may be missing. Again is fine.

        Raises:
            ConfigurationError: it is taken.
        """
        if self._ports:
            return
        page = Page(
            clock=self._reactor,
            token=self._token,
            names=names_of(self.port),
            assets=load_assets(),
            sources=Sources(self._control, self.rates, self.log_lines),
            hub=self._hub,
            metrics=Metrics(self._control).text,
        )
        door = Door(PageSite(page, self._reactor))
        try:
            first = self._reactor.listenTCP(self.port, door, interface=LOOPBACK[0])
        except CannotListenError as error:
            raise ConfigurationError(f"--web {self.port}: {error.socketError}") from error
        self._ports, self._page = [first], page
        self.port = first.getHost().port
        page.names = names_of(self.port)
        with suppress(CannotListenError):
            self._ports.append(self._reactor.listenTCP(self.port, door, interface=LOOPBACK[1]))
        self._control.page_url = self.url
        self.log.info(
            "the page is at http://127.0.0.1:{port}/; p2pdist status adds the key to it",
            port=self.port,
        )

    def startService(self) -> None:
        """Begin to keep rates and log lines."""
        super().startService()
        self.bind()
        globalLogPublisher.addObserver(self.log_lines)
        self._sampling.start(limits.WEB_SAMPLE_S)

    def stopService(self) -> Deferred[None]:
        """Close the port and every connection of a page; fires when the port is closed."""
        super().stopService()
        if self._sampling.running:
            self._sampling.stop()
            globalLogPublisher.removeObserver(self.log_lines)
        if self._page is not None:
            self._page.close()
        self._control.page_url = None
        ports, self._ports = self._ports, []
        closing = [maybeDeferred(port.stopListening) for port in ports]
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)

    def _feed(self, content: str | None) -> Feed:
        return Feed(self._control, self.rates, self.log_lines, content)

    def _sample(self) -> None:
        self.rates.add(Sample(self._reactor.seconds(), *self._control.moving()))
