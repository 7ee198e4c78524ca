"""What nodes say to each other over UDP: one frozen class per message, with its fields.

Job: names, fields and meanings. It does NOT know bytes (``wire``) nor who may say what when.
Requests carry a token and want a reply with the same ``rid``; an offer is a notice, a hail goes to
a multicast group. ``fields`` lists what travels, in order. Tests: ``test_wire``.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from attrs import field

from p2pdist import limits
from p2pdist.addresses import Address, pack
from p2pdist.ids import ID_BYTES, NodeID, Topic
from p2pdist.keys import PROOF_BYTES
from p2pdist.overlay.fields import (
    Addresses,
    Fixed,
    Kind,
    MaybeAddress,
    Member,
    NodeEntry,
    Nodes,
    Padding,
    Prefixes,
    UInt,
    frozen,
)

RID_BYTES = 8
QID_BYTES = 12
NO_TOKEN = bytes(limits.TOKEN_BYTES)
"""What stands for a token we do not hold."""


class Status(enum.IntEnum):
    """What a peer does with a content, told by itself (left: it went away)."""

    IDLE = 0
    LEECH = 1
    SEED = 2
    LEFT = 3


class Flag(enum.IntFlag):
    """Bits in the ``flags`` fields."""

    MEMBER = 1
    """offer: the finder itself is a peer, at the address this came from"""
    VIA = 2
    """get_peers: answer through ``via``; ``src`` cannot be reached from everywhere"""
    LAST = 4
    """get_peers: answer from your own table or not at all; do not pass it on"""
    NAT = 8
    """ping, pong: strangers cannot call me. get_peers, from its initiator to the first hop: offers
    of strangers may not reach me, have them sent to you (:attr:`VIA`)"""
    PAIR = 16
    """get_peers: whoever has a storer as next hop hands it to two of them at once"""


class Verdict(enum.IntEnum):
    """What the receiver of a get_peers did with it."""

    TAKEN = 0
    NO_ROUTE = 1
    BUSY = 2


class ErrorCode(enum.IntEnum):
    """Why a request was refused; unknown numbers are kept as they come."""

    RATE = 1
    NOT_A_PEER = 3
    BAD_PROOF = 4
    FULL = 5


_RID = Fixed(RID_BYTES)
_TRY = UInt(127)
_TOKEN = Fixed(limits.TOKEN_BYTES)
_NODE_ID = Fixed(ID_BYTES)
_QID = Fixed(QID_BYTES)
_TOPIC = Fixed(ID_BYTES)
_FLAGS = UInt(127)
_NAT = int(Flag.NAT)
"""Not the member itself: an enumeration's ``&`` is slow, and this is asked of every ping."""
_STATUS = Member(Status)
_PROOF = Fixed(PROOF_BYTES)
_SEQUENCE = UInt(2**32 - 1)
_REQUEST_HEAD = (("rid", _RID), ("attempt", _TRY), ("token", _TOKEN), ("node_id", _NODE_ID))
_STATEMENT = (("topic", _TOPIC), ("status", _STATUS), ("sequence", _SEQUENCE))
_REPLY_HEAD = (("rid", _RID), ("attempt", _TRY))


@frozen
class Message:
    """Anything that travels in one datagram."""

    code: ClassVar[int]
    fields: ClassVar[tuple[tuple[str, Kind], ...]]


@frozen(kw_only=True)
class Request(Message):
    """A message that wants a reply.

    Attributes:
        node_id: the sender.
        rid: correlation id; filled in by RPC.
        attempt: number of the try, 0-based; filled in by RPC.
        token: the receiver's token for the sender's address; filled in by RPC.
    """

    reply: ClassVar[type[Reply]]
    node_id: NodeID
    rid: bytes = bytes(RID_BYTES)
    attempt: int = 0
    token: bytes = NO_TOKEN

    @property
    def nat(self) -> bool | None:
        """Whether the sender says it is behind a NAT; ``None`` where it says nothing of it."""
        return None


@frozen(kw_only=True)
class Reply(Message):
    """Answers the request with this correlation id."""

    rid: bytes
    attempt: int


@frozen(kw_only=True)
class Pong(Reply):
    """Alive; here is your token and your address as I see it."""

    code = 0x40
    node_id: NodeID
    token: bytes
    observed: Address
    flags: int = 0
    fields = (*_REPLY_HEAD, ("node_id", _NODE_ID), ("grant", Fixed(14, 26)), ("flags", _FLAGS))

    @property
    def grant(self) -> bytes:
        """Token and observed address as they travel, in one field."""
        return self.token + pack(self.observed)

    @property
    def nat(self) -> bool:
        """Whether the sender says it is behind a NAT."""
        return self.flags & _NAT != 0


@frozen(kw_only=True)
class Ping(Request):
    """Are you there? The only request an address that never answered gets (decision 8)."""

    code = 0x00
    reply = Pong
    flags: int = 0
    fields = (*_REQUEST_HEAD, ("flags", _FLAGS), ("padding", Padding()))

    @property
    def nat(self) -> bool:
        """See :class:`Request`."""
        return self.flags & _NAT != 0


@frozen(kw_only=True)
class Challenge(Reply):
    """Prove your address: try again with this token. Never larger than a request."""

    code = 0x7E
    token: bytes
    fields = (*_REPLY_HEAD, ("token", _TOKEN))


@frozen(kw_only=True)
class Error(Reply):
    """The request is refused; the code is an :class:`ErrorCode` or a number not known here."""

    code = 0x7F
    error: int
    fields = (*_REPLY_HEAD, ("error", UInt(255)))


@frozen(kw_only=True)
class Found(Reply):
    """Nodes close to the target, nearest first, both families."""

    code = 0x42
    nodes4: tuple[NodeEntry, ...] = ()
    nodes6: tuple[NodeEntry, ...] = ()
    fields = (*_REPLY_HEAD, ("nodes4", Nodes(6)), ("nodes6", Nodes(18)))


@frozen(kw_only=True)
class Find(Request):
    """Which nodes do you know near ``target``?"""

    code = 0x02
    reply = Found
    target: bytes
    fields = (*_REQUEST_HEAD, ("target", Fixed(ID_BYTES)))


@frozen(kw_only=True)
class Forwarded(Reply):
    """What became of a get_peers.

    Attributes:
        verdict: taken (answered, passed on, or a duplicate), no route, or busy.
        units: reply units given back with a refusal, 0 to 5.
        token: a fresh token for the sender.
    """

    code = 0x43
    verdict: Verdict
    units: int
    token: bytes
    fields = (
        *_REPLY_HEAD,
        ("verdict", Member(Verdict)),
        ("units", UInt(limits.GET_PEERS_WIDE_UNITS)),
        ("token", _TOKEN),
    )


@frozen(kw_only=True)
class GetPeers(Request):
    """Who has the content of ``topic``? Passed on from neighbour to neighbour.

    Attributes:
        qid: names the query; its last byte numbers the walk.
        topic: what is looked for.
        src: the initiator's origin; written by the first hop from the UDP header, never believed
            from an initiator.
        via: the first hop's address; written by the second hop from the UDP header.
        hops: how many nodes passed it on.
        units: offers this copy may cause at most.
        flags: :attr:`Flag.VIA`, :attr:`Flag.LAST`, :attr:`Flag.NAT`, :attr:`Flag.PAIR`.
        wide: padded to 1232 instead of 720 bytes.
    """

    code = 0x03
    reply = Forwarded
    qid: bytes
    topic: Topic
    src: Address | None = None
    via: Address | None = None
    hops: int = 0
    units: int = limits.GET_PEERS_UNITS
    flags: int = 0
    wide: bool = field(default=False)
    fields = (
        *_REQUEST_HEAD,
        ("qid", _QID),
        ("topic", _TOPIC),
        ("src", MaybeAddress()),
        ("via", MaybeAddress()),
        ("hops", UInt(limits.HOPS)),
        ("units", UInt(limits.GET_PEERS_WIDE_UNITS)),
        ("flags", _FLAGS),
        ("padding", Padding()),
    )

    @property
    def nat(self) -> bool | None:
        """See :class:`Request`: an initiator speaks for itself, who passes on for somebody else."""
        return True if not self.hops and self.flags & _NAT else None


@frozen(kw_only=True)
class Offer(Message):
    """The finder's direct answer to the initiator: some peers, and a cookie for more.

    At most ``limits.OFFER_BYTES``, so that one reply unit pays for it.

    Attributes:
        qid: of the query answered.
        node_id: the finder.
        cookie: 12 bytes, or empty when the offer went through a relay.
        swarm: peers known, for people.
        flags: :attr:`Flag.MEMBER`.
        finder: written by the relay from the UDP header; ``None`` in a direct offer.
        peers4: at most 13.
        peers6: at most 4.
    """

    code = 0x04
    qid: bytes
    node_id: NodeID
    cookie: bytes
    swarm: int
    flags: int = 0
    finder: Address | None = None
    peers4: tuple[Address, ...] = ()
    peers6: tuple[Address, ...] = ()
    fields = (
        ("qid", _QID),
        ("node_id", _NODE_ID),
        ("cookie", Fixed(0, limits.COOKIE_BYTES)),
        ("swarm", UInt(2**16 - 1)),
        ("flags", _FLAGS),
        ("finder", MaybeAddress()),
        ("peers4", Addresses(6, limits.OFFER_PEERS_V4)),
        ("peers6", Addresses(18, limits.OFFER_PEERS_V6)),
    )


@frozen(kw_only=True)
class Accepted(Reply):
    """The longer list, for an address that proved itself."""

    code = 0x45
    token: bytes
    peers4: tuple[Address, ...] = ()
    peers6: tuple[Address, ...] = ()
    nodes4: tuple[NodeEntry, ...] = ()
    nodes6: tuple[NodeEntry, ...] = ()
    fields = (
        *_REPLY_HEAD,
        ("token", _TOKEN),
        ("peers4", Addresses(6, limits.REPLY_PEERS_V4)),
        ("peers6", Addresses(18, limits.REPLY_PEERS_V6)),
        ("nodes4", Nodes(6)),
        ("nodes6", Nodes(18)),
    )


@frozen(kw_only=True)
class Accept(Request):
    """Takes an offer: acknowledges it, proves the address, announces the sender, asks for more."""

    code = 0x05
    reply = Accepted
    qid: bytes
    cookie: bytes
    topic: Topic
    status: Status
    sequence: int
    fields = (
        *_REQUEST_HEAD,
        ("qid", _QID),
        ("cookie", Fixed(0, limits.COOKIE_BYTES)),
        *_STATEMENT,
    )


@frozen(kw_only=True)
class Announced(Reply):
    """Stored for ``ttl_s`` seconds; ``others`` further peers are known here."""

    code = 0x46
    ttl_s: int
    others: int
    fields = (*_REPLY_HEAD, ("ttl_s", UInt(limits.PEER_TTL_S)), ("others", UInt(2**16 - 1)))


@frozen(kw_only=True)
class Announce(Request):
    """I am a peer of this topic, at the address this comes from; status LEFT takes it back."""

    code = 0x06
    reply = Announced
    topic: Topic
    status: Status
    sequence: int
    fields = (*_REQUEST_HEAD, *_STATEMENT)


@frozen(kw_only=True)
class Joined(Reply):
    """Welcome; here is my proof that I know the content's key."""

    code = 0x47
    node_id: NodeID
    status: Status
    proof: bytes
    fields = (*_REPLY_HEAD, ("node_id", _NODE_ID), ("status", _STATUS), ("proof", _PROOF))


@frozen(kw_only=True)
class Join(Request):
    """Peer to peer: count me in; here is my proof that I know the content's key (decision 4)."""

    code = 0x07
    reply = Joined
    topic: Topic
    proof: bytes
    fields = (*_REQUEST_HEAD, ("topic", _TOPIC), ("proof", _PROOF))


@frozen(kw_only=True)
class Noted(Reply):
    """The status update arrived."""

    code = 0x48
    fields = _REPLY_HEAD


@frozen(kw_only=True)
class StatusUpdate(Request):
    """I am now idle, leeching, seeding, or gone; higher sequence numbers win."""

    code = 0x08
    reply = Noted
    topic: Topic
    status: Status
    sequence: int
    fields = (*_REQUEST_HEAD, *_STATEMENT)


@frozen(kw_only=True)
class Hail(Message):
    """Multicast on a LAN: here is a node, on this port, with contents of these topics.

    Attributes:
        port: UDP and TCP port; the address is the datagram's source.
        topics: the first 8 bytes of each topic, at most ``limits.LAN_TOPICS``.
    """

    code = 0x10
    port: int
    topics: tuple[bytes, ...]
    fields = (("port", UInt(65535)), ("topics", Prefixes(8, limits.LAN_TOPICS)))


MESSAGES: dict[int, type[Message]] = {
    kind.code: kind
    for kind in (
        *(Ping, Find, GetPeers, Offer, Accept, Announce, Join, StatusUpdate, Hail),
        *(Pong, Challenge, Error, Found, Forwarded, Accepted, Announced, Joined, Noted),
    )
}
"""Every message by its code; what has no class here is no message."""
