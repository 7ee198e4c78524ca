"""A million forged replies and a million guessed tokens: how many does a node believe?

The datagrams are sealed with the public network's key and have the right shape; they go straight
into `Network.datagram_received`. What counts is what can be seen from outside: a call that ends, a
peer or neighbour that is stored, an answer other than a challenge. Each part ends with the real
thing, which must be believed, or the count would prove nothing. With `--quick` a tenth.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable

import hostile
from common import Report, options
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID, Topic
from p2pdist.keys import PROOF_BYTES, PUBLIC_NETWORK, NodeKey
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
    Join,
    Message,
    Pong,
    Reply,
    Request,
    Status,
)
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node
from p2pdist.overlay.wire import decode

FULL, QUICK = 1_000_000, 100_000
OPEN_CALLS = 64
BATCH = 1000
GUESSES_PER_S = 10_000
"""Simulated seconds pass between them, so that challenges are not all rationed away."""
MEMBER = Topic(b"a topic of our own.."[:20])


class Target:
    """A node without sockets, and what is seen of it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.answers: Counter[type[Message]] = Counter()
        self.joins = 0
        self.seal = hostile.Sealer(self.chance)
        key = NodeKey.from_seed(self.chance.randbytes(32))
        node = Node(key, self.clock, self.chance, self.chance.randbytes, self.clock.seconds)
        self.network: Network = node.add_network(PUBLIC_NETWORK)
        self.network.transmit = self._sent
        self.network.join_servers[MEMBER] = self._join
        self.network.peers.own(MEMBER)
        self._reader = Envelope(PUBLIC_NETWORK, self.chance.randbytes)

    def _sent(self, datagram: bytes, _to: Address) -> None:
        header = read_header(datagram)
        self.answers[type(decode(self._reader.open(datagram, header)))] += 1

    def _join(self, _source: Address, request: Join) -> Reply:
        self.joins += 1
        return Error(rid=request.rid, attempt=request.attempt, error=ErrorCode.BAD_PROOF)

    def receive(self, source: Address, message: Message) -> None:
        """Let a message arrive."""
        datagram = self.seal(message)
        self.network.datagram_received(datagram, read_header(datagram), source)

    def believed(self) -> int:
        """Return how many effects there were that only a proved request has."""
        others = sum(n for kind, n in self.answers.items() if kind not in {Challenge, Pong})
        stored: int = self.network.peers.total + len(self.network.neighbours)
        return others + stored + self.joins


# --- replies ---


def forged_replies(report: Report, count: int) -> None:
    """Add how many of the open calls random correlation ids ended."""
    target = Target(1)
    chance, network = target.chance, target.network
    ended: list[object] = []
    called = [hostile.global_address(chance) for _ in range(OPEN_CALLS)]
    requests = (hostile.find, hostile.announce, hostile.join, hostile.accept)
    for number, address in enumerate(called):
        path = network.rpc.paths[address]
        path.sample(0.05, 0.0)
        path.grant(chance.randbytes(limits.TOKEN_BYTES), 0.0)
        request = requests[number % len(requests)](chance, NO_TOKEN)
        assert isinstance(request, Request)
        network.rpc.call(address, request).addBoth(ended.append)
    assert network.rpc.outstanding == OPEN_CALLS
    asked = target.answers.copy()
    before = {address: network.rpc.paths[address].token for address in called}
    began = time.perf_counter()
    for turn in range(count):
        source = called[turn % OPEN_CALLS] if turn % 2 else hostile.global_address(chance)
        target.receive(source, hostile.reply(chance, chance.randbytes(RID_BYTES)))
    took = time.perf_counter() - began
    believed = len(ended) + (target.answers != asked)
    believed += sum(network.rpc.paths[address].token != before[address] for address in called)
    report.add(f"forged replies at {OPEN_CALLS} open calls", count, "")
    report.add("forged replies believed", believed, "", at_most=0)
    report.add("forged reply made and refused", 1e6 * took / count, "us")
    known = hostile.find(chance, NO_TOKEN)
    network.rpc.call(called[0], known).addBoth(ended.append)
    rid = next(reversed(network.rpc._calls))  # noqa: SLF001 -- what no attacker sees
    target.receive(called[0], Error(rid=rid, attempt=0, error=ErrorCode.FULL))
    report.add("forged replies with the true id believed", len(ended), "", at_least=1)
    for gone in list(network.rpc._calls.values()):  # noqa: SLF001
        gone.done.addErrback(lambda _failure: None)
    network.stop()


# --- tokens ---


def request_with(chance: random.Random, token: bytes) -> Request:
    """Return a request of a random kind with this token."""
    if chance.random() < 0.5:
        request = chance.choice((hostile.ping, *hostile.REQUESTS))(chance, token)
        assert isinstance(request, Request)
        return request
    if chance.random() < 0.5:
        proof = chance.randbytes(PROOF_BYTES)
        return Join(**hostile.head(chance, token), topic=MEMBER, proof=proof)
    return Announce(**hostile.head(chance, token), topic=MEMBER, status=Status.SEED, sequence=1)


def accept_with(chance: random.Random, qid: bytes, cookie: bytes) -> Accept:
    """Return an accept that has a cookie instead of a token."""
    return Accept(
        node_id=hostile.node_id(chance),
        rid=chance.randbytes(RID_BYTES),
        qid=qid,
        cookie=cookie,
        topic=MEMBER,
        status=Status.SEED,
        sequence=1,
    )


Guess = Callable[[Target, Address, Address], Message]
"""Makes one guess of an attacker, at an address he sends from; the other is somebody else's."""


def random_token(target: Target, _own: Address, _other: Address) -> Message:
    """Eight random bytes."""
    return request_with(target.chance, target.chance.randbytes(limits.TOKEN_BYTES))


def borrowed_token(target: Target, _own: Address, other: Address) -> Message:
    """The true token of another address, of the present epoch."""
    mint = target.network.guard.mint
    return request_with(target.chance, mint.token(other, target.clock.seconds()))


def random_cookie(target: Target, _own: Address, _other: Address) -> Message:
    """Twelve random bytes."""
    chance = target.chance
    qid, cookie = chance.randbytes(QID_BYTES), chance.randbytes(limits.COOKIE_BYTES)
    return accept_with(chance, qid, cookie)


def borrowed_cookie(target: Target, own: Address, other: Address) -> Message:
    """A true cookie of another address, or of another query."""
    chance, mint, now = target.chance, target.network.guard.mint, target.clock.seconds()
    qid = chance.randbytes(QID_BYTES)
    if chance.random() < 0.5:
        return accept_with(chance, qid, mint.cookie(other, qid, now))
    return accept_with(chance, qid, mint.cookie(own, chance.randbytes(QID_BYTES), now))


def cut_cookie(target: Target, own: Address, _other: Address) -> Message:
    """The beginning of a true cookie as a token, or a true token as the beginning of a cookie."""
    chance, mint, now = target.chance, target.network.guard.mint, target.clock.seconds()
    qid = chance.randbytes(QID_BYTES)
    if chance.random() < 0.5:
        return request_with(chance, mint.cookie(own, qid, now)[: limits.TOKEN_BYTES])
    return accept_with(chance, qid, mint.token(own, now) + bytes(4))


GUESSES: dict[str, tuple[Guess, bool]] = {
    "random tokens from one address": (random_token, True),
    "random tokens from many addresses": (random_token, False),
    "tokens of other addresses": (borrowed_token, False),
    "random cookies": (random_cookie, False),
    "cookies of other addresses and queries": (borrowed_cookie, False),
    "cookies as tokens and tokens as cookies": (cut_cookie, False),
}


def guessed_tokens(report: Report, count: int) -> None:
    """Add how many guesses were believed, by kind, as many of each kind."""
    target = Target(2)
    each = -(-count // (len(GUESSES) + 1))
    for label, (guess, one) in GUESSES.items():
        add(report, label, target, each, guess, one=one)
    old = old_proofs(target, min(each, 20_000))

    def late(target: Target, own: Address, _other: Address) -> Message:
        token, qid, cookie = old[own]
        if target.chance.random() < 0.5:
            return request_with(target.chance, token)
        return accept_with(target.chance, qid, cookie)

    add(report, "own tokens and cookies, two epochs old", target, each, late, own=list(old))
    report.add("guesses answered by a challenge", target.answers[Challenge], "", at_least=1)
    here = hostile.global_address(target.chance)
    token = target.network.guard.mint.token(here, target.clock.seconds())
    target.receive(here, Find(node_id=NodeID(bytes(20)), token=token, target=bytes(20)))
    report.add("effects of one true token", target.believed(), "", at_least=1)
    target.network.stop()


def old_proofs(target: Target, count: int) -> dict[Address, tuple[bytes, bytes, bytes]]:
    """Return tokens and cookies that many addresses were given, once they are out of date."""
    chance, mint, clock = target.chance, target.network.guard.mint, target.clock
    proofs = {}
    for _ in range(count):
        address, qid = hostile.global_address(chance), chance.randbytes(QID_BYTES)
        now = clock.seconds()
        proofs[address] = mint.token(address, now), qid, mint.cookie(address, qid, now)
    for _ in range(2):
        clock.advance(limits.TOKEN_EPOCH_S)
        mint.token(next(iter(proofs)), clock.seconds())
    return proofs


def add(
    report: Report,
    label: str,
    target: Target,
    count: int,
    guess: Guess,
    *,
    one: bool = False,
    own: list[Address] | None = None,
) -> None:
    """Let guesses of one kind arrive, and add what became of them."""
    chance = target.chance
    home = hostile.global_address(chance)
    before = target.believed()
    began = time.perf_counter()
    for turn in range(count):
        source = home if one else hostile.global_address(chance)
        if own is not None:
            source = own[turn % len(own)]
        target.receive(source, guess(target, source, hostile.global_address(chance)))
        if turn % BATCH == 0:
            target.clock.advance(BATCH / GUESSES_PER_S)
    took = time.perf_counter() - began
    report.add(f"{label}: guesses", count, "")
    report.add(f"{label}: believed", target.believed() - before, "", at_most=0)
    report.add(f"{label}: made and refused", 1e6 * took / count, "us")


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    count = QUICK if chosen.quick else FULL
    report = Report(seed=1)
    forged_replies(report, count)
    guessed_tokens(report, count)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
