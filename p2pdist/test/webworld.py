"""A node with a page, and a browser that speaks raw HTTP to it: all in memory.

The production :class:`~p2pdist.web.service.WebService` with Twisted's own HTTP; the ports are
``MemoryReactorClock``'s, so that a test sees every byte.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from p2pdist.test.pairworld import PairCase
from p2pdist.web.service import WebService

PORT = 7680
TOKEN = "5e" * 32
HOST = f"127.0.0.1:{PORT}"
KEY = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}


@frozen
class Answer:
    """What came back.

    Attributes:
        status: of HTTP.
        headers: by name in small letters, all of them.
        body: of it; chunks joined.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Wire(StringTransport):
    """A connection that remembers how it ended."""

    aborted = False

    def abortConnection(self) -> None:
        """Hang up at once."""
        self.aborted = True
        super().abortConnection()


class Connection:
    """One connection of a browser."""

    def __init__(self, factory: Any) -> None:
        self.protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 50000))
        self.wire = Wire()
        if self.protocol is not None:
            self.protocol.makeConnection(self.wire)

    @property
    def refused(self) -> bool:
        """Whether nobody took it."""
        return self.protocol is None

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.protocol.dataReceived(data)

    def hang_up(self) -> None:
        """End it."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def answer(self) -> Answer:
        """Return the first answer that came."""
        head, _, rest = self.wire.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        if headers.get("transfer-encoding") == "chunked":
            rest = b"".join(chunks(rest))
        return Answer(int(first.split()[1]), headers, rest)


def chunks(data: bytes) -> list[bytes]:
    """Return the chunks of a body."""
    found = []
    while data:
        size, _, data = data.partition(b"\r\n")
        found.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return found


def events(body: bytes) -> list[tuple[str, Any]]:
    """Return the server-sent events in a body, with their data."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        name, _, data = block.partition("\ndata: ")
        found.append((name.removeprefix("event: "), json.loads(data)))
    return found


class WebCase(PairCase):
    """A seed and a downloader of one content, the latter with a page."""

    def setUp(self) -> None:
        """Start both, and the page."""
        super().setUp()
        self.reactor: Any = MemoryReactorClock()
        self.web = WebService(self.reactor, self.control, PORT, TOKEN)
        self.web.startService()
        self.addCleanup(self.web.stopService)
        self.factory = self.reactor.tcpServers[0][1]
        self.key = f"b3:{self.made.hash_key.hex()}"

    def connect(self) -> Connection:
        """Open a connection to the page's port."""
        return Connection(self.factory)

    def raw(self, data: bytes) -> Answer:
        """Send bytes, return the answer."""
        connection = self.connect()
        connection.send(data)
        return connection.answer()

    def start(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Connection:
        """Send a request, to the right Host unless ``headers`` name one; return the connection."""
        sent = {"Host": HOST, **(headers or {})}
        if body or method == "POST":
            sent.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {sent[name]}" for name in sent)]
        connection = self.connect()
        connection.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return connection

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send a request, return the answer."""
        connection = self.start(method, path, headers, body)
        if not connection.wire.value():
            self.world.run(2)
        connection.hang_up()
        return connection.answer()

    def get(self, path: str) -> Any:
        """Return the JSON of a path, asked for with the key."""
        answer = self.ask("GET", path, KEY)
        self.assertEqual(200, answer.status, answer.body)
        return answer.json

    def post(self, where: str, **body: Any) -> Answer:
        """Tell something, with the key."""
        return self.ask("POST", where, {**KEY, **JSON}, json.dumps(body).encode())
