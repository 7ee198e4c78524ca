"""Attackers who want honest nodes to send bytes to a victim, and what they have to pay for it.

Job: the attacks on promise 2 (``docs/protocol.md``) against production nodes of a ``Crowd``: forged
origins, forged UDP sources, relayed offers, and relays that work for the attacker. Every datagram
is charged to the attack that caused it; what hostile nodes send counts as the attacker's. Does NOT
judge: ``benchmarks/reflection.py`` and ``test_sim_attacks`` do.

Victims live at addresses of their own, one or two for each attack, where nobody answers.

Tests: ``test_sim_attacks``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import ID_BYTES, NodeID, Topic
from p2pdist.keys import PROOF_BYTES, PUBLIC_NETWORK
from p2pdist.overlay.envelope import Envelope, read_header
from p2pdist.overlay.messages import (
    NO_TOKEN,
    QID_BYTES,
    RID_BYTES,
    Accept,
    Announce,
    Challenge,
    Error,
    ErrorCode,
    Find,
    Flag,
    Forwarded,
    GetPeers,
    Join,
    Message,
    Offer,
    Ping,
    Reply,
    Request,
    Status,
    StatusUpdate,
    Verdict,
)
from p2pdist.overlay.network import Network
from p2pdist.overlay.wire import decode, encode
from p2pdist.simulation.crowd import HEADERS_BYTES, Crowd, Tally
from p2pdist.simulation.population import address_of
from p2pdist.simulation.timeline import KERNEL

TARGETS_MAX: Final = 8
"""Honest nodes that one attack writes to."""
FALSE_OFFERS_MAX: Final = 8
_NEVER: Final = Address("13.0.0.9", limits.DEFAULT_PORT)


@define(eq=False)
class Attack(Tally):
    """One attack.

    Attributes:
        kind: a key of :data:`KINDS`.
        victims: hosts whose bytes count.
        spent: bytes the attacker and its relays sent, headers included.
        received: bytes sent to the victims by anybody.
        units: offers that the attacker's queries paid for, as ``wire`` bounds them.
        offers: offers that honest nodes sent to the victims.
    """

    kind: str = ""
    victims: dict[str, None] = field(factory=dict)
    spent: int = 0
    received: int = 0
    units: int = 0
    offers: int = 0

    @property
    def ratio(self) -> float:
        """Return bytes to the victims per byte spent."""
        return self.received / self.spent if self.spent else 0.0

    @property
    def echo(self) -> float:
        """Return bytes that honest nodes sent, to anybody, per byte spent."""
        return (self.size - self.spent) / self.spent if self.spent else 0.0


@define(eq=False)
class Arena(Crowd):
    """A crowd with an attacker in it.

    Args:
        hostile: nodes that work for the attacker, at least one; it sends from their addresses.
        betrays: hostile relays do what they can for the attack; else they are only silent.
        duplicated: share of datagrams that arrive twice, the second up to 3 s later.
    """

    hostile: tuple[int, ...] = field(kw_only=True)
    betrays: bool = field(kw_only=True, default=True)
    duplicated: float = field(kw_only=True, default=0.0)
    honest: list[int] = field(init=False)
    topics: list[Topic] = field(init=False, factory=list)
    chance: random.Random = field(init=False)
    _envelope: Envelope = field(init=False)
    _hostile: dict[int, None] = field(init=False)
    _victims: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        Crowd.__attrs_post_init__(self)
        self.chance = random.Random(f"{self.seed}/attacker")  # noqa: S311 -- a simulation
        self._envelope = Envelope(PUBLIC_NETWORK, self.chance.randbytes)
        self._hostile = dict.fromkeys(self.hostile)
        self.honest = [n for n, role in enumerate(self.population.roles) if not role]
        self.honest = [n for n in self.honest if n not in self._hostile]

    # --- accounts ---

    def _transmit(self, source: int, datagram: bytes, address: Address) -> None:
        attack = self.tally
        if isinstance(attack, Attack):
            size = len(datagram) + HEADERS_BYTES
            if source in self._hostile:
                attack.spent += size
            if address.host in attack.victims:
                attack.received += size
                message = decode(self._envelope.open(datagram, read_header(datagram)))
                attack.offers += isinstance(message, Offer) and source not in self._hostile
        Crowd._transmit(self, source, datagram, address)  # noqa: SLF001 -- its subclass
        target = self.number(address)
        if target is not None and self.duplicated and self.chance.random() < self.duplicated:
            again = self.timeline.now + self.chance.uniform(0.0, limits.RTO_MAX_S)
            if not self._fate(source, target, self.timeline.now):
                args = (source, target, datagram, self.tally)
                self.timeline.at(again, KERNEL, self._deliver, *args)

    def _make(self, number: int) -> Network:
        network = Crowd._make(self, number)
        if number in self._hostile:
            network.methods[GetPeers] = Traitor(self, network).get_peers
        return network

    def renew_tokens(self) -> None:
        """See :class:`Crowd`; a victim whose token was stolen is a neighbour that lives nowhere."""
        now = self.timeline.now
        for number, network in self.made.items():
            for entry in network.neighbours:
                neighbour = self.number(entry.address)
                if neighbour is not None:
                    token = self._mint(neighbour).token(address_of(number), now)
                    network.rpc.paths[entry.address].grant(token, now)

    # --- the attacker's hands ---

    def victim(self, attack: Attack) -> Address:
        """Return an address nobody wrote to before; what goes there counts from now on."""
        self._victims += 1
        number = self._victims
        host = f"12.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        attack.victims[host] = None
        return Address(host, limits.DEFAULT_PORT)

    def own_address(self) -> Address:
        """Return one of the attacker's addresses."""
        return address_of(self.chance.choice(self.hostile))

    def token(self, target: int, address: Address) -> bytes:
        """Return the true token of ``address`` at a node."""
        return self.node(target).guard.mint.token(address, self.timeline.now)

    def send(
        self, attack: Attack, target: int, source: Address, message: Message, after_s: float = 0.0
    ) -> None:
        """Send a datagram from any address; it is never lost on its way."""
        datagram = self._envelope.seal(encode(message))
        attack.spent += len(datagram) + HEADERS_BYTES
        attack.size += len(datagram) + HEADERS_BYTES
        attack.packets += 1
        if isinstance(message, GetPeers) and message.units * limits.OFFER_BYTES <= len(datagram):
            attack.units += message.units
        self.timeline.at(
            self.timeline.now + after_s, KERNEL, self._arrives, attack, target, source, datagram
        )

    def _arrives(self, attack: Attack, target: int, source: Address, datagram: bytes) -> None:
        node = self.node(target)
        self.run_for(attack, node.datagram_received, datagram, read_header(datagram), source)

    def start(self, kind: str) -> Attack:
        """Begin an attack now."""
        attack = Attack(kind=kind)
        KINDS[kind](self, attack)
        return attack

    # --- the world ---

    def store(self, topic: Topic, members: Sequence[int], storers: Sequence[int]) -> None:
        """Let honest nodes be members of a topic, and storers know so many that offers are full."""
        now = self.timeline.now
        known = [(self.population.node_id(n), address_of(n)) for n in members]
        for number in range(limits.OFFER_PEERS_V4 - len(known)):
            peer = Address(f"14.0.{number}.1", limits.DEFAULT_PORT)
            known.append((NodeID(self.chance.randbytes(ID_BYTES)), peer))
        for storer in storers:
            for node_id, address in known:
                if address != address_of(storer):
                    self.node(storer).peers.put(topic, node_id, address, Status.SEED, 1, now)
        for member in members:
            self.node(member).join_servers[topic] = _refuse
        if topic not in self.topics:
            self.topics.append(topic)


def _refuse(source: Address, request: Join) -> Reply:
    del source
    return Error(rid=request.rid, attempt=request.attempt, error=ErrorCode.NOT_A_PEER)


# --- relays that work for the attacker ---


@define(eq=False)
class Traitor:
    """A relay that lies.

    Each query once, then it is silent: hostile relays would feed on each other for ever, at the
    attacker's expense.
    """

    arena: Arena
    network: Network
    _seen: dict[bytes, None] = field(init=False, factory=dict)

    def get_peers(self, source: Address, request: Request, now: float) -> Reply | None:
        """Do one of the things that might pay."""
        assert isinstance(request, GetPeers)
        if not self.arena.betrays or request.qid in self._seen:
            return None
        self._seen[request.qid] = None
        chance, send = self.arena.chance, self.network.send
        token = self.network.guard.mint.token(source, now)
        said = Forwarded(
            rid=request.rid,
            attempt=request.attempt,
            verdict=chance.choice((Verdict.NO_ROUTE, Verdict.BUSY)),
            units=limits.GET_PEERS_WIDE_UNITS,
            token=token,
        )
        if chance.random() < 0.5:
            self._forward(request)
        answer = chance.randrange(6)
        if answer == 0:
            return None
        if answer == 1:
            return Challenge(rid=request.rid, attempt=request.attempt, token=token)
        if answer == 2:
            return said
        for _ in range(2):  # taken, and handed back all the same, twice
            self.network.clock.callLater(chance.uniform(0.0, 3.0), send, source, said)
        return attrs.evolve(said, verdict=Verdict.TAKEN)

    def _forward(self, request: GetPeers) -> None:
        """Pass it to several neighbours with all units its size allows; the attacker pays."""
        chance, network = self.arena.chance, self.network
        neighbours = [c.address for c in network.walk_candidates()]
        for address in chance.sample(neighbours, min(len(neighbours), chance.randint(1, 4))):
            path = network.rpc.paths.peek(address)
            top = limits.GET_PEERS_WIDE_UNITS if request.wide else limits.GET_PEERS_UNITS
            copy = attrs.evolve(
                request,
                node_id=network.node_id,
                rid=chance.randbytes(RID_BYTES),
                attempt=0,
                token=path.token if path is not None else NO_TOKEN,
                hops=chance.randint(1, limits.HOPS),
                units=top,
                flags=request.flags & ~int(Flag.LAST),
            )
            attack = self.arena.tally
            if isinstance(attack, Attack):
                attack.units += top
            network.send(address, copy)


# --- the attacks ---


def _head(arena: Arena, token: bytes) -> dict[str, Any]:
    chance = arena.chance
    return {
        "node_id": NodeID(chance.randbytes(ID_BYTES)),
        "rid": chance.randbytes(RID_BYTES),
        "attempt": chance.choice((0, 0, 127)),
        "token": token,
    }


def _request(arena: Arena, token: bytes) -> Request:
    """Return any request."""
    chance = arena.chance
    head = _head(arena, token)
    topic = chance.choice(arena.topics)
    statement: dict[str, Any] = {"topic": topic, "status": Status.SEED, "sequence": 1}
    kinds: tuple[Callable[[], Request], ...] = (
        lambda: Ping(**head),
        lambda: Find(**head, target=topic),
        lambda: Accept(
            **head,
            **statement,
            qid=chance.randbytes(QID_BYTES),
            cookie=chance.randbytes(chance.choice((0, limits.COOKIE_BYTES))),
        ),
        lambda: Announce(**head, **statement),
        lambda: Join(**head, topic=topic, proof=chance.randbytes(PROOF_BYTES)),
        lambda: StatusUpdate(**head, **statement),
        lambda: _query(arena, token, hops=chance.choice((0, 1, limits.HOPS))),
    )
    return chance.choice(kinds)()


def _query(arena: Arena, token: bytes, **fields: Any) -> GetPeers:
    chance = arena.chance
    wide = chance.random() < 0.25  # the short ones bring more for a byte
    units = limits.GET_PEERS_WIDE_UNITS if wide else limits.GET_PEERS_UNITS
    if chance.random() < 0.3:
        units = chance.randint(0, limits.GET_PEERS_WIDE_UNITS)  # more than the size allows, too
    made: dict[str, Any] = {
        "qid": chance.randbytes(QID_BYTES),
        "topic": chance.choice(arena.topics),
        "units": units,
        "wide": wide,
    }
    return GetPeers(**_head(arena, token), **{**made, **fields})


def unproved(arena: Arena, attack: Attack) -> None:
    """The victim's address as UDP source, tokens guessed."""
    victim = arena.victim(attack)
    for target in _some(arena):
        token = arena.chance.choice((NO_TOKEN, arena.chance.randbytes(limits.TOKEN_BYTES)))
        arena.send(attack, target, victim, _request(arena, token))


def origin(arena: Arena, attack: Attack) -> None:
    """A verified neighbour names the victim as the origin of queries it passes on."""
    chance, victim = arena.chance, arena.victim(attack)
    via = chance.choice((None, victim, arena.victim(attack)))
    flags = 0
    for flag, share in ((Flag.VIA, 0.4), (Flag.LAST, 0.15), (Flag.NAT, 0.3), (Flag.PAIR, 0.6)):
        flags |= flag if chance.random() < share else 0
    qids = [chance.randbytes(QID_BYTES) for _ in range(chance.choice((1, 1, 2, 3)))]
    topic, hops = chance.choice(arena.topics), chance.randint(1, limits.HOPS)
    for target in _some(arena):
        for qid in qids:
            source = arena.own_address()
            token = arena.token(target, source)
            fields: dict[str, Any] = {"qid": qid, "topic": topic, "hops": hops, "flags": flags}
            query = _query(arena, token, src=victim, via=via, **fields)
            arena.send(attack, target, source, query)
            if chance.random() < 0.2:  # and once more, later than anybody remembers
                wait = chance.choice((0.0, 0.3, limits.QUERY_CACHE_S + 1))
                arena.send(attack, target, source, query, after_s=wait)


def relay(arena: Arena, attack: Attack) -> None:
    """Offers that name the victim, to nodes that know the query (as first hops) and that do not."""
    chance, victim = arena.chance, arena.victim(attack)
    for target in _some(arena):
        source = arena.own_address()
        flags = chance.choice((0, Flag.NAT, Flag.LAST, Flag.PAIR, Flag.PAIR | Flag.NAT))
        query = _query(arena, arena.token(target, source), src=victim, via=victim, flags=flags)
        arena.send(attack, target, source, query)
        for _ in range(chance.randint(1, FALSE_OFFERS_MAX)):
            qid = chance.choice((query.qid, chance.randbytes(QID_BYTES)))
            offer = _false_offer(arena, qid, victim)
            sender = chance.choice((arena.own_address(), victim))
            arena.send(attack, target, sender, offer, after_s=chance.uniform(0.1, 1.0))


def stolen(arena: Arena, attack: Attack) -> None:
    """As if sent by the victim, with its true token: the attacker reads what the victim gets."""
    chance, victim = arena.chance, arena.victim(attack)
    for target in _some(arena):
        flags = chance.choice((0, Flag.NAT, Flag.LAST, Flag.PAIR, Flag.PAIR | Flag.NAT))
        query = _query(arena, arena.token(target, victim), flags=flags)
        arena.send(attack, target, victim, query)


def stolen_relay(arena: Arena, attack: Attack) -> None:
    """The same, and the attacker has the first hop relay offers to the victim."""
    victim = arena.victim(attack)
    target = arena.chance.choice(arena.honest)
    query = _query(arena, arena.token(target, victim), flags=Flag.NAT)
    arena.send(attack, target, victim, query)
    for number in range(FALSE_OFFERS_MAX):
        bare = Offer(
            qid=query.qid, node_id=NodeID(bytes(ID_BYTES)), cookie=b"", swarm=0, flags=Flag.MEMBER
        )
        arena.send(attack, target, arena.own_address(), bare, after_s=0.1 + number / 10)


def stolen_requests(arena: Arena, attack: Attack) -> None:
    """Any request as if sent by the victim, with its true token."""
    victim = arena.victim(attack)
    for target in _some(arena):
        arena.send(attack, target, victim, _request(arena, arena.token(target, victim)))


def _some(arena: Arena) -> list[int]:
    count = min(arena.chance.choice((1, 1, 1, 2, 4, TARGETS_MAX)), len(arena.honest))
    return arena.chance.sample(arena.honest, count)


def _false_offer(arena: Arena, qid: bytes, victim: Address) -> Offer:
    chance = arena.chance
    return Offer(
        qid=qid,
        node_id=NodeID(chance.randbytes(ID_BYTES)),
        cookie=chance.choice((b"", bytes(limits.COOKIE_BYTES))),
        swarm=2**16 - 1,
        flags=chance.choice((0, Flag.MEMBER)),
        finder=chance.choice((None, victim)),
        peers4=chance.choice(((), (victim,), (victim, _NEVER))),
    )


KINDS: Final[dict[str, Callable[[Arena, Attack], None]]] = {
    "unproved source": unproved,
    "forged origin": origin,
    "relayed offers": relay,
    "stolen token, queries": stolen,
    "stolen token, relayed offers": stolen_relay,
    "stolen token, any request": stolen_requests,
}
PROMISED: Final = ("unproved source", "forged origin", "relayed offers")
"""Those that may never bring the victim more bytes than they cost. Who steals a token sits on the
way to the victim, whose address then counts as proved."""
