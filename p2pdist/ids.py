"""Identifiers and the XOR metric.

``HashKey`` (32 bytes) names a content; ``Topic`` (20 bytes) stands for it on UDP;
``NodeID`` (20 bytes) names a node. All three are plain bytes underneath: tables are keyed by bytes,
never by integers a stranger chose (hash(k * (2**61 - 1)) is 0 for every k). Tests: ``test_ids``.
"""

from __future__ import annotations

import re
from typing import NewType

NodeID = NewType("NodeID", bytes)
Topic = NewType("Topic", bytes)
HashKey = NewType("HashKey", bytes)
PieceIndex = NewType("PieceIndex", int)

ID_BYTES = 20
HASH_KEY_BYTES = 32
HASH_KEY_PREFIX = "b3:"
_HASH_KEY_TEXT = re.compile(r"b3:([0-9a-fA-F]{64})\Z")


def distance(a: bytes, b: bytes) -> int:
    """Return the XOR of two ids as a big-endian integer (Kademlia, section 2.1)."""
    return int.from_bytes(a, "big") ^ int.from_bytes(b, "big")


def shared_prefix_bits(a: bytes, b: bytes) -> int:
    """Return how many leading bits two ids of :data:`ID_BYTES` share: 0 to 160."""
    return ID_BYTES * 8 - distance(a, b).bit_length()


def parse_hash_key(text: str) -> HashKey:
    """Parse ``b3:`` and 64 hexadecimal digits.

    Raises:
        ValueError: with a sentence that says what is expected.
    """
    match = _HASH_KEY_TEXT.match(text)
    if match is None:
        raise ValueError(
            f"{text[:80]!a} is no hash key; expected b3: and 64 hexadecimal digits, "
            "as printed by p2pdist make"
        )
    return HashKey(bytes.fromhex(match[1]))


def format_hash_key(hash_key: HashKey) -> str:
    """Return the text form, lower case."""
    return HASH_KEY_PREFIX + hash_key.hex()


def short(identifier: bytes) -> str:
    """Return the first 8 hexadecimal digits, for people and for file names (HASH8)."""
    return identifier[:4].hex()
