"""Spoofing attacks on the overlay: bytes that reach a victim for each byte the attacker spends.

Production nodes in simulated networks of 30 to 1000 (`p2pdist.simulation.attacks`), with loss, dead
table entries and relays that work for the attacker: 30,000 attacks of the kinds the promise covers,
as many as fit 20 seconds with `--quick`. Whatever hostile relays send counts as the attacker's; 28
bytes of headers count with every datagram. What the promise does not cover is measured beside it:
an attacker on the victim's path who has stolen its token, and addresses named to a node that is
looking for peers.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterable, Sequence

import attrs
from attrs import frozen
from common import Report, options

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import ID_BYTES, NodeID, Topic
from p2pdist.keys import PUBLIC_NETWORK
from p2pdist.overlay.envelope import HEADER_BYTES, Envelope, notice, read_header
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.messages import (
    Find,
    Flag,
    Forwarded,
    Found,
    GetPeers,
    Offer,
    Reply,
    Request,
    Status,
    Verdict,
)
from p2pdist.overlay.network import Network
from p2pdist.overlay.search import Search
from p2pdist.simulation.attacks import KINDS, PROMISED, Arena, Attack
from p2pdist.simulation.crowd import HEADERS_BYTES
from p2pdist.simulation.population import Mix, Population, Role
from p2pdist.simulation.study import quantile
from p2pdist.simulation.terrain import Terrain

ATTACKS = 30_000
QUICK_S = 20.0
PACE_S = 0.4
"""Between attacks, so that the nodes' limits do not do the work of the units."""
ROUND = 50
RENEW_S = 200.0
STORE_S = 1200.0
TOPICS, TOPICS_QUICK = 30, 4
DRAIN_S = 90.0
BESIDE = tuple(kind for kind in KINDS if kind not in PROMISED)
BESIDE_SHARE = 0.05
"""So many more attacks are of those kinds, in worlds of their own: a victim whose token was stolen
gets into routing tables."""
SMALL = 100
"""With `--quick` those kinds are tried in networks of so many nodes only."""
LOOKUPS, LOOKUPS_QUICK = 400, 20


@frozen
class Place:
    """A world.

    Attributes:
        name: in the report.
        nodes: living, hostile ones included.
        loss, dead, hostile: shares.
        members: share of the nodes that have each content; else 3 nodes have it.
        bucket_sizes: of the tables.
    """

    name: str
    nodes: int
    loss: float
    dead: float
    hostile: float
    members: float = 0.0
    bucket_sizes: Sequence[int] = limits.BUCKET_SIZES

    def build(self, seed: int) -> Arena:
        """Make it; one node at least is the attacker's, silent where relays are not hostile."""
        chance = random.Random(seed)
        mix = Mix(nodes=self.nodes, dead=self.dead)
        population = Population(mix, seed, bucket_sizes=self.bucket_sizes)
        living = population.living(Role.OPEN)
        hostile = chance.sample(living, max(1, round(self.hostile * self.nodes)))
        terrain = Terrain(seed, loss=self.loss)
        return Arena(population, terrain, seed, hostile=tuple(hostile), betrays=self.hostile > 0)

    def fill(self, arena: Arena, topics: Iterable[Topic]) -> None:
        """Let members announce the topics."""
        count = max(3, round(self.members * self.nodes))
        for topic in topics:
            chance = random.Random(topic)
            honest = dict.fromkeys(arena.honest)
            members = chance.sample(arena.honest, min(count, len(honest)))
            key = int.from_bytes(topic, "big")
            near = arena.population.closest(key, limits.STORERS)
            arena.store(topic, members, [node for node in near if node in honest])


PLACES = (
    Place("30 nodes", 30, 0.0, 0.0, 0.0),
    Place("30 nodes, 5 % loss, 10 % dead, 10 % hostile", 30, 0.05, 0.1, 0.1),
    Place("100 nodes, 20 % loss, 30 % dead, 30 % hostile", 100, 0.2, 0.3, 0.3),
    Place("100 nodes, half of them members, 10 % hostile", 100, 0.0, 0.0, 0.1, 0.5),
    Place("1000 nodes, 5 % loss, 10 % dead, 10 % hostile", 1000, 0.05, 0.1, 0.1),
    Place("1000 nodes, 20 % loss, 30 % dead, 30 % hostile", 1000, 0.2, 0.3, 0.3),
    Place("1000 nodes, small tables, 30 % hostile", 1000, 0.05, 0.1, 0.3, bucket_sizes=(6,)),
)


def fight(
    place: Place, seed: int, kinds: Sequence[str], count: int, budget_s: float
) -> list[Attack]:
    """Return ``count`` attacks in a world; fewer if ``budget_s`` seconds are over before."""
    began = time.perf_counter()
    arena = place.build(seed)
    known = TOPICS if budget_s == math.inf else TOPICS_QUICK
    topics = [Topic(arena.chance.randbytes(ID_BYTES)) for _ in range(known)]
    attacks: list[Attack] = []
    renew = store = 0.0
    while len(attacks) < count:
        now = arena.timeline.now
        if now >= store:
            place.fill(arena, topics)
            store = now + STORE_S
        if now >= renew:
            arena.renew_tokens()
            renew = now + RENEW_S
        for _ in range(ROUND):
            attacks.append(arena.start(arena.chance.choice(kinds)))
            arena.timeline.run(PACE_S)
        if time.perf_counter() - began > budget_s:
            break
    arena.timeline.run(DRAIN_S)
    return attacks


def add(report: Report, label: str, attacks: Sequence[Attack], at_most: float | None) -> None:
    """Add the ratios of some attacks."""
    ratios = [attack.ratio for attack in attacks]
    spent = sum(attack.spent for attack in attacks)
    report.add(f"{label}: attacks", len(attacks), "")
    report.add(f"{label}: bytes per byte, max", max(ratios), "", at_most=at_most)
    report.add(f"{label}: bytes per byte, p99", quantile(ratios, 0.99), "")
    report.add(
        f"{label}: bytes per byte, mean", sum(attack.received for attack in attacks) / spent, ""
    )


def attacks(report: Report, quick: bool) -> None:
    """Add what attacks bring, per world, per kind and in all."""
    every: list[Attack] = []
    each = -(-ATTACKS // len(PLACES))
    budget_s = QUICK_S / len(PLACES) if quick else math.inf
    for number, place in enumerate(PLACES):
        seed = report.seed + 2 * number
        promised = fight(place, seed, PROMISED, each, budget_s)
        few = round(each * BESIDE_SHARE)
        every += promised
        if not quick or place.nodes <= SMALL:
            every += fight(place, seed + 1, BESIDE, few, budget_s * BESIDE_SHARE)
        add(report, place.name, promised, 1.0)
        spent = sum(attack.spent for attack in promised)
        total = sum(attack.size - attack.spent for attack in promised)
        report.add(f"{place.name}: all honest bytes per byte, mean", total / spent, "")
    for kind in KINDS:
        at_most = 1.0 if kind in PROMISED else None
        add(report, kind, [attack for attack in every if attack.kind == kind], at_most)
    promised = [attack for attack in every if attack.kind in PROMISED]
    add(report, "all worlds", promised, 1.0)
    excess = max(attack.offers - attack.units for attack in promised)
    report.add("all worlds: offers beyond the units paid for, max", excess, "", at_most=0)
    proved = [attack.echo for attack in promised]
    report.add("all worlds: all honest bytes per byte, max", max(proved), "")


def notices(report: Report) -> None:
    """Add what a datagram of an unknown network brings its forged source."""
    envelope = Envelope(PUBLIC_NETWORK, random.Random(report.seed).randbytes)
    shortest = envelope.seal(b"\0")
    brought = len(notice(read_header(shortest)))
    assert brought == HEADER_BYTES
    ratio = (brought + HEADERS_BYTES) / (len(shortest) + HEADERS_BYTES)
    report.add("unknown network: bytes per byte, max", ratio, "", at_most=1.0)


# --- decision 9: what liars can make a node send that looks for peers ---


class Liar:
    """Names the victim in every answer, on another port each time."""

    def __init__(self, network: Network, host: str) -> None:
        self.network = network
        self._host = host

    def _victim(self) -> Address:
        return Address(self._host, self.network.rng.randrange(1024, 65536))

    def get_peers(self, source: Address, request: Request, now: float) -> Reply | None:
        """Offer the victim as a peer, and as the finder of more."""
        assert isinstance(request, GetPeers)
        if request.hops == 0:
            for finder in (None, self._victim()):
                offer = Offer(
                    qid=request.qid,
                    node_id=NodeID(self.network.rng.randbytes(ID_BYTES)),
                    cookie=b"",
                    swarm=2**16 - 1,
                    flags=Flag.MEMBER,
                    finder=finder,
                    peers4=(self._victim(),),
                )
                self.network.send(source, offer)
        token = self.network.guard.mint.token(source, now)
        taken = Forwarded(rid=request.rid, attempt=0, verdict=Verdict.TAKEN, units=0, token=token)
        return attrs.evolve(taken, attempt=request.attempt)

    def find(self, _source: Address, request: Request, _now: float) -> Reply:
        """Say that the victim is where the search goes."""
        assert isinstance(request, Find)
        near = request.target[:12] + self.network.rng.randbytes(ID_BYTES - 12)
        nodes = (NodeEntry(NodeID(near), self._victim()),)
        return Found(rid=request.rid, attempt=request.attempt, nodes4=nodes)


def lookups(report: Report, place: Place, count: int) -> None:
    """Add what lookups send to one host while hostile nodes name it wherever they can."""
    arena = place.build(report.seed + 100)
    asked: list[Attack] = []
    for _ in range(count):
        attack = Attack(kind="lookup")
        victim = arena.victim(attack)
        for number in arena.hostile:
            network = arena.node(number)
            liar = Liar(network, victim.host)
            network.methods.update({GetPeers: liar.get_peers, Find: liar.find})
        _look(arena, attack)
        asked.append(attack)
    sizes = [attack.received for attack in asked]
    label = f"lookups, {place.name}"
    report.add(f"{label}: lookups", count, "")
    report.add(f"{label}: bytes to one host, max", max(sizes), "B")
    report.add(f"{label}: bytes to one host, mean", sum(sizes) / count, "B")
    report.add(f"{label}: bytes per liars' byte, max", max(a.ratio for a in asked), "")


def _look(arena: Arena, attack: Attack) -> None:
    network = arena.node(arena.chance.choice(arena.honest))
    arena.renew_tokens()

    def candidate(address: Address) -> None:
        if network.approachable(address):
            network.contact(address).addErrback(lambda _failure: None)

    with arena.on_account(attack):
        search = Search(
            network,
            Topic(arena.chance.randbytes(ID_BYTES)),
            me=lambda: (Status.LEECH, 1),
            candidate=candidate,
            ended=network.agenda.ended,
        )
        network.agenda.begin(search)
    arena.timeline.run(limits.LOOKUP_S + 15)
    network.agenda.forget(search)


def measure(report: Report, quick: bool) -> None:
    """Add all figures to ``report``; ``quick``: within half a minute."""
    attacks(report, quick)
    notices(report)
    for place in (
        Place("one liar among 30 nodes", 30, 0.05, 0.1, 0.0),
        Place("90 liars among 300 nodes", 300, 0.05, 0.1, 0.3),
    ):
        lookups(report, place, LOOKUPS_QUICK if quick else LOOKUPS)


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report(seed=1)
    measure(report, chosen.quick)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
