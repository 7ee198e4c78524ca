"""This software in one file, for machines that do not have it: ``p2pdist push`` sends it.

Job: pack the package and what it needs, as installed here, into a compressed archive. Whoever
unpacks it needs the same Python and the same kind of machine; :data:`Kind` says which.
It leaves out tests, the terminal's libraries and compiled files. Tests: ``test_bundle``.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import IO, Final

import p2pdist
from p2pdist.errors import P2PDistError

ROOTS: Final = (
    *("twisted", "attrs", "msgpack", "cryptography", "pyopenssl", "blake3", "automat"),
    *("zope.interface", *(() if sys.version_info >= (3, 11) else ("tomli",))),
)
"""What a node needs, by name of distribution; they name the rest themselves."""
LEFT_OUT: Final = frozenset({"test", "tests", "__pycache__", "newsfragments", "assets"})
Kind = tuple[int, int, str]


class NotPacked(P2PDistError):
    """Something that is needed cannot be packed."""


def kind() -> Kind:
    """Return major and minor version of this Python, and the kind of machine."""
    return sys.version_info[0], sys.version_info[1], os.uname().machine


def needed(roots: tuple[str, ...] = ROOTS) -> list[metadata.Distribution]:
    """Return the distributions to pack, each once.

    Raises:
        NotPacked: one is not installed here as a distribution.
    """
    found: dict[str, metadata.Distribution] = {}
    waiting = list(roots)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise NotPacked(f"{name} is not installed here; pip install {name}") from error
        for line in found[name].requires or ():
            requirement, _, condition = line.partition(";")
            if "extra" in condition or _not_here(condition):
                continue
            match = re.match(r"[\w.-]+", requirement)
            waiting += [match[0]] if match else []
    return list(found.values())


def _not_here(condition: str) -> bool:
    """Tell whether a requirement is for other Pythons: only versions are compared."""
    match = re.search(r"python_(?:full_)?version\s*<\s*[\"'](\d+)\.(\d+)", condition)
    return match is not None and sys.version_info[:2] >= (int(match[1]), int(match[2]))


def members() -> Iterator[tuple[str, Path]]:
    """Yield names in the archive and files here."""
    package = Path(p2pdist.__file__).resolve().parent
    for path in sorted(package.rglob("*")):
        name = PurePosixPath("p2pdist", *path.relative_to(package).parts)
        if path.is_file() and _wanted(name):
            yield str(name), path
    yield "twisted/plugins/p2pdist_plugin.py", _plugin(package)
    for distribution in needed():
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            name = PurePosixPath(file.as_posix())
            if ".." not in name.parts and _wanted(name) and path.is_file():
                yield str(name), path


def _wanted(name: PurePosixPath) -> bool:
    if name.parts[:2] == ("twisted", "plugins") and name.stem != "__init__":
        return False  # others' plugins: looking for ours imports them all
    return not LEFT_OUT.intersection(name.parts) and name.suffix not in {".pyc", ".pyi", ".c", ".h"}


def _plugin(package: Path) -> Path:
    """Return the twistd plugin: beside the package in a tree, in Twisted's folder else."""
    import twisted

    for root in (package.parent, Path(twisted.__file__).resolve().parent.parent):
        path = root / "twisted" / "plugins" / "p2pdist_plugin.py"
        if path.is_file():
            return path
    raise NotPacked("the twistd plugin is not here; install p2pdist with pip")


def pack(file: IO[bytes]) -> int:
    """Write the archive; return its bytes. Blocks: half a second, or some.

    Raises:
        NotPacked: something that is needed is not here.
    """
    start = file.tell()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for name, path in members():
            info = archive.gettarinfo(str(path), name)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o644
            with path.open("rb") as data:
                archive.addfile(info, data)
    return file.tell() - start
