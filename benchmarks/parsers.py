"""What the worst input costs each parser of datagrams and frames: milliseconds and memory.

Inputs: the samples and kept corpora of the fuzz targets (tools/fuzz), each of them repeated up to
the largest datagram or control frame, and bombs of that size: arrays in arrays, headers that
promise 4 GiB, as many of the smallest values as fit, the longest lists that are legal. Time is the
best of five runs of the worst input; memory is what Python allocated for it at once.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import msgpack
from common import Report, options

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.census.gossip import Digest, Records, Want
from p2pdist.census.records import TAG_BYTES
from p2pdist.errors import RemoteProtocolError
from p2pdist.ids import PieceIndex
from p2pdist.overlay import wire
from p2pdist.swarm import messages
from p2pdist.swarm.peerwire import PREFACE, PeerWire, encode
from p2pdist.test.fuzztargets import TARGETS
from p2pdist.test.test_fuzz import corpus

RUNS = 5


def bombs(size: int) -> Iterator[bytes]:
    """Yield msgpack of so many bytes that is dear to read, or would be without bounds."""
    for header in (b"\x91", b"\x81\xc0", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"):
        yield (header * size)[:size]
    for header in (b"\xdb", b"\xc6", b"\xc9", b"\xdd", b"\xdf"):
        yield (header + b"\xff\xff\xff\xff").ljust(size, b"\0")
    for header in (b"\xdc", b"\x91\xdc", b"\x92\xdc"):
        yield (header + struct.pack(">H", min(size, 65535))).ljust(size, b"\0")
        yield header + struct.pack(">H", min(size // 2, 65535)) + b"\xc4\x00" * (size // 2 - 3)
    for head in (b"\x91", b"\x92\x00", b"\x93\x00\x00"):
        yield (head + b"\xc5" + struct.pack(">H", min(size - 8, 65535))).ljust(size, b"\x01")


def frames(size: int) -> Iterator[bytes]:
    """Yield control frames of every type with such bodies."""
    yield from map(encode, full())
    for code in range(256):
        for body in bombs(size - 5):
            yield struct.pack(">IB", 1 + len(body), code) + body
        for body in lists(size - 64):
            yield struct.pack(">IB", 1 + len(body), code) + body


def full() -> Iterator[messages.Message]:
    """Yield the fullest lists that may be sent."""
    addresses = [
        Address(f"10.0.{n // 250}.{n % 250 + 1}", 7000 + n) for n in range(limits.PEX_PEERS)
    ]
    notes = tuple(messages.PeerNote(address, messages.PeerFlag.REACHED) for address in addresses)
    yield messages.Peers(True, notes, (), tuple(addresses), ())
    yield messages.Have(tuple(map(PieceIndex, range(limits.HAVE_BATCH))))
    yield messages.Bitfield(b"\xff" * (limits.PIECES_MAX // 8))
    tags = [n.to_bytes(TAG_BYTES, "big") for n in range(limits.CENSUS_DIGEST)]
    yield Digest(tuple((tag, 5) for tag in tags))
    yield Want(tuple(tags))
    body = bytes(limits.CENSUS_RECORD_BYTES)
    count = limits.CENSUS_FRAME_BYTES // (limits.CENSUS_RECORD_BYTES + 80)
    yield Records(((7, body, bytes(64)),) * count)


def lists(size: int) -> Iterator[bytes]:
    """Yield the longest lists of addresses, indices and names."""
    for each in (4, 6, 7, 8, 12, 18, 19, 22):
        yield msgpack.packb([bytes(size // each * each)])
        yield msgpack.packb([True, bytes(size // each * each), b"", b"", b""])
        yield msgpack.packb([True, b"", bytes(size // each * each), b"", b""])
    yield msgpack.packb([struct.pack(f">{size // 4}I", *range(size // 4))])
    yield msgpack.packb([[[0, bytes(200), bytes(64)]] * (size // 280)])
    yield msgpack.packb([[0, bytes(200), bytes(64)] * (size // 280)])


def feed(frame: bytes) -> None:
    """Parse a frame on a proved connection."""
    connection = PeerWire()
    list(connection.receive_data(PREFACE))
    connection.proved = True
    with suppress(RemoteProtocolError):
        list(connection.receive_data(frame))


def decode(payload: bytes) -> None:
    """Decode a payload as nodes do."""
    with suppress(RemoteProtocolError):
        wire.decode(payload)


def grown(name: str, size: int) -> Iterator[bytes]:
    """Yield a target's inputs, as they are and repeated up to ``size``."""
    for data in [*TARGETS[name].samples(), *corpus(name)]:
        if data:
            yield data[:size]
            yield (data * (size // len(data) + 1))[:size]


def worst(run: Callable[[bytes], None], inputs: Iterable[bytes]) -> tuple[float, float, bytes]:
    """Return milliseconds and KiB of the worst input, and the slowest."""
    slowest, ms, kib = b"", 0.0, 0.0
    for data in inputs:
        best = min(_timed(run, data) for _ in range(RUNS))
        if best > ms:
            slowest, ms = data, best
        tracemalloc.start()
        run(data)
        kib = max(kib, tracemalloc.get_traced_memory()[1] / 1024)
        tracemalloc.stop()
    return ms, kib, slowest


def _timed(run: Callable[[bytes], None], data: bytes) -> float:
    began = time.perf_counter()
    run(data)
    return (time.perf_counter() - began) * 1000


def measure(report: Report, *, tell: bool = False) -> None:
    """Add the rows; with ``tell`` say what was slowest."""
    size = limits.PAYLOAD_BYTES
    control = limits.CONTROL_FRAME_BYTES
    rows: list[tuple[str, Callable[[bytes], None], Iterable[bytes]]] = [
        ("message", decode, [*bombs(size), *grown("message", size)]),
        ("datagram", TARGETS["datagram"].run, grown("datagram", limits.DATAGRAM_BYTES)),
        ("handshake", TARGETS["handshake"].run, grown("handshake", limits.HANDSHAKE_FRAME_BYTES)),
        ("control frame", feed, frames(control)),
        ("control frames", feed, grown("frames", control)),
    ]
    for name, run, inputs in rows:
        ms, kib, slowest = worst(run, inputs)
        report.add(f"worst {name}: time", ms, "ms", at_most=1.0)
        report.add(f"worst {name}: memory", kib, "KiB", at_most=1024)
        if tell:
            print(f"slowest {name}: {len(slowest)} bytes, {slowest[:24].hex()}...")


def main() -> None:
    """Measure."""
    asked = options(__doc__)
    report = Report()
    measure(report, tell=not asked.json)
    report.print(as_json=asked.json)


if __name__ == "__main__":
    main()
