"""What two peers say to each other, as values.

Job: names and fields. Does NOT know their bytes (``peerwire``, whose table says who sends what and
when) nor check them. Tests: ``test_peerwire``.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Union

from attrs import frozen

from p2pdist.addresses import Address
from p2pdist.census.gossip import Digest, Records, Summary, Want
from p2pdist.ids import PieceIndex, Topic


class DeclineReason(enum.IntEnum):
    """Why a grant is not taken."""

    NOTHING = 1
    """You have nothing I lack that is not on its way already."""
    BUSY = 2
    """I have no room for another piece."""


class RejectReason(enum.IntEnum):
    """Why the rest of a requested piece will not come."""

    GONE = 1
    """I do not have it, or cannot read it."""
    CANCELLED = 2
    """You asked me to stop."""


class ByeReason(enum.IntEnum):
    """Why a connection is closed. Codes not known here are legal."""

    STOPPING = 1
    DONE = 2
    """Both sides are complete."""
    DUPLICATE = 3
    """The other connection between us stays."""
    UNKNOWN_TOPIC = 4
    SELF = 5
    BANNED = 6
    FULL = 7
    PROTOCOL = 8
    IDLE = 9
    STALLED = 10
    VERSION = 11


@frozen
class Hello:
    """The dialler names the topic and itself."""

    topic: Topic
    nonce: bytes
    public_key: bytes


@frozen
class HelloReply:
    """The acceptor proves itself and that it knows the hash_key."""

    nonce: bytes
    public_key: bytes
    signature: bytes


@frozen
class Proof:
    """The dialler proves the same."""

    signature: bytes


@frozen
class Binding:
    """One side of a private connection proves that it knows the secret and the hash_key."""

    mac: bytes


@frozen
class Bye:
    """The last message; ``reason`` is a :class:`ByeReason` or a later version's code."""

    reason: int


@frozen
class KeepAlive:
    """Nothing, said in time."""


@frozen
class Bitfield:
    """What the sender holds: high bit of the first byte is piece 0 (BEP 3)."""

    bits: bytes


@frozen
class Have:
    """Pieces verified since."""

    indices: tuple[PieceIndex, ...]


@frozen
class MetadataRequest:
    """Asks for the metadata, whole."""


@frozen
class MetadataPart:
    """Bytes of the metadata from ``offset``; ``total`` is its size."""

    total: int
    offset: int
    data: bytes | memoryview


@frozen
class Interest:
    """Whether the sender lacks something the other side has."""

    wanted: bool


@frozen
class Grant:
    """An uploader offers its next free place; ``index`` is a hint."""

    index: PieceIndex


@frozen
class Request:
    """Takes a grant, for the hinted piece or another."""

    index: PieceIndex


@frozen
class Decline:
    """Refuses a grant; no other follows until :class:`Ready`."""

    reason: DeclineReason


@frozen
class Ready:
    """Takes a decline back."""


@frozen
class Block:
    """Bytes of a requested piece from ``offset``."""

    index: PieceIndex
    offset: int
    data: bytes | memoryview


@frozen
class Received:
    """All bytes of the piece are here, verified or not."""

    index: PieceIndex


@frozen
class Cancel:
    """The piece is not wanted any more."""

    index: PieceIndex


@frozen
class Reject:
    """No more bytes of the piece will come."""

    index: PieceIndex
    reason: RejectReason


class PeerFlag(enum.IntFlag):
    """What is said of a peer; other bits are a later version's and mean nothing here."""

    REACHED = 1
    """The sender called it there: TCP gets through."""


class PeerNote(NamedTuple):
    """One peer told of.

    Attributes:
        address: its UDP and TCP address.
        flags: what is said of it.
    """

    address: Address
    flags: PeerFlag


@frozen
class Peers:
    """Which peers are good to call, and which no more, since the sender last said so.

    Attributes:
        room: whether the sender itself has a place for one more caller.
        added4, added6: connected to the sender, and with a place themselves as far as it knows.
        left4, left6: of those it told, the ones that are that no more.
    """

    room: bool
    added4: tuple[PeerNote, ...] = ()
    added6: tuple[PeerNote, ...] = ()
    left4: tuple[Address, ...] = ()
    left6: tuple[Address, ...] = ()


Message = Union[  # noqa: UP007 -- an alias that Python 3.10 must evaluate
    Hello,
    HelloReply,
    Proof,
    Binding,
    Bye,
    KeepAlive,
    Bitfield,
    Have,
    MetadataRequest,
    MetadataPart,
    Interest,
    Grant,
    Request,
    Decline,
    Ready,
    Block,
    Received,
    Cancel,
    Reject,
    Peers,
    Digest,
    Want,
    Records,
    Summary,
]
