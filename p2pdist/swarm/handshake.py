"""Who speaks at the other end, and whether it knows the content (decision 24). Sans-I/O.

::

    dialler -> acceptor   hello        topic, nonce_d, key_d
    acceptor -> dialler   hello_reply  nonce_a, key_a, sign_a("A")
    dialler -> acceptor   proof        sign_d("D")

    sign_x(role) = Ed25519 over
        "p2pdist/1 tcp" | role | hash_key | nonce_d | nonce_a | key_d | key_a

One signature proves the key and the knowledge of hash_key, which itself never travels. Both nonces
make every transcript new, the role keeps a signature from being sent back to where it came from.
Does NOT encrypt: pieces are checked by their hashes. In private networks TLS and ``binding`` take
the place of all this.
Threat: whoever sits in between can read and cut a public connection, but cannot take part in it
under another's name; strangers to the content get one signature and nothing else.
Tests: ``test_handshake``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, Union

from attrs import define, field

from p2pdist.errors import AuthenticationFailed, UnexpectedMessage
from p2pdist.ids import HashKey, NodeID, Topic
from p2pdist.keys import NodeKey, node_id_of, signature_ok, topic_of, weak_key
from p2pdist.swarm.binding import PrivateAcceptor, PrivateDialler
from p2pdist.swarm.messages import Hello, HelloReply, Message, Proof

_CONTEXT: Final = b"p2pdist/1 tcp"
_DIALLER: Final = b"D"
_ACCEPTOR: Final = b"A"


def _transcript(
    role: bytes, hash_key: HashKey, hello: Hello, nonce: bytes, public_key: bytes
) -> tuple[bytes, ...]:
    """Return what ``role`` signs; every part but the constant first has a fixed size."""
    return (_CONTEXT, role, hash_key, hello.nonce, nonce, hello.public_key, public_key)


def _check_key(node_key: NodeKey, public_key: bytes) -> None:
    if public_key == node_key.public:
        raise UnexpectedMessage("self-connection")
    if weak_key(public_key):
        raise AuthenticationFailed("handshake-key")


@define
class Dialler:
    """The side that opened the connection.

    Args:
        hash_key: the content wanted.
        node_key: our own key.
        nonce: 32 fresh random bytes.

    Attributes:
        silent: whether who proves nothing is closed without a word.
        peer: the node proved at the other end, or ``None`` yet.
    """

    silent: ClassVar[bool] = False
    _hash_key: HashKey
    _node_key: NodeKey
    _nonce: bytes
    peer: NodeID | None = field(default=None, init=False)

    def start(self) -> Hello:
        """Return the first message."""
        return Hello(topic_of(self._hash_key), self._nonce, self._node_key.public)

    def receive(self, message: Message) -> Proof:
        """Take the acceptor's message, set ``peer`` and return the answer.

        Raises:
            AuthenticationFailed: the signature is not what it must be.
            UnexpectedMessage: another message, or we called ourselves.
        """
        if self.peer is not None or not isinstance(message, HelloReply):
            raise UnexpectedMessage("handshake-order", type(message).__name__)
        _check_key(self._node_key, message.public_key)
        seen = (self._hash_key, self.start(), message.nonce, message.public_key)
        if not signature_ok(message.public_key, message.signature, *_transcript(_ACCEPTOR, *seen)):
            raise AuthenticationFailed("handshake-signature")
        self.peer = node_id_of(message.public_key)
        return Proof(self._node_key.sign(*_transcript(_DIALLER, *seen)))


@define
class Acceptor:
    """The side that was called.

    Args:
        node_key: our own key.
        nonce: 32 fresh random bytes.
        find_hash_key: what stands behind a topic, or ``None`` when we have no part in it.

    Attributes:
        content: what the dialler asked for, or ``None`` yet.
        peer: the node proved at the other end, or ``None`` yet.
    """

    silent: ClassVar[bool] = False
    _node_key: NodeKey
    _nonce: bytes
    _find_hash_key: Callable[[Topic], HashKey | None]
    content: HashKey | None = field(default=None, init=False)
    peer: NodeID | None = field(default=None, init=False)
    _hello: Hello | None = field(default=None, init=False)
    _expected: tuple[bytes, ...] = field(default=(), init=False)

    def start(self) -> None:
        """Nothing: the dialler speaks first."""

    def receive(self, message: Message) -> HelloReply | None:
        """Take the dialler's next message and return the answer, if it gets one.

        Raises:
            AuthenticationFailed: the signature is not what it must be.
            UnexpectedMessage: another message, an unknown topic, or we called ourselves.
        """
        if self._hello is None and isinstance(message, Hello):
            return self._greet(message)
        if self._hello is not None and self.peer is None and isinstance(message, Proof):
            if not signature_ok(self._hello.public_key, message.signature, *self._expected):
                raise AuthenticationFailed("handshake-signature")
            self.peer = node_id_of(self._hello.public_key)
            return None
        raise UnexpectedMessage("handshake-order", type(message).__name__)

    def _greet(self, hello: Hello) -> HelloReply:
        _check_key(self._node_key, hello.public_key)
        hash_key = self._find_hash_key(hello.topic)
        if hash_key is None:
            raise UnexpectedMessage("unknown-topic", hello.topic.hex())
        self._hello, self.content = hello, hash_key
        seen = (hash_key, hello, self._nonce, self._node_key.public)
        self._expected = _transcript(_DIALLER, *seen)
        signature = self._node_key.sign(*_transcript(_ACCEPTOR, *seen))
        return HelloReply(self._nonce, self._node_key.public, signature)


Handshake = Union[Dialler, Acceptor, PrivateDialler, PrivateAcceptor]  # noqa: UP007 -- an alias that Python 3.10 must evaluate
