"""The content: its metadata, its piece hashes, and the names its files may have.

Job: turn metadata into bytes and back, hash pieces, and decide which file names from outside may be
opened at all (:func:`check_component`, the one gate). The only module that knows the content hash,
BLAKE3 (decision 3). Does NOT touch files: ``source`` makes metadata from them, ``storage`` the
files from metadata.

Metadata is canonical msgpack ``[1, piece_length, [[path, length, flags], ...], piece_hashes]``:
paths joined with ``/`` and sorted as bytes, files laid end to end in that order, bit 0 of flags =
executable, 32 bytes of BLAKE3 per piece. One content has one encoding, so
``hash_key = BLAKE3(metadata)`` commits to every name, length and byte. Who is handed a hash_key
needs to trust nobody else.

There is no "sparse" flag, unlike first planned (decision 19): a piece of zeros is known by its hash
(:meth:`Metadata.is_zero`), so a flag could only repeat that or lie about it.

Threat: metadata comes from strangers. It is hashed before it is looked at, so only who wrote the
descriptor can attack with it: path tricks, sizes that overflow or exhaust. Files are kept packed
(:class:`FileList`), so metadata takes little more memory than its bytes. Tests: ``test_content``.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final, overload

import msgpack
from attrs import field, frozen
from blake3 import blake3

from p2pdist import limits
from p2pdist.errors import (
    AuthenticationFailed,
    LocalProtocolError,
    MalformedMessage,
    OversizedMessage,
    UnsafeName,
)
from p2pdist.ids import HASH_KEY_BYTES, HashKey

FORMAT: Final = 1
HASH_BYTES: Final = HASH_KEY_BYTES
EXECUTABLE: Final = 1
"""Bit of an entry's flags; the others are not known and refused."""

# --- names ---

_BANNED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control, format (bidi, zero width), surrogate, line and paragraph separator."""

_NAME_RULES: Final[tuple[tuple[Callable[[str], object], str], ...]] = (
    (lambda name: not name, "it is empty"),
    (lambda name: name in {".", ".."}, "it names a folder itself or the one above"),
    (re.compile(r"[/\\\0]").search, "it holds a slash, a backslash or NUL"),
    (
        lambda name: any(unicodedata.category(char) in _BANNED_CATEGORIES for char in name),
        "it holds a control, formatting or undecodable character",
    ),
    (
        lambda name: len(name.encode()) > limits.NAME_BYTES,
        f"it is longer than {limits.NAME_BYTES} bytes in UTF-8",
    ),
    (
        lambda name: not unicodedata.is_normalized("NFC", name),
        "it is not in Unicode normal form C, so that two names could look the same",
    ),
    (lambda name: name[0] == "-", "it begins with a hyphen, like an option"),
    (lambda name: name[-1] == "." or name[-1].isspace(), "it ends with a dot or a space"),
    (re.compile(r"[A-Za-z]:").match, "it begins with a drive letter"),
    (
        re.compile(r"\..*\.p2pdist-[a-z]+\Z", re.IGNORECASE).match,
        "such names are kept for p2pdist's own unfinished downloads",
    ),
)
"""In order: each rule may rely on those before it."""

_is_plain = re.compile(r"\w(?:[\w .,+=@()~-]{0,62}[\w)~])?", re.ASCII).fullmatch
"""Names that no rule can object to; with 100,000 of them the short cut saves seconds."""


@lru_cache(maxsize=limits.NAME_CACHE)
def check_component(name: str) -> str:
    """Return ``name`` if it may be one component of a path; every name from outside comes here.

    Nothing is rewritten: two names could become one, or one become harmful.

    Raises:
        UnsafeName: with the rule it breaks; a leading dot is allowed (decision 21).
    """
    if _is_plain(name) is None:
        for broken_by, reason in _NAME_RULES:
            if broken_by(name):
                raise UnsafeName(name, reason)
    return name


def check_path(path: str) -> tuple[str, ...]:
    """Split a path of components joined with ``/`` and check each.

    Raises:
        UnsafeName: a bad component, more than ``limits.PATH_DEPTH`` of them, or too long in all.
    """
    # A character takes 4 bytes at most (a surrogate, refused below, counts as one).
    if len(path) * 4 > limits.PATH_BYTES < len(path.encode(errors="replace")):
        raise UnsafeName(path, f"the path is longer than {limits.PATH_BYTES} bytes")
    components = path.split("/")
    if len(components) > limits.PATH_DEPTH:
        raise UnsafeName(path, f"it is more than {limits.PATH_DEPTH} folders deep")
    return tuple(map(check_component, components))


# --- pieces ---


def hash_piece(data: bytes | bytearray | memoryview) -> bytes:
    """Return the 32 bytes that name a piece: BLAKE3. Lets other threads run meanwhile."""
    return blake3(data).digest()


def piece_hasher() -> blake3:
    """Return :func:`hash_piece` for a piece that comes in parts: ``update(part)``, ``digest()``."""
    return blake3()


@lru_cache(maxsize=limits.ZERO_HASHES)
def zero_hash(size: int) -> bytes:
    """Return the hash of ``size`` zero bytes, made without holding so many."""
    hasher = blake3()
    block = bytes(min(size, limits.PIECE_LENGTH_MIN))
    while size:
        hasher.update(block[:size])
        size -= min(size, len(block))
    return hasher.digest()


def piece_count(length: int, piece_length: int) -> int:
    """Return how many pieces ``length`` bytes make; the last may be short."""
    return -(-length // piece_length)


def default_piece_length(length: int) -> int:
    """Return the piece length ``make`` chooses for ``length`` bytes.

    The smallest with at most ``limits.PIECES_WANTED`` pieces, up to a usual largest one: small
    pieces spread sooner, few pieces cost less to talk about (decision 18).
    """
    usual = length <= limits.PIECE_LENGTH_USUAL_TO
    longest = limits.PIECE_LENGTH_USUAL if usual else limits.PIECE_LENGTH_MAX
    piece_length = limits.PIECE_LENGTH_MIN
    while piece_length < longest and piece_count(length, piece_length) > limits.PIECES_WANTED:
        piece_length *= 2
    return piece_length


def check_piece_length(piece_length: int, length: int = 0) -> None:
    """Check the bounds of decision 18.

    Raises:
        ValueError: no power of two within bounds, or it cuts ``length`` into too many pieces.
    """
    low, high = limits.PIECE_LENGTH_MIN, limits.PIECE_LENGTH_MAX
    if not low <= piece_length <= high or piece_length & (piece_length - 1):
        raise ValueError(f"a piece length is a power of two from {low} to {high} bytes")
    if piece_count(length, piece_length) > limits.PIECES_MAX:
        least = low
        while piece_count(length, least) > limits.PIECES_MAX:
            least *= 2
        raise ValueError(
            f"{length} bytes would make more than {limits.PIECES_MAX} pieces; "
            f"the piece length must be {least} or more"
        )


# --- metadata ---


@frozen
class FileEntry:
    """One file of a content.

    Attributes:
        path: components, the content's name first; one component if the content is a single file.
        length: bytes.
        executable: whether its owner may run it.
    """

    path: tuple[str, ...]
    length: int
    executable: bool = False

    @property
    def joined(self) -> str:
        """The path as on the wire. Code points sort as their UTF-8 bytes do."""
        return "/".join(self.path)


class FileList(Sequence[FileEntry]):
    """Files, packed: an entry is made when it is looked at.

    As objects 100,000 files take 35 MiB and their metadata 3, and a node keeps them all its life.

    Args:
        entries: in the order they are to have.

    Raises:
        UnsafeName: a component holds a slash.
        ValueError: a length is out of range.
    """

    __slots__ = ("_ends", "_executable", "_lengths", "_paths")

    def __init__(self, entries: Iterable[FileEntry] = ()) -> None:
        self._paths = bytearray()
        self._ends = array("Q", [0])
        self._lengths = array("Q")
        self._executable = bytearray()
        for entry in entries:
            path = entry.joined
            if path.count("/") != len(entry.path) - 1:
                raise UnsafeName(path, "a component holds a slash")
            self.add(path, entry.length, executable=entry.executable)

    def add(self, path: str, length: int, *, executable: bool) -> None:
        """Put one more file behind the others.

        Raises:
            ValueError: ``length`` is out of range.
        """
        if not 0 <= length <= limits.LENGTH_MAX:
            raise ValueError("the length of a file is out of range")
        self._paths += path.encode(errors="surrogatepass")
        self._ends.append(len(self._paths))
        self._lengths.append(length)
        self._executable.append(executable)

    def joined(self, index: int) -> str:
        """Return :attr:`FileEntry.joined` of a file, counted from 0."""
        path = self._paths[self._ends[index] : self._ends[index + 1]]
        return path.decode(errors="surrogatepass")

    def paths(self) -> Iterator[str]:
        """Yield :attr:`FileEntry.joined` of each file."""
        return map(self.joined, range(len(self)))

    @property
    def lengths(self) -> Sequence[int]:
        """Bytes of each file."""
        return self._lengths

    def __len__(self) -> int:
        return len(self._lengths)

    @overload
    def __getitem__(self, index: int) -> FileEntry: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[FileEntry, ...]: ...

    def __getitem__(self, index: int | slice) -> FileEntry | tuple[FileEntry, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        index = range(len(self))[index]  # negative ones, and IndexError
        path = tuple(self.joined(index).split("/"))
        return FileEntry(path, self._lengths[index], bool(self._executable[index]))

    def __iter__(self) -> Iterator[FileEntry]:
        return map(self.__getitem__, range(len(self)))

    def _key(self) -> tuple[bytes, ...]:
        packed = self._paths, self._ends, self._lengths, self._executable
        return tuple(map(bytes, packed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileList) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"<{len(self)} files>"


def _packed(files: Iterable[FileEntry]) -> FileList:
    return files if isinstance(files, FileList) else FileList(files)


@frozen
class Metadata:
    """What a content consists of: checked when made, so that one which exists can be relied on.

    Attributes:
        piece_length: bytes of every piece but the last; a power of two.
        files: one or more, sorted by path, laid end to end; given as any entries.
        piece_hashes: 32 bytes per piece, none for a content without bytes.

    Raises:
        ValueError: a bound or a rule of the format is broken.
        UnsafeName: a path is (see :func:`check_path`).
    """

    piece_length: int
    files: FileList = field(converter=_packed)
    piece_hashes: bytes = field(repr=False)

    def __attrs_post_init__(self) -> None:
        _check_files(self.files)
        if not 0 <= self.length <= limits.LENGTH_MAX:
            raise ValueError(f"more than {limits.LENGTH_MAX} bytes")
        check_piece_length(self.piece_length, self.length)
        if len(self.piece_hashes) != HASH_BYTES * piece_count(self.length, self.piece_length):
            raise ValueError("not one hash for each piece")

    @property
    def name(self) -> str:
        """What the file or folder is called."""
        return self.files[0].path[0]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, perhaps with one file only."""
        return len(self.files[0].path) > 1

    @cached_property
    def length(self) -> int:
        """Bytes of all files together."""
        return sum(self.files.lengths)

    @property
    def count(self) -> int:
        """Number of pieces."""
        return len(self.piece_hashes) // HASH_BYTES

    def piece_hash(self, index: int) -> bytes:
        """Return what :func:`hash_piece` gives for piece ``index``, 0 to ``count - 1``.

        Raises:
            LocalProtocolError: there is no such piece.
        """
        if not 0 <= index < self.count:
            raise LocalProtocolError(f"piece {index} of {self.count}")
        return self.piece_hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def is_zero(self, index: int) -> bool:
        """Tell whether piece ``index`` is nothing but zero bytes: neither sent nor written.

        Raises:
            LocalProtocolError: there is no such piece.
        """
        size = min(self.piece_length, self.length - index * self.piece_length)
        return self.piece_hash(index) == zero_hash(size)

    def encode(self) -> bytes:
        """Return the one encoding of this metadata."""
        return encode(self.piece_length, self.files, self.piece_hashes)

    def hash_key(self) -> HashKey:
        """Return the name of the content."""
        return self._hash_key

    @cached_property
    def _hash_key(self) -> HashKey:
        return HashKey(hash_piece(self.encode()))

    @classmethod
    def decode(cls, data: bytes) -> Metadata:
        """Inverse of :meth:`encode`; see :func:`decode_metadata` for bytes from a peer.

        Raises:
            OversizedMessage: more than ``limits.METADATA_BYTES``.
            MalformedMessage: anything but the encoding of a metadata that may exist.
        """
        if len(data) > limits.METADATA_BYTES:
            raise OversizedMessage("metadata-size", str(len(data)))
        try:
            metadata = cls(*_unpack(data))
        except (UnsafeName, ValueError, msgpack.UnpackException) as error:
            raise MalformedMessage("metadata", str(error)[:200]) from error
        if metadata.encode() != data:
            raise MalformedMessage("metadata-canonical")
        return metadata


def decode_metadata(data: bytes, hash_key: HashKey) -> Metadata:
    """Decode what a peer sent as the metadata of ``hash_key``.

    Raises:
        OversizedMessage: more than ``limits.METADATA_BYTES``.
        AuthenticationFailed: other bytes than those ``hash_key`` names.
        MalformedMessage: the right bytes, but made by no ``p2pdist make``; no peer is to blame.
    """
    if len(data) > limits.METADATA_BYTES:
        raise OversizedMessage("metadata-size", str(len(data)))
    if hash_piece(data) != hash_key:
        raise AuthenticationFailed("metadata-hash")
    metadata = Metadata.decode(data)
    object.__setattr__(metadata, "_hash_key", hash_key)  # known by now: spare encoding it again
    return metadata


def encode(piece_length: int, files: FileList, piece_hashes: bytes) -> bytes:
    """Return the bytes a metadata with these fields has, whether or not it may exist."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(4)
    packer.pack(FORMAT)
    packer.pack(piece_length)
    packer.pack_array_header(len(files))
    for entry in files:
        packer.pack((entry.joined, entry.length, int(entry.executable)))
    packer.pack(piece_hashes)
    packed: bytes = packer.bytes()
    return packed


def _check_files(files: FileList) -> None:
    """Check what binds the files to each other.

    Raises:
        ValueError, UnsafeName: see :class:`Metadata`.
    """
    if not 0 < len(files) <= limits.FILES_MAX:
        raise ValueError(f"{len(files)} files, not 1 to {limits.FILES_MAX}")
    top = files.joined(0).partition("/")[0] + "/"
    components, before = 0, ""
    shorter: list[str] = []  # paths that this one begins with, each of which begins the next
    for path in files.paths():
        components += len(check_path(path))
        if path <= before:
            raise ValueError("files are not sorted, or one is there twice")
        if len(files) > 1 and not path.startswith(top):
            raise ValueError("files are not all inside one folder")
        while shorter and not path.startswith(shorter[-1]):
            shorter.pop()
        if any(path[len(file)] == "/" for file in shorter):
            raise ValueError("a path is both a file and a folder")
        shorter.append(path)
        before = path
    if components > limits.COMPONENTS_MAX:
        raise ValueError(f"more than {limits.COMPONENTS_MAX} path components")


def _unpack(data: bytes) -> tuple[int, FileList, bytes]:
    """Read the msgpack of a metadata, header by header.

    One ``unpackb`` would first build whatever the bytes say: 32 MiB of empty lists take 2 GiB.

    Raises:
        ValueError, msgpack.UnpackException: anything unexpected.
    """
    unpacker = msgpack.Unpacker(
        max_buffer_size=limits.METADATA_BYTES,
        max_str_len=limits.PATH_BYTES,
        max_bin_len=limits.PIECES_MAX * HASH_BYTES,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    unpacker.feed(data)

    def list_of(size_max: int) -> int:
        size: int = unpacker.read_array_header()
        if size > size_max:
            raise ValueError(f"a list of {size}")
        return size

    def value(kind: type) -> Any:
        item = unpacker.unpack()
        if type(item) is not kind:
            raise ValueError(f"{type(item).__name__} in place of {kind.__name__}")
        return item

    def entries() -> FileList:
        files = FileList()
        for _ in range(list_of(limits.FILES_MAX)):
            list_of(3)
            files.add(value(str), value(int), executable=bool(value(int) & EXECUTABLE))
        return files

    # Shorter lists, other flags and bytes left over do not survive the canonical check.
    list_of(4)
    if value(int) != FORMAT:
        raise ValueError("made for a later version of p2pdist")
    return value(int), entries(), value(bytes)
