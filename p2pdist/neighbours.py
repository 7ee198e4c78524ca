"""What a node remembers of others between runs: neighbours to ask and peers to try first.

Job: the text of the state directory's ``neighbours`` file. JSON, so that people can read it; read
back as if a stranger had written it. Each network has its own part, under its tag, so that no
address of a private network is ever asked in another. Tests: ``test_neighbours``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from attrs import field, frozen

from p2pdist import limits
from p2pdist.addresses import Address, HostPort, canonical_ip, parse_host_port
from p2pdist.ids import HashKey, format_hash_key, parse_hash_key


@frozen
class Remembered:
    """Addresses worth asking first, in one network.

    Attributes:
        neighbours: nodes of it, at most ``limits.SAVED_NEIGHBOURS``.
        peers: by content, at most ``limits.SAVED_PEERS`` each.
    """

    neighbours: tuple[HostPort, ...] = ()
    peers: dict[HashKey, tuple[Address, ...]] = field(factory=dict)


def encode(remembered: Mapping[bytes, Remembered]) -> bytes:
    """Return the file's bytes, by tag the first ``limits.NETWORKS`` networks.

    Contents are left out, at last neighbours too, until ``limits.SAVED_FILE_BYTES`` are kept.
    """
    parts = dict(islice(remembered.items(), limits.NETWORKS))
    contents = max((len(part.peers) for part in parts.values()), default=0)
    near = limits.SAVED_NEIGHBOURS
    while True:
        networks = {tag.hex(): _part(part, near, contents) for tag, part in parts.items()}
        data = json.dumps({"networks": networks}, indent=1).encode()
        if len(data) <= limits.SAVED_FILE_BYTES:
            return data
        # In proportion, not one by one: a thousand contents would be written out a thousand times.
        if contents:
            contents = contents * limits.SAVED_FILE_BYTES // len(data)
        else:
            near = near * limits.SAVED_FILE_BYTES // len(data)


def _part(remembered: Remembered, near: int, contents: int) -> dict[str, Any]:
    """Return so many neighbours, and the peers of so many contents, as JSON has them."""
    peers = {
        format_hash_key(key): [str(address) for address in addresses[: limits.SAVED_PEERS]]
        for key, addresses in islice(remembered.peers.items(), contents)
    }
    return {"neighbours": [str(entry) for entry in remembered.neighbours[:near]], "peers": peers}


def decode(data: bytes) -> dict[bytes, Remembered]:
    """Return what a file says; whatever does not fit is left out, a damaged file says nothing."""
    if len(data) > limits.SAVED_FILE_BYTES:
        return {}
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    found = {}
    for tag, part in islice(_table(content, "networks").items(), limits.NETWORKS):
        if re.fullmatch("[0-9a-f]{8}", tag) and isinstance(part, dict):
            near = _addresses(part.get("neighbours"), limits.SAVED_NEIGHBOURS)
            found[bytes.fromhex(tag)] = Remembered(near, _peers(_table(part, "peers")))
    return found


def _table(content: object, key: str) -> dict[str, Any]:
    told = content.get(key) if isinstance(content, dict) else None
    return told if isinstance(told, dict) else {}


def _peers(told: dict[str, Any]) -> dict[HashKey, tuple[Address, ...]]:
    peers = {}
    for text, entries in told.items():
        try:
            key = parse_hash_key(text)
        except ValueError:
            continue
        found = _addresses(entries, limits.SAVED_PEERS)
        peers[key] = tuple(Address(entry.host, entry.port) for entry in found)
    return peers


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
