"""A private network's secret: 32 random bytes, and the text that carries them.

Job: bytes to text and back, finding typing errors; keep the secret out of everything printed. Does
NOT read or write files (``secretfile``), and derives nothing (``keys``).

::

    p2ps1-7q2k...        prefix and 56 letters and digits: base32 of the secret and 3 check bytes

Threat: secrets end up in logs, tracebacks, error messages and shell histories. No ``repr`` here
shows one, no error repeats one, and :func:`hide` takes them out of text that quotes its input.
There are no passphrases: whoever records one datagram could try them all offline.
Tests: ``test_secret``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final

from attrs import field, frozen

SECRET_BYTES: Final = 32
SECRET_PREFIX: Final = "p2ps1-"  # noqa: S105 -- begins every secret and is none
_CHECK_BYTES: Final = 3
_LETTERS: Final = (SECRET_BYTES + _CHECK_BYTES) * 8 // 5
_SHOWN: Final = re.compile(
    rf"{SECRET_PREFIX}[A-Za-z0-9]*|[A-Za-z2-7]{{{_LETTERS - 2},}}", re.IGNORECASE
)
"""A secret, whole or mistyped, with its prefix or without."""


def hide(text: str) -> str:
    """Return ``text`` without the secrets that stand in it."""
    return _SHOWN.sub(f"{SECRET_PREFIX}...", text)


def _check(raw: bytes) -> bytes:
    return hashlib.sha256(b"p2pdist/1 secret" + raw).digest()[:_CHECK_BYTES]


@frozen(repr=False, eq=False)
class Secret:
    """What makes a network private: all who have it are in, nobody else is.

    Attributes:
        raw: its 32 bytes; nothing but ``keys`` has a use for them.
    """

    raw: bytes = field()

    @raw.validator
    def _check_size(self, _attribute: object, value: bytes) -> None:
        if len(value) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(value)}")

    @classmethod
    def new(cls, entropy: Callable[[int], bytes]) -> Secret:
        """Make one from unpredictable bytes."""
        return cls(entropy(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Secret:
        """Return the secret that ``text`` carries; blanks around it and letter case do not matter.

        Raises:
            ValueError: reason and remedy, parted by a semicolon; never with any of the text in it.
        """
        remedy = "copy it again from where p2pdist make --private wrote it"
        word = text.strip().lower()
        if not word.startswith(SECRET_PREFIX):
            raise ValueError(f"does not begin with {SECRET_PREFIX}; {remedy}")
        letters = word.removeprefix(SECRET_PREFIX)
        if len(letters) != _LETTERS:
            raise ValueError(f"has {len(letters)} letters and digits, not {_LETTERS}; {remedy}")
        if re.search("[^a-z2-7]", letters):
            raise ValueError(f"holds something else than letters and the digits 2 to 7; {remedy}")
        both = base64.b32decode(letters.upper())
        raw, check = both[:SECRET_BYTES], both[SECRET_BYTES:]
        if not hmac.compare_digest(check, _check(raw)):
            raise ValueError(f"is mistyped: its check does not fit; {remedy}")
        return cls(raw)

    @property
    def text(self) -> str:
        """The text form, for descriptors and secret files only."""
        both = self.raw + _check(self.raw)
        return SECRET_PREFIX + base64.b32encode(both).decode().lower()

    def __repr__(self) -> str:
        return "<Secret>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.raw, other.raw)

    def __hash__(self) -> int:
        return hash(self.raw)
