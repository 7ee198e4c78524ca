"""What a node remembers of others between runs: neighbours to ask and peers to try first.

Job: the text of the state directory's ``neighbours`` file. JSON, so that people can read it; read
back as if a stranger had written it. Tests: ``test_neighbours``.
"""

from __future__ import annotations

import json
from itertools import islice

from attrs import field, frozen

from p2pdist import limits
from p2pdist.addresses import Address, HostPort, canonical_ip, parse_host_port
from p2pdist.ids import HashKey, format_hash_key, parse_hash_key


@frozen
class Remembered:
    """Addresses worth asking first.

    Attributes:
        neighbours: nodes of the public network, at most ``limits.SAVED_NEIGHBOURS``.
        peers: by content, at most ``limits.SAVED_PEERS`` each.
    """

    neighbours: tuple[HostPort, ...] = ()
    peers: dict[HashKey, tuple[Address, ...]] = field(factory=dict)


def encode(remembered: Remembered) -> bytes:
    """Return the file's bytes, cut to ``limits.SAVED_FILE_BYTES`` by leaving out contents."""
    peers = {
        format_hash_key(key): [str(address) for address in addresses[: limits.SAVED_PEERS]]
        for key, addresses in remembered.peers.items()
    }
    neighbours = [str(entry) for entry in remembered.neighbours[: limits.SAVED_NEIGHBOURS]]
    while True:
        data = json.dumps({"neighbours": neighbours, "peers": peers}, indent=1).encode()
        if len(data) <= limits.SAVED_FILE_BYTES:
            return data
        # In proportion, not one by one: a thousand contents would be written out a thousand times.
        keep = len(peers) * limits.SAVED_FILE_BYTES // len(data)
        peers = dict(islice(peers.items(), keep))


def decode(data: bytes) -> Remembered:
    """Return what a file says; whatever does not fit is left out, a damaged file says nothing."""
    if len(data) > limits.SAVED_FILE_BYTES:
        return Remembered()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return Remembered()
    if not isinstance(content, dict):
        return Remembered()
    peers = {}
    told = content.get("peers")
    for text, entries in list(told.items()) if isinstance(told, dict) else []:
        try:
            key = parse_hash_key(text)
        except ValueError:
            continue
        found = _addresses(entries, limits.SAVED_PEERS)
        peers[key] = tuple(Address(entry.host, entry.port) for entry in found)
    return Remembered(_addresses(content.get("neighbours"), limits.SAVED_NEIGHBOURS), peers)


def _addresses(entries: object, top: int) -> tuple[HostPort, ...]:
    """Return the IP addresses among ``entries``."""
    found: dict[HostPort, None] = {}
    for entry in entries[:top] if isinstance(entries, list) else []:
        if isinstance(entry, str):
            try:
                parsed = parse_host_port(entry)
            except ValueError:
                continue
            if canonical_ip(parsed.host) is not None:
                found[parsed] = None
    return tuple(found)
