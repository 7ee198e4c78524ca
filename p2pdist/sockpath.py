"""A UNIX socket in a folder of any depth: the kernel takes 107 bytes of a path.

Job: a short way to a socket's name, through a descriptor of its folder. Does NOT make sockets.
Tests: ``test_sockpath``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PATH_BYTES: Final = 107
"""Of ``sun_path``, without its end. Source: unix(7)."""
_DESCRIPTORS: Final = "/proc/self/fd"


@contextmanager
def short_way(path: str) -> Iterator[str]:
    """Give a path of at most ``PATH_BYTES`` to ``path``, good for this process and in this block.

    Raises:
        OSError: its folder cannot be opened, or the system has no way round.
    """
    size = len(os.fsencode(path))
    if size <= PATH_BYTES:
        yield path
        return
    if not os.path.isdir(_DESCRIPTORS):  # noqa: PTH112 -- text
        raise OSError(
            f"its path has {size} bytes, a socket's at most {PATH_BYTES}, and there is no "
            f"{_DESCRIPTORS} to go round that; choose a shorter --state-dir"
        )
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"{_DESCRIPTORS}/{descriptor}/{name}"
    finally:
        os.close(descriptor)
