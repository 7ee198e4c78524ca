"""The descriptor: the small text file, or the one line, that is handed to every machine.

Job: text to :class:`Descriptor` and back. TOML, JSON of the same shape, and the one-line form
``p2pdist:b3:...?n=host:port&name=...``. Every error says file, line, field and what to do about it.
Does NOT resolve, fetch or open what a descriptor names. ``outline`` finds the lines.

Threat: descriptors are mailed around and edited by hand. There may be anything in the file, and the
file may be a FIFO, a device or a disk image: parsing ends at once, with a value or a
:class:`~p2pdist.errors.DescriptorError` and nothing else. Tests: ``test_descriptor``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, Final, NoReturn
from urllib.parse import quote, unquote_to_bytes

from attrs import define, evolve, field, frozen

from p2pdist import limits
from p2pdist.addresses import HostPort, canonical_ip, parse_host_port
from p2pdist.content import Metadata, check_component, check_piece_length
from p2pdist.errors import DescriptorError, UnsafeName, UntrustedDescriptor
from p2pdist.ids import HashKey, format_hash_key, parse_hash_key
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys
from p2pdist.outline import Outline, outline
from p2pdist.secret import Secret
from p2pdist.secretfile import CREDENTIALS, BadSecret, declared, lines_for
from p2pdist.signatures import SUFFIX
from p2pdist.signers import Signers
from p2pdist.smallfile import Unreadable, read_small

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

URI_SCHEME: Final = "p2pdist:"
_FIELDS: Final = ("hash_key", "name", "length", "piece_length", "nodes", "sha256")
_SECRETS: Final = ("secret", "secret_file")
_NODE_KEYS: Final = ("ip", "host", "port")
_PARSER_LINE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)\Z")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAKE_ANEW: Final = "copy the descriptor again, or let p2pdist make write it anew"

_TEMPLATE: Final = """\
# A p2pdist descriptor: hand this file to every machine that wants the content, then run there
#     p2pdist get FILE.desc        or        twistd -n p2pdist --descriptor FILE.desc

# Names the content. Every byte that arrives is checked against it.
hash_key = "{hash_key}"
{expected}
# Whom to ask first: any machines that take part, as "host:port"; they need not hold the content.
# The list may be empty where all machines share one local network.
nodes = [{nodes}]
{sha256}{secret}"""


@frozen(kw_only=True)
class Descriptor:
    """What one descriptor says, checked.

    Attributes:
        hash_key: names the content.
        nodes: whom to ask first, without duplicates; empty on one local network.
        name: expected name of the file or folder, safe to use as a file name.
        length: expected bytes of all files together.
        piece_length: expected bytes of a piece.
        sha256: what ``sha256sum`` must print for the finished file, 64 lower-case digits.
        secrets: of the private networks its swarm lives in; empty for the public one.
        secret_file: where they were read from, or are to be.
        source: where it came from, for messages; does not count in comparisons.
        signed_by: who signed it, in words, where that was asked for; does not count either.
    """

    hash_key: HashKey
    nodes: tuple[HostPort, ...] = ()
    name: str | None = None
    length: int | None = None
    piece_length: int | None = None
    sha256: str | None = None
    secrets: tuple[Secret, ...] = ()
    secret_file: str | None = None
    source: str = field(default="descriptor", eq=False)
    signed_by: str | None = field(default=None, eq=False)

    @property
    def private(self) -> bool:
        """Whether only who has a secret may take part."""
        return bool(self.secrets) or self.secret_file is not None

    def networks(self) -> tuple[NetworkKeys, ...]:
        """Return the keys of the networks its swarm lives in: the public one, or private ones.

        Raises:
            DescriptorError: the secret file was not read, as :meth:`DescriptorParser.parse_file`
                does.
        """
        if self.private and not self.secrets:
            raise DescriptorError(
                "was not read",
                remedy="use the descriptor's file, or name the secret file with --secret-file",
                source=self.source,
                field="secret_file",
            )
        return tuple(NetworkKeys.from_secret(s.raw) for s in self.secrets) or (PUBLIC_NETWORK,)

    def check_metadata(self, metadata: Metadata) -> None:
        """Compare what was expected with what ``hash_key`` turned out to name.

        Raises:
            DescriptorError: they differ, or a SHA-256 sum is given for a folder.
        """
        for key, expected, found in (
            ("name", self.name, metadata.name),
            ("length", self.length, metadata.length),
            ("piece_length", self.piece_length, metadata.piece_length),
        ):
            if expected is not None and expected != found:
                raise DescriptorError(
                    f"is {expected!r}, but the content named by hash_key has {found!r}",
                    remedy=_MAKE_ANEW,
                    source=self.source,
                    field=key,
                )
        if self.sha256 is not None and metadata.is_folder:
            raise DescriptorError(
                "is given, but the content is a folder",
                remedy="remove it; hash_key commits to every byte of the folder",
                source=self.source,
                field="sha256",
            )

    def to_uri(self) -> str:
        """Return the one-line form: hash_key, nodes and name, never a secret."""
        parameters = [f"n={quote(str(node), safe='[]:')}" for node in self.nodes]
        if self.name is not None:
            parameters.append(f"name={quote(self.name, safe='')}")
        query = "?" + "&".join(parameters) if parameters else ""
        return f"{URI_SCHEME}{format_hash_key(self.hash_key)}{query}"

    def to_toml(self) -> str:
        """Return the text of a descriptor file, with comments for who will edit it."""
        expected = []
        if self.name is not None:
            # JSON strings are TOML strings; a checked name holds nothing that differs.
            expected.append(f"name = {json.dumps(self.name, ensure_ascii=False)}")
        if self.length is not None:
            expected.append(f"length = {self.length:_}  # bytes")
        if self.piece_length is not None:
            expected.append(f"piece_length = {self.piece_length:_}")
        if expected:
            comment = "# What to expect; checked as soon as the first peer has been found."
            expected = ["", comment, *expected, ""]
        nodes = "".join(f'\n    "{node}",' for node in self.nodes)
        sha256 = ""
        if self.sha256 is not None:
            comment = "# What sha256sum prints for the file; checked once at the end."
            sha256 = f'\n{comment}\nsha256 = "{self.sha256}"\n'
        return _TEMPLATE.format(
            hash_key=format_hash_key(self.hash_key),
            expected="\n".join(expected),
            nodes=nodes + "\n" if nodes else "",
            sha256=sha256,
            secret=lines_for(self.secrets, self.secret_file),
        )


@define
class DescriptorParser:
    """Reads descriptors in each of their forms.

    Attributes:
        signers: refuse what is not signed by one of them; ``None`` takes no notice of signatures.
            A reload puts others here.
        credentials: where the service manager put secret files, if it did (``secretfile``).
    """

    signers: Signers | None = None
    credentials: str | None = field(factory=lambda: os.environ.get(CREDENTIALS))

    def parse(
        self,
        text: str | bytes,
        source: str = "descriptor",
        signature: bytes | None = None,
        path: str | None = None,
    ) -> Descriptor:
        """Return what the text of a descriptor file says.

        Args:
            text: TOML, or JSON when its first character that is not blank is ``{``.
            source: what to call it in errors.
            signature: the text of its signature file.
            path: of the file, if it came from one; only then is a ``secret_file`` read.

        Raises:
            DescriptorError: for everything that is not a well-formed descriptor, and first of all
                for one that none of ``signers`` signed.
        """
        signed_by = None
        if self.signers is not None:
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            signed_by = self.signers.check(data, signature, source).words
        decoded = _decode(text, source)
        is_json = decoded.lstrip(" \t\r\n").startswith("{")
        lines = outline(decoded, known=_FIELDS + _SECRETS, is_json=is_json, source=source)
        values = _load_json(decoded, source) if is_json else _load_toml(decoded, source)
        checked = _Checked(values, lines, source, path, self.credentials)
        return evolve(checked.descriptor(), signed_by=signed_by)

    def parse_file(self, path: str) -> Descriptor:
        """Return what a descriptor file says. Never waits, whatever the path names.

        Raises:
            DescriptorError: as :meth:`parse`, or the file cannot be read or is no regular file.
        """
        data = read_file(path)
        signature = None if self.signers is None else read_signature(path)
        return self.parse(data, path, signature, path)

    def parse_uri(self, text: str) -> Descriptor:
        """Return what the one-line form says.

        Raises:
            DescriptorError: for everything :meth:`Descriptor.to_uri` could not have written,
                but for letter case and the order of parameters; always where ``signers`` are given.
        """
        if self.signers is not None:
            raise UntrustedDescriptor(
                "one line cannot carry a signature, and only signed descriptors are accepted here",
                remedy=f"use the descriptor file with its {SUFFIX} beside it",
                source="one-line descriptor",
            )
        return _Checked(_split_uri(text), Outline({}, {}), "one-line descriptor").descriptor()


@frozen
class _Checked:
    """Values as a parser gave them, each checked on its way out."""

    values: dict[str, Any]
    lines: Outline
    source: str
    path: str | None = None
    credentials: str | None = None

    def descriptor(self) -> Descriptor:
        length = self.number("length", limits.LENGTH_MAX)
        secrets, secret_file = self.secrets()
        return Descriptor(
            hash_key=self.hash_key(),
            nodes=self.nodes(),
            name=self.name(),
            length=length,
            piece_length=self.piece_length(length or 0),
            sha256=self.sha256(),
            secrets=secrets,
            secret_file=secret_file,
            source=self.source,
        )

    def secrets(self) -> tuple[tuple[Secret, ...], str | None]:
        try:
            return declared(self.values, self.path, self.credentials)
        except BadSecret as error:
            self.fail(error.field, error.reason, error.remedy, error.entry)

    def fail(self, key: str, reason: str, remedy: str, entry: int | None = None) -> NoReturn:
        line = self.lines.keys.get(key)
        entries = self.lines.entries.get(key, [])
        if entry is not None and entry < len(entries):
            line = entries[entry]
        raise DescriptorError(reason, remedy=remedy, source=self.source, line=line, field=key)

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if isinstance(value, str):
            return value
        if key in self.values:
            self.fail(key, f"is {_kind(value)}, not text", "put it in quotation marks")
        return None

    def number(self, key: str, largest: int) -> int | None:
        value = self.values.get(key)
        if type(value) is not int:  # a bool would be an int, too
            if key in self.values:
                self.fail(key, f"is {_kind(value)}, not a whole number", "write only digits")
            return None
        if not 0 <= value <= largest:
            self.fail(key, f"is outside 0 to {largest}", _MAKE_ANEW)
        return value

    def hash_key(self) -> HashKey:
        text = self.text("hash_key")
        if text is None:
            self.fail("hash_key", "is missing", "p2pdist make prints it: b3: and 64 digits")
        try:
            return parse_hash_key(text)
        except ValueError as error:
            self.fail("hash_key", *_reason_and_remedy(error))

    def name(self) -> str | None:
        text = self.text("name")
        try:
            return None if text is None else check_component(text)
        except UnsafeName as error:
            reason = f"{text!a:.80} cannot be used: {error.reason}"
            self.fail("name", reason, "give one plain file name, without folders")

    def piece_length(self, length: int) -> int | None:
        value = self.number("piece_length", limits.PIECE_LENGTH_MAX)
        try:
            if value is not None:
                check_piece_length(value, length)
        except ValueError as error:
            self.fail("piece_length", f"{value} does not fit: {error}", _MAKE_ANEW)
        return value

    def sha256(self) -> str | None:
        text = self.text("sha256")
        if text is not None and not re.fullmatch("[0-9a-fA-F]{64}", text):
            remedy = "expected the 64 hexadecimal digits that sha256sum prints"
            self.fail("sha256", f"{text!a:.80} is no SHA-256 sum", remedy)
        return None if text is None else text.lower()

    def nodes(self) -> tuple[HostPort, ...]:
        entries = self.values.get("nodes", [])
        if not isinstance(entries, list):
            self.fail("nodes", f"is {_kind(entries)}, not a list", 'write ["host:port", ...]')
        if len(entries) > limits.DESCRIPTOR_NODES:
            reason = f"holds more than {limits.DESCRIPTOR_NODES} entries"
            self.fail("nodes", reason, "a few nodes are enough: they know the others")
        places: dict[HostPort, int] = {}
        for index, entry in enumerate(entries):
            try:
                node = _node(entry)
            except ValueError as error:
                self.fail("nodes", *_reason_and_remedy(error), entry=index)
            if node in places:
                reason = f"{node} is entry {places[node] + 1} already"
                self.fail("nodes", reason, "remove one of them", entry=index)
            places[node] = index
        return tuple(places)


def _node(entry: object) -> HostPort:
    """Return the node that ``"host:port"`` or ``{ip = ..., port = ...}`` names.

    Raises:
        ValueError: reason and remedy, parted by a semicolon.
    """
    if isinstance(entry, str):
        return parse_host_port(entry)
    expected = 'expected "host:port" or {ip = "10.0.0.5", port = 7667}'
    if not isinstance(entry, dict):
        raise ValueError(f"an entry is {_kind(entry)}; {expected}")  # noqa: TRY004 -- of the text
    if not entry.keys() <= {*_NODE_KEYS} or ("ip" in entry) == ("host" in entry):
        raise ValueError(f"a table needs ip or host, and may have port, but no more; {expected}")
    host = entry.get("ip", entry.get("host"))
    port = entry.get("port", limits.DEFAULT_PORT)
    if not isinstance(host, str) or type(port) is not int or not 0 < port < 65536:
        raise ValueError(f"host must be text, port a number from 1 to 65535; {expected}")
    if "ip" in entry and canonical_ip(host) is None:
        raise ValueError(f"{host[:80]!a} is no IP address; write host = for names")
    return parse_host_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _reason_and_remedy(error: ValueError) -> tuple[str, str]:
    reason, _, remedy = str(error).rpartition("; ")
    return reason, remedy


def _kind(value: object) -> str:
    """Say in a descriptor's words what a value is."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {str: "text", int: "a number", float: "a fraction", list: "a list", dict: "a table"}
    return kinds.get(type(value), "something else")


# --- text to values ---


def read_file(path: str) -> bytes:
    """Return the bytes of a descriptor file, ``limits.DESCRIPTOR_BYTES`` and one more to tell.

    Raises:
        DescriptorError: it cannot be read or is no regular file.
    """
    try:
        return read_small(path, limits.DESCRIPTOR_BYTES)
    except Unreadable as error:
        remedy = "give the path of a descriptor, as written by p2pdist make"
        raise DescriptorError(str(error), remedy=remedy, source=path) from error


def read_signature(path: str) -> bytes | None:
    """Return the text of a descriptor's signature file, or ``None`` where there is none.

    Raises:
        DescriptorError: it cannot be read.
    """
    path += SUFFIX
    try:
        return read_small(path, limits.SIGNATURE_BYTES)
    except Unreadable as error:
        if error.missing:
            return None
        remedy = "put the signature there, as written by p2pdist sign"
        raise DescriptorError(str(error), remedy=remedy, source=path) from error


def _decode(text: str | bytes, source: str) -> str:
    """Return the text, at most ``limits.DESCRIPTOR_BYTES`` of UTF-8 without NUL."""

    def fail(reason: str, remedy: str, at: int | None = None) -> NoReturn:
        line = None if at is None else data.count(b"\n", 0, at) + 1
        raise DescriptorError(reason, remedy=remedy, source=source, line=line)

    # Lone surrogates become bytes that are refused below, like any other invalid UTF-8.
    head = text[: limits.DESCRIPTOR_BYTES + 1]
    data = head.encode("utf-8", "surrogatepass") if isinstance(head, str) else head
    if len(data) > limits.DESCRIPTOR_BYTES:
        fail(
            f"is larger than {limits.DESCRIPTOR_BYTES} bytes",
            "a descriptor is a small text file; is this the content itself?",
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        fail("is UTF-16", "save it as UTF-8", 0)
    if b"\0" in data:
        fail("holds a NUL byte", "a descriptor is a text file", data.index(b"\0"))
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        fail("is not UTF-8 text", "a descriptor is a text file; save it as UTF-8", error.start)


def _load_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        match = _PARSER_LINE.search(str(error))
        line = text.count("\n") + 1
        if match and match[1]:
            line = int(match[1])
        reason = _PARSER_LINE.sub("", str(error))
        _fail_syntax(f"no TOML: {reason}", source, line)


def _load_json(text: str, source: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        _fail_syntax(f"no JSON: {error.msg}", source, error.lineno)
    except (ValueError, RecursionError) as error:
        _fail_syntax(f"no JSON: {error}", source, 1)
    assert isinstance(values, dict), "the text begins with a brace"
    return values


def _fail_syntax(reason: str, source: str, line: int) -> NoReturn:
    remedy = 'lines look like name = "file.iso" (TOML) or "name": "file.iso", (JSON)'
    raise DescriptorError(reason[:200], remedy=remedy, source=source, line=line)


def _split_uri(text: str) -> dict[str, Any]:
    """Return the one-line form as values of the same shape as a file's."""

    def fail(reason: str, key: str | None = None) -> NoReturn:
        remedy = "expected p2pdist:b3:DIGITS?n=HOST:PORT&name=NAME, as printed by p2pdist make"
        raise DescriptorError(reason, remedy=remedy, source="one-line descriptor", field=key)

    if len(text) > limits.DESCRIPTOR_BYTES:
        fail(f"is longer than {limits.DESCRIPTOR_BYTES} characters")
    if not (text.isascii() and text.isprintable()) or " " in text:
        fail("holds a blank or another character that has to be written as %XX")
    if not text.startswith(URI_SCHEME):
        fail(f"does not begin with {URI_SCHEME}")
    hash_key, has_query, query = text.removeprefix(URI_SCHEME).partition("?")
    values: dict[str, Any] = {"hash_key": hash_key, "nodes": []}
    for parameter in query.split("&") if has_query else ():
        key, equals, escaped = parameter.partition("=")
        if not equals or _BAD_ESCAPE.search(escaped):
            fail(f"{parameter[:80]!a} is no parameter")
        try:
            value = unquote_to_bytes(escaped).decode("utf-8")
        except UnicodeDecodeError:
            fail(f"{escaped[:80]!a} is not UTF-8", key if key == "name" else None)
        if key == "n":
            values["nodes"].append(value)
        elif key == "name" and "name" not in values:
            values["name"] = value
        else:
            fail(f"{key[:80]!a} is there twice" if key == "name" else f"unknown {key[:80]!a}")
    return values
