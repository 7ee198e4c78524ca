"""What a node costs whose every overlay table is full: RSS of a fresh process, before and after.

The tables are filled with what strangers can put there at most, through the methods that fill them
in a running node, every address new to every table: routing tables of both families with their
replacements, the PeerTable, queries passed on, senders (of a private network, whose replay windows
are the fatter kind) and their ciphers, paths, replies, rate limiters, silent and recent addresses,
and the caches of parsed addresses. A second process counts the same with `tracemalloc`, which sees
each Python object but neither OpenSSL's memory nor what the allocator keeps.
"""

# ruff: noqa: SLF001 -- the tables are filled and counted from outside

from __future__ import annotations

import gc
import itertools
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from common import Report, options
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID, Topic
from p2pdist.keys import NetworkKeys, NodeKey
from p2pdist.overlay.envelope import Envelope, read_header
from p2pdist.overlay.lookup import Candidate
from p2pdist.overlay.messages import Accepted, GetPeers, Status
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node
from p2pdist.overlay.relay import Relay
from p2pdist.overlay.rpc import ReplyCache
from p2pdist.overlay.wire import decode, encode

MIB = 2**20
ALLOWED_MIB = 16
KEYS = NetworkKeys.from_secret(b"a private network")
chance = random.Random(1)


def fresh(*, ipv6: bool | None = None) -> Iterator[Address]:
    """Yield random global addresses, hardly one twice, by turns of both families or of one."""
    for turn in itertools.count():
        number = chance.getrandbits(22)
        port = chance.randrange(1024, 65536)
        if turn % 2 if ipv6 is None else ipv6:
            yield Address(
                f"2600:{number >> 16:x}:{number & 65535:x}:1234:5678:9abc:def0:1234", port
            )
        else:
            yield Address(f"{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.77", port)


def take(count: int) -> Iterator[Address]:
    """Yield so many."""
    return itertools.islice(fresh(), count)


def ids() -> Iterator[NodeID]:
    """Yield random node ids."""
    while True:
        yield NodeID(chance.randbytes(20))


def fill_routing(network: Network) -> None:
    """Neighbours of both families up to the cap, and every replacement."""
    own = int.from_bytes(network.node_id, "big")
    for ipv6 in (False, True):
        addresses = fresh(ipv6=ipv6)
        for depth in range(30):
            for _ in range(120):
                low = 160 - depth - 1
                number = (own >> low ^ 1) << low | chance.getrandbits(low)
                node_id = NodeID(number.to_bytes(20, "big"))
                network.neighbours.verified(node_id, next(addresses), 0.0)
    assert len(network.neighbours) == 2 * limits.NEIGHBOURS, len(network.neighbours)


def fill_peers(network: Network) -> None:
    """As many topics as go, and peers up to the total."""
    node_ids, addresses = ids(), fresh()
    topics = [Topic(chance.randbytes(20)) for _ in range(limits.TOPICS)]
    while network.peers.total < limits.PEERS_TOTAL:
        for topic in topics:
            sequence = chance.getrandbits(32)
            network.peers.put(topic, next(node_ids), next(addresses), Status.SEED, sequence, 0.5)


def fill_queries(network: Network) -> None:
    """Queries, each passed on to one neighbour."""
    relay: Relay = network._carrier._relay
    sources, vias, node_ids = fresh(), fresh(), ids()
    candidates = [Candidate(NodeID(bytes(20)), address, 0.05, 0) for address in take(8)]
    for _ in range(limits.QUERY_CACHE):
        message = GetPeers(
            node_id=next(node_ids), rid=chance.randbytes(8), token=chance.randbytes(8),
            qid=chance.randbytes(12), topic=Topic(chance.randbytes(20)),
            src=next(sources), via=next(vias), hops=3,
        )  # fmt: skip
        received = decode(encode(message))
        assert isinstance(received, GetPeers)
        query = relay.take(received, next(sources), 0.0)
        relay.next_hop(query, candidates, 150.0, 8)
    assert len(relay) == limits.QUERY_CACHE


def fill_senders(network: Network) -> None:
    """Processes that sent us something, together as many datagrams as are remembered."""
    for _ in range(limits.ENVELOPE_SENDERS):
        sender = Envelope(network.keys, chance.randbytes)
        for _ in range(limits.ENVELOPE_TAKEN // limits.ENVELOPE_SENDERS):
            datagram = sender.seal(b"payload")
            network.envelope.open(datagram, read_header(datagram))
    assert network.envelope.senders == limits.ENVELOPE_SENDERS
    assert network.envelope.remembered == limits.ENVELOPE_TAKEN


def fill_paths(network: Network) -> None:
    """Addresses we exchanged calls with."""
    for address in take(limits.RTT_ENTRIES):
        path = network.rpc.paths[address]
        path.sample(chance.random(), chance.random())
        path.grant(chance.randbytes(8), chance.random())
    assert len(network.rpc.paths) == limits.RTT_ENTRIES


def fill_replies(network: Network) -> None:
    """The largest replies: full lists of peers, which the PeerTable holds too."""
    replies: ReplyCache = network._replies
    topics = list(network.peers._topics)
    for source in take(limits.REPLY_CACHE):
        peers = [entry.address for topic in topics[:20] for entry in network.peers.entries(topic)]
        reply = Accepted(
            rid=chance.randbytes(8), attempt=0, token=chance.randbytes(8),
            peers4=tuple(peers[: limits.REPLY_PEERS_V4]),
        )  # fmt: skip
        replies.put(source, reply, 0.0)
    assert len(replies) == limits.REPLY_CACHE


def fill_limiters(network: Network) -> None:
    """Every rate limiter, by sources of both families."""
    guard = network.guard
    asks: list[Callable[[Address], bool]] = [
        lambda a: guard.ping(a, 0.5),
        lambda a: guard.request(a, 0.5),
        lambda a: guard.challenge(a, 0.5),
        lambda a: guard.first_hop(a, 0.5),
        lambda a: guard.forward(a, a, 0.5),
        lambda a: guard.offer(a, 0.5),
        lambda a: guard.announce(a, 0.5),
    ]
    for ask in asks:
        for address in take(4 * limits.RATE_KEYS):
            ask(address)
    assert len(guard._ping) == limits.RATE_KEYS


def fill_silent(network: Network) -> None:
    """Addresses that did not answer."""
    for address in take(limits.NEGATIVE_CACHE):
        network.guard.silent.add(address, chance.random())


def fill_sockets(network: Network) -> None:
    """Addresses whose socket is remembered, where a node has several."""
    node: Node = network.transmit.__self__  # type: ignore[attr-defined]
    socket = node.add_socket("127.0.0.1")
    for address in take(limits.SOCKET_MEMORY):
        node._heard_on[address] = socket


def fill_caches(network: Network) -> None:
    """Parsed addresses, and tokens at hand."""
    from p2pdist.addresses import from_socket, pack, unpack, usable

    for address in take(limits.ADDRESS_CACHE):
        usable(address)
        from_socket(*address)
        unpack(pack(address))
        network.guard.mint.token(address, 0.5)


FILLS = {
    "routing tables": fill_routing,
    "PeerTable": fill_peers,
    "queries": fill_queries,
    "senders": fill_senders,
    "paths": fill_paths,
    "replies": fill_replies,
    "rate limiters": fill_limiters,
    "silent addresses": fill_silent,
    "memory of sockets": fill_sockets,
    "address caches": fill_caches,
}


def resident() -> float:
    """Return this process's RSS in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def traced() -> float:
    """Return what tracemalloc counts, in MiB."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / MIB


def child(trace: bool) -> None:
    """Fill one node table by table; print what each added."""
    clock = Clock()
    node = Node(NodeKey.from_seed(bytes(32)), clock, chance, chance.randbytes, clock.seconds)
    network = node.add_network(KEYS)
    if trace:
        tracemalloc.start()
    measure = traced if trace else resident
    begin = before = measure()
    for name, fill in FILLS.items():
        fill(network)
        after = measure()
        print(f"{after - before:.3f} {name}")
        before = after
    print(f"{before - begin:.3f} all tables")


def measured(trace: bool) -> dict[str, float]:
    """Run a fresh process; return MiB by table."""
    done = subprocess.run(
        [sys.executable, __file__, "child-traced" if trace else "child"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = (line.split(" ", 1) for line in done.stdout.splitlines())
    return {name: float(value) for value, name in rows}


def main() -> None:
    """Run."""
    if sys.argv[1:2] in (["child"], ["child-traced"]):
        child(sys.argv[1] == "child-traced")
        return
    chosen = options(__doc__)
    report = Report(seed=1)
    seen, counted = measured(trace=False), measured(trace=True)
    for name, value in seen.items():
        target = ALLOWED_MIB if name == "all tables" else None
        report.add(f"RSS of full {name}", value, "MiB", at_most=target)
    for name, value in counted.items():
        report.add(f"tracemalloc of full {name}", value, "MiB")
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
