"""Where a content goes or lies, and with what it is reached.

Tests: ``test_locate``, ``test_create``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from p2pdist.content import FileEntry
from p2pdist.errors import DiskFull, StorageError
from p2pdist.storage.disk import NO_SPACE, IDisk, storage_error
from p2pdist.storage.tree import FileTree
from p2pdist.workers import IWorkers


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 -- keeps links


@frozen
class Place:
    """One content's place on disk.

    Attributes:
        disk: the file system.
        workers: where its calls run.
        clock: for the group sync.
        directory: folder of the target, the part and the state file; nothing outside is opened.
        state_directory: folder of the records of complete contents; ``None`` keeps no record.
        path: an existing file or folder the operator named (``seed --path``), under whatever name
            and wherever; it is only read, and links to files are followed there.
        replace: an existing target with other content may be replaced.
        timer: seconds, for measuring work in workers.
    """

    disk: IDisk
    workers: IWorkers
    clock: IReactorTime = field(repr=False)
    directory: str = field(converter=_absolute)
    state_directory: str | None = None
    path: str | None = None
    replace: bool = False
    timer: Callable[[], float] = field(default=time.perf_counter, repr=False)

    def target(self, name: str) -> tuple[str, str]:
        """Return folder and name of the complete content that is called ``name``."""
        if self.path is None:
            return self.directory, name
        directory, top = os.path.split(_absolute(self.path))
        return directory, top

    def target_path(self, name: str) -> str:
        """Return the whole path of the complete content."""
        return os.path.join(*self.target(name))  # noqa: PTH118 -- text

    def explain(self, error: OSError, path: str, name: str, left: Iterable[int]) -> StorageError:
        """Return the error people see, for what lies at ``path`` or was to be written there.

        Args:
            error: what the disk said.
            path: of the file or part.
            name: of the content.
            left: bytes that are still to be written, piece by piece.
        """
        if error.errno in NO_SPACE:
            return DiskFull(
                f"{self.directory} is full: {sum(left)} bytes of {name} "
                "are still to be written there"
            )
        return storage_error(error, path)

    def target_tree(self, name: str, files: Sequence[FileEntry]) -> FileTree:
        """Open the complete content for reading. Blocks.

        Raises:
            OSError: its folder cannot be opened.
        """
        directory, top = self.target(name)
        return FileTree(self.disk, directory, top, files, follow=self.path is not None)
