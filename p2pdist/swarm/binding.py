"""Both sides of a private connection prove the secret and the content, bound to its TLS. Sans-I/O.

::

    dialler -> acceptor   binding      mac("p2pdist/1 client")
    acceptor -> dialler   binding      mac("p2pdist/1 server")    only if the first was right

    mac(label) = HMAC-SHA256(tcp_key, label | hash_key | key_d | key_a | exported)

TLS has proved both node keys by now. ``exported`` is the channel's own value (RFC 9266): who sits
between two TLS connections has two different ones, so that what one side says fits the other
nowhere. The content is not named: the acceptor tries its own ones of the network. The label keeps
a mac from being sent back to where it came from.
Takes the place that ``handshake`` has in public swarms.
Threat: everybody without the secret; members of the network without the content.
Tests: ``test_binding``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final

from attrs import define, field, frozen

from p2pdist.errors import AuthenticationFailed, UnexpectedMessage
from p2pdist.ids import HashKey, NodeID
from p2pdist.keys import equal, mac, node_id_of
from p2pdist.swarm.messages import Binding, Message

_CLIENT: Final = b"p2pdist/1 client"
_SERVER: Final = b"p2pdist/1 server"


@frozen
class Secured:
    """What TLS has settled.

    Attributes:
        dialler: public key of the side that dialled.
        acceptor: of the other one.
        exported: 32 bytes that no other connection has.
    """

    dialler: bytes
    acceptor: bytes
    exported: bytes = field(repr=False)

    def mac(self, label: bytes, tcp_key: bytes, hash_key: HashKey) -> bytes:
        """Return what ``label``'s side sends; every part but the label first has a fixed size."""
        return mac(tcp_key, label, hash_key, self.dialler, self.acceptor, self.exported)


@define
class PrivateDialler:
    """The side that opened the connection.

    Args:
        hash_key: the content wanted.
        tcp_key: of it, in the network.

    Attributes:
        peer: the node proved at the other end, or ``None`` yet.
    """

    silent: ClassVar[bool] = True
    _hash_key: HashKey
    _tcp_key: bytes = field(repr=False)
    peer: NodeID | None = field(default=None, init=False)
    _expected: bytes = field(default=b"", init=False, repr=False)
    _acceptor: bytes = field(default=b"", init=False)

    def start(self) -> None:
        """Nothing: TLS comes first."""

    def secured(self, channel: Secured) -> Binding:
        """TLS is done: return the first message."""
        self._expected = channel.mac(_SERVER, self._tcp_key, self._hash_key)
        self._acceptor = channel.acceptor
        return Binding(channel.mac(_CLIENT, self._tcp_key, self._hash_key))

    def receive(self, message: Message) -> None:
        """Take the acceptor's message and set ``peer``.

        Raises:
            AuthenticationFailed: it proves nothing.
            UnexpectedMessage: another message.
        """
        if self.peer is not None or not isinstance(message, Binding) or not self._expected:
            raise UnexpectedMessage("handshake-order", type(message).__name__)
        if not equal(message.mac, self._expected):
            raise AuthenticationFailed("handshake-binding")
        self.peer = node_id_of(self._acceptor)


@define
class PrivateAcceptor:
    """The side that was called.

    Args:
        contents: returns hash key and tcp key of each content of the network.

    Attributes:
        content: what the dialler asked for, or ``None`` yet.
        peer: the node proved at the other end, or ``None`` yet.
    """

    silent: ClassVar[bool] = True
    _contents: Callable[[], Iterable[tuple[HashKey, bytes]]]
    content: HashKey | None = field(default=None, init=False)
    peer: NodeID | None = field(default=None, init=False)
    _channel: Secured | None = field(default=None, init=False)

    def start(self) -> None:
        """Nothing: TLS comes first."""

    def secured(self, channel: Secured) -> None:
        """TLS is done; the dialler speaks first."""
        self._channel = channel

    def receive(self, message: Message) -> Binding:
        """Take the dialler's message, set ``content`` and ``peer``, and return the answer.

        Raises:
            AuthenticationFailed: it proves nothing about a content of ours.
            UnexpectedMessage: another message.
        """
        channel = self._channel
        if self.peer is not None or channel is None or not isinstance(message, Binding):
            raise UnexpectedMessage("handshake-order", type(message).__name__)
        for hash_key, tcp_key in self._contents():
            if equal(message.mac, channel.mac(_CLIENT, tcp_key, hash_key)):
                self.content = hash_key
                self.peer = node_id_of(channel.dialler)
                return Binding(channel.mac(_SERVER, tcp_key, hash_key))
        raise AuthenticationFailed("handshake-binding")
