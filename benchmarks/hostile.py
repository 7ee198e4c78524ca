"""Datagrams of attackers who know the network's key, as everybody does in the public one.

Every message has the right shape and random contents, so that it gets as far into a node as a
stranger's can. Shared by `junk.py` and `forgery.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import common  # noqa: F401 -- makes p2pdist importable
import msgpack

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import ID_BYTES, NodeID, Topic
from p2pdist.keys import PROOF_BYTES, PUBLIC_NETWORK
from p2pdist.overlay.envelope import Envelope
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.messages import (
    QID_BYTES,
    RID_BYTES,
    Accept,
    Accepted,
    Announce,
    Announced,
    Challenge,
    Error,
    Find,
    Forwarded,
    Found,
    GetPeers,
    Join,
    Joined,
    Message,
    Noted,
    Offer,
    Ping,
    Pong,
    Status,
    StatusUpdate,
    Verdict,
)
from p2pdist.overlay.wire import encode

Make = Callable[[random.Random, bytes], Message]
"""Makes a message; the bytes are a request's token, or a reply's rid."""


def global_address(chance: random.Random) -> Address:
    """Return a random public IPv4 address."""
    host = f"{chance.randrange(30, 90)}.{chance.randrange(256)}.{chance.randrange(256)}.9"
    return Address(host, chance.randrange(1024, 65536))


def node_id(chance: random.Random) -> NodeID:
    """Return a random one."""
    return NodeID(chance.randbytes(ID_BYTES))


def topic(chance: random.Random) -> Topic:
    """Return a random one."""
    return Topic(chance.randbytes(ID_BYTES))


def head(chance: random.Random, token: bytes) -> dict[str, Any]:
    """Return what every request begins with."""
    rid = chance.randbytes(RID_BYTES)
    attempt = chance.randrange(limits.TRIES)
    return {"node_id": node_id(chance), "rid": rid, "attempt": attempt, "token": token}


def _statement(chance: random.Random) -> dict[str, Any]:
    sequence = chance.getrandbits(32)
    return {"topic": topic(chance), "status": Status.SEED, "sequence": sequence}


def ping(chance: random.Random, token: bytes) -> Ping:
    """See :data:`Make`."""
    return Ping(**head(chance, token))


def find(chance: random.Random, token: bytes) -> Find:
    """See :data:`Make`."""
    return Find(**head(chance, token), target=chance.randbytes(ID_BYTES))


def get_peers(chance: random.Random, token: bytes) -> GetPeers:
    """See :data:`Make`."""
    return GetPeers(
        **head(chance, token),
        qid=chance.randbytes(QID_BYTES),
        topic=topic(chance),
        src=global_address(chance),
        via=global_address(chance),
        hops=chance.randrange(limits.HOPS + 1),
        units=chance.randrange(limits.GET_PEERS_UNITS + 1),
        wide=chance.random() < 0.5,
    )


def accept(chance: random.Random, token: bytes) -> Accept:
    """See :data:`Make`; the cookie is random."""
    qid, cookie = chance.randbytes(QID_BYTES), chance.randbytes(limits.COOKIE_BYTES)
    return Accept(**head(chance, token), **_statement(chance), qid=qid, cookie=cookie)


def announce(chance: random.Random, token: bytes) -> Announce:
    """See :data:`Make`."""
    return Announce(**head(chance, token), **_statement(chance))


def join(chance: random.Random, token: bytes) -> Join:
    """See :data:`Make`."""
    proof = chance.randbytes(PROOF_BYTES)
    return Join(**head(chance, token), topic=topic(chance), proof=proof)


def status_update(chance: random.Random, token: bytes) -> StatusUpdate:
    """See :data:`Make`."""
    return StatusUpdate(**head(chance, token), **_statement(chance))


REQUESTS: tuple[Make, ...] = (find, get_peers, accept, announce, join, status_update)
"""Those that need a token."""


def offer(chance: random.Random, _rid: bytes) -> Offer:
    """See :data:`Make`."""
    return Offer(
        qid=chance.randbytes(QID_BYTES),
        node_id=node_id(chance),
        cookie=chance.randbytes(limits.COOKIE_BYTES),
        swarm=chance.randrange(1000),
        peers4=tuple(global_address(chance) for _ in range(limits.OFFER_PEERS_V4)),
    )


def _token(chance: random.Random) -> bytes:
    return chance.randbytes(limits.TOKEN_BYTES)


def _nodes(chance: random.Random) -> tuple[NodeEntry, ...]:
    return tuple(NodeEntry(node_id(chance), global_address(chance)) for _ in range(8))


def reply(chance: random.Random, rid: bytes) -> Message:
    """Return a reply of a random kind."""
    start: dict[str, Any] = {"rid": rid, "attempt": 0}
    which = chance.randrange(9)
    if which == 0:
        here = Address("127.0.0.1", 7667)
        return Pong(**start, node_id=node_id(chance), token=_token(chance), observed=here)
    if which == 1:
        return Found(**start, nodes4=_nodes(chance))
    if which == 2:
        return Forwarded(**start, verdict=Verdict.TAKEN, units=0, token=_token(chance))
    if which == 3:
        peers = tuple(global_address(chance) for _ in range(limits.REPLY_PEERS_V4 // 2))
        return Accepted(**start, token=_token(chance), peers4=peers, nodes4=_nodes(chance))
    if which == 4:
        proof = chance.randbytes(PROOF_BYTES)
        return Joined(**start, node_id=node_id(chance), status=Status.SEED, proof=proof)
    simple: tuple[Message, ...] = (
        Announced(**start, ttl_s=60, others=3),
        Challenge(**start, token=_token(chance)),
        Error(**start, error=chance.randrange(8)),
        Noted(**start),
    )
    return simple[which - 5]


def nonsense(chance: random.Random) -> bytes:
    """Return msgpack of random values, or what begins like it."""

    def value(depth: int) -> Any:
        leaves: list[Any] = [chance.getrandbits(40), chance.randbytes(20), None, True, 0.5, "text"]
        if depth == 0 or chance.random() < 0.6:
            return chance.choice(leaves)
        return [value(depth - 1) for _ in range(chance.randrange(12))]

    packed: bytes = msgpack.packb([chance.randrange(128), *(value(3) for _ in range(8))])
    return packed[: chance.choice((len(packed), chance.randrange(1, len(packed) + 1)))][
        : limits.PAYLOAD_BYTES
    ]


class Sealer:
    """Seals as the processes of the public network do.

    Args:
        chance: makes boot ids.
        fresh: a new boot id for every datagram, as if each came from another process.
    """

    def __init__(self, chance: random.Random, *, fresh: bool = False) -> None:
        self._envelope = Envelope(PUBLIC_NETWORK, chance.randbytes)
        self._fresh = fresh

    def __call__(self, what: Message | bytes) -> bytes:
        """Return the datagram of a message or payload."""
        if self._fresh:
            self._envelope.renew()
        return self._envelope.seal(what if isinstance(what, bytes) else encode(what))
