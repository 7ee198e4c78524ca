"""A UDP speaker under a test's control: it says what no honest node would, and records answers.

Job: seal and send any message, from its own address or a forged one; learn tokens as nodes do.
Used by the overlay's tests; does NOT answer by itself, unless told to be polite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.protocol import DatagramProtocol

from p2pdist import limits
from p2pdist.addresses import Address, from_socket
from p2pdist.ids import ID_BYTES, NodeID
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys
from p2pdist.overlay.envelope import HEADER_BYTES, Envelope, read_header
from p2pdist.overlay.messages import (
    NO_TOKEN,
    QID_BYTES,
    RID_BYTES,
    Message,
    Noted,
    Ping,
    Pong,
    Request,
    StatusUpdate,
)
from p2pdist.overlay.wire import decode, encode
from p2pdist.test.network import Host

M = TypeVar("M", bound=Message)


class Stranger(DatagramProtocol):
    """A socket on ``host``.

    Attributes:
        node_id: what it calls itself.
        envelope: seals for the network it knows the keys of.
        received: (message, source), oldest first.
        notices: 30-byte notices received.
        bytes_sent: datagram bytes, forged ones included.
        polite: whether it answers pings and notes statuses.
        answers: what else it answers, by the request's type.
        bytes_received: datagram bytes of any kind.
    """

    noisy = False

    def __init__(
        self,
        host: Host,
        keys: NetworkKeys = PUBLIC_NETWORK,
        port: int = limits.DEFAULT_PORT,
    ) -> None:
        self.host = host
        self.node_id = NodeID(host.entropy(ID_BYTES))
        self.envelope = Envelope(keys, host.entropy)
        self.received: list[tuple[Message, Address]] = []
        self.notices: list[bytes] = []
        self.polite = False
        self.answers: dict[type[Message], Callable[[Any], Message]] = {}
        self.bytes_sent = 0
        self.bytes_received = 0
        self.address = Address(host.addresses[0], port)
        interface = "::" if ":" in self.address.host else "0.0.0.0"
        host.reactor.listenUDP(port, self, interface=interface)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Record it."""
        source = from_socket(addr[0], addr[1])
        self.bytes_received += len(datagram)
        if len(datagram) == HEADER_BYTES:
            self.notices.append(datagram)
        else:
            header = read_header(datagram)
            message = decode(self.envelope.open(datagram, header))
            self.received.append((message, source))
            if self.polite and isinstance(message, Ping):
                self.answer(message, source)
            elif self.polite and isinstance(message, StatusUpdate):
                self.send(source, Noted(rid=message.rid, attempt=message.attempt))
            elif type(message) in self.answers:
                self.send(source, self.answers[type(message)](message))

    def send(self, to: Address, message: Message) -> int:
        """Send ``message``; return the datagram's size."""
        return self.send_raw(to, self.envelope.seal(encode(message)))

    def send_raw(self, to: Address, datagram: bytes) -> int:
        """Send any bytes."""
        self.bytes_sent += len(datagram)
        assert self.transport is not None
        self.transport.write(datagram, (to.host, to.port))
        return len(datagram)

    def forge(self, source: Address, to: Address, message: Message) -> int:
        """Send ``message`` as if it came from ``source``; return the datagram's size."""
        datagram = self.envelope.seal(encode(message))
        self.bytes_sent += len(datagram)
        self.host.world.send_datagram(self.host, source, to, datagram)
        return len(datagram)

    def heard(self, kind: type[M]) -> list[M]:
        """Return the messages of one kind received so far."""
        return [message for message, _ in self.received if isinstance(message, kind)]

    def ask(self, to: Address, request: Request, **changed: Any) -> Any:
        """Send a request with a fresh rid, wait half a second, return the reply or ``None``."""
        rid = self.host.entropy(RID_BYTES)
        self.send(to, attrs.evolve(request, rid=rid, **changed))
        self.host.world.run(0.5)
        replies = [m for m, _ in self.received if getattr(m, "rid", None) == rid]
        return replies[-1] if replies else None

    def token(self, to: Address) -> bytes:
        """Return the token ``to`` wants to see from us; by a ping, as nodes do."""
        pong = self.ask(to, Ping(node_id=self.node_id))
        assert isinstance(pong, Pong), pong
        return pong.token

    def befriend(self, to: Address) -> bytes:
        """Prove our address to ``to``, so that we are its neighbour; return the token."""
        token = self.token(to)
        self.ask(to, Ping(node_id=self.node_id), token=token)
        return token

    def answer(self, request: Ping, source: Address, token: bytes = NO_TOKEN) -> None:
        """Answer a ping."""
        pong = Pong(
            rid=request.rid,
            attempt=request.attempt,
            node_id=self.node_id,
            token=token if token != NO_TOKEN else b"stranger"[: limits.TOKEN_BYTES],
            observed=source,
        )
        self.send(source, pong)

    def qid(self) -> bytes:
        """Return a fresh query id."""
        return self.host.entropy(QID_BYTES)
