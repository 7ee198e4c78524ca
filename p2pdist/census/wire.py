"""Census frames as msgpack values: what they pack to, and the checks they must pass. Pure.

Tags are 8 bytes, a name in a digest is a tag and a sequence of 4 bytes. Raises ``ValueError``,
which ``peerwire`` turns into a protocol error. Threat: any bytes; every list has its bound in
``limits``. Tests: ``test_census``, ``test_peerwire``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from p2pdist import limits
from p2pdist.census.gossip import GROUP_HASH_BYTES, GROUPS, Digest, Frame, Records, Summary, Want
from p2pdist.census.records import TAG_BYTES
from p2pdist.keys import SIGNATURE_BYTES

NAME_BYTES: Final = TAG_BYTES + 4


def _parts(value: Any, size: int) -> list[bytes]:
    if (
        not isinstance(value, bytes)
        or len(value) % size
        or len(value) > size * limits.CENSUS_DIGEST
    ):
        raise ValueError(f"expected up to {limits.CENSUS_DIGEST} times {size} bytes")
    return [value[start : start + size] for start in range(0, len(value), size)]


def _names(value: Any) -> tuple[tuple[bytes, int], ...]:
    parts = _parts(value, NAME_BYTES)
    return tuple((part[:TAG_BYTES], int.from_bytes(part[TAG_BYTES:], "big")) for part in parts)


def _tags(value: Any) -> tuple[bytes, ...]:
    return tuple(_parts(value, TAG_BYTES))


def _hashes(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != GROUPS * GROUP_HASH_BYTES:
        raise ValueError(f"expected {GROUPS} hashes")
    return value


def _records(value: Any) -> tuple[tuple[int, bytes, bytes], ...]:
    if not isinstance(value, tuple) or len(value) > limits.CENSUS_DIGEST:
        raise ValueError(f"expected up to {limits.CENSUS_DIGEST} records")
    for entry in value:
        if not isinstance(entry, tuple) or len(entry) != 3:
            raise ValueError("a record has an age, a body and a signature")
        age, body, signature = entry
        if type(age) is not int or not 0 <= age < 2**32:
            raise ValueError("an age is a number of seconds")
        if not isinstance(body, bytes) or len(body) > limits.CENSUS_RECORD_BYTES:
            raise ValueError(f"a record has at most {limits.CENSUS_RECORD_BYTES} bytes")
        if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
            raise ValueError(f"a signature has {SIGNATURE_BYTES} bytes")
    return value


FRAMES: Final[dict[int, tuple[type[Any], tuple[Callable[[Any], Any], ...]]]] = {
    0x90: (Digest, (_names,)),
    0x91: (Want, (_tags,)),
    0x92: (Records, (_records,)),
    0x93: (Summary, (_hashes,)),
}


def pack(frame: Frame) -> tuple[Any]:
    """Return the values of a frame."""
    if isinstance(frame, Digest):
        return (b"".join(tag + number.to_bytes(4, "big") for tag, number in frame.entries),)
    if isinstance(frame, Want):
        return (b"".join(frame.tags),)
    if isinstance(frame, Summary):
        return (frame.hashes,)
    return (frame.entries,)
