"""Looking for what must not be there: a secret, in whatever form it might have got out.

Used by the tests of private networks on logs, outputs and datagrams.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from p2pdist.keys import NetworkKeys
from p2pdist.secret import Secret

_LEAST = 12
"""Bytes of an encoded needle that are looked for: a part of a secret is too much as well."""


def forms(raw: bytes) -> Iterable[bytes]:
    """Yield ``raw`` as it may be written: as it is, hexadecimal, base 64, 32 and 85, as numbers."""
    yield raw
    yield raw[::-1]
    yield b"".join(bytes((byte, 0)) for byte in raw)  # UTF-16
    yield raw.hex().encode("utf-16-le")
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield raw.hex(":").encode()
    yield raw.hex(" ").encode()
    for shift in range(3):  # base 64 depends on where in a longer text the bytes stand
        encoded = base64.b64encode(bytes(shift) + raw)[4:-4]
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))
    for shift in range(5):
        encoded = base64.b32encode(bytes(shift) + raw)[8:-8]
        yield encoded
        yield encoded.lower()
    yield base64.b85encode(raw)
    yield base64.a85encode(raw)
    yield repr(raw)[2:-1].encode()
    yield ", ".join(map(str, raw)).encode()
    yield str(int.from_bytes(raw, "big")).encode()
    yield str(int.from_bytes(raw, "little")).encode()


def keys_of(secret: Secret, *boot_ids: bytes) -> list[bytes]:
    """Return the secret and every key that comes of it."""
    keys = NetworkKeys.from_secret(secret.raw)
    text = secret.text.removeprefix("p2ps1-").encode()
    return [secret.raw, text, keys.prk, keys.udp, *map(keys.sender_key, boot_ids)]


def found(texts: Iterable[bytes], raws: Iterable[bytes]) -> list[bytes]:
    """Return the needles that stand in any of the texts, whole or their first half."""
    needles = [form[: max(_LEAST, len(form) // 2)] for raw in raws for form in forms(raw)]
    hay = b"\n".join(texts)  # one long text is searched a hundred times faster than many short ones
    return [needle for needle in dict.fromkeys(needles) if needle in hay]
