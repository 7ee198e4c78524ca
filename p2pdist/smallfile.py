"""Reading a small file that somebody named: descriptors, signatures, lists of signers, keys.

Job: the bytes of a regular file, up to a bound. Does NOT know what is in it.
Threat: the path may name a FIFO, a device or a disk image: never waits, never reads on.
Tests: ``test_descriptor``, ``test_signers``.
"""

from __future__ import annotations

import os
import stat
from typing import Final

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Unreadable(Exception):
    """Not a regular file, or not for us; the text says which, as in "is a folder".

    Attributes:
        missing: whether there is nothing at all under this path.
    """

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        self.missing = missing
        super().__init__(reason)


def read_small(path: str, bytes_max: int) -> bytes:
    """Return a regular file's bytes; of a larger one, one byte more than ``bytes_max`` to tell.

    Raises:
        Unreadable: it cannot be read or is no regular file.
    """
    try:
        # Opening some devices has effects, so look before; what is open is looked at again.
        mode = os.stat(path).st_mode  # noqa: PTH116 -- beside os.open
        if stat.S_ISREG(mode):
            fd = os.open(path, _OPEN_FLAGS)
            with os.fdopen(fd, "rb") as file:
                mode = os.fstat(fd).st_mode
                if stat.S_ISREG(mode):
                    return file.read(bytes_max + 1)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Unreadable(f"cannot be read: {reason}", missing=missing) from error
    raise Unreadable("is a folder" if stat.S_ISDIR(mode) else "is no regular file")
