"""Who may sign: OpenSSH's allowed-signers files, and lists of revoked keys.

Job: read both, say of a descriptor's bytes and its signature whether they are acceptable, and if
not what to do. Does NOT compute with keys (``signatures``).

Threat: the signature comes from whoever sent the descriptor; no key is used that the file does not
list. The file itself is the operator's, but a line that is not understood might be the one that
was to forbid something: it is refused with its number, never skipped. Source: ssh-keygen(1),
"ALLOWED SIGNERS"; sshsig.c. Tests: ``test_signers``, ``test_sshkeygen``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Final, TypeVar

from attrs import evolve, frozen

from p2pdist import limits
from p2pdist.errors import ConfigurationError, UntrustedDescriptor
from p2pdist.signatures import (
    KEY_TYPES,
    NAMESPACE,
    SUFFIX,
    PublicKey,
    Signature,
    parse_signature,
)
from p2pdist.smallfile import Unreadable, read_small

T = TypeVar("T")

_WORD: Final = re.compile(rb"[^ \t]+")
_PRINCIPALS: Final = re.compile(rb'"([^"]*)"(?=[ \t])|([^ \t"]+)(?=[ \t])')
_OPTION: Final = re.compile(r'([A-Za-z-]+)(?:="((?:[^"\\]|\\"|\\(?!"))*)")?(,|\Z)')
_OPTIONS_END: Final = re.compile(rb'(?:[^ \t"\\]|\\"|\\(?!")|"(?:[^"\\]|\\"|\\(?!"))*")+(?=[ \t])')
_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z?)", re.ASCII)
_KRL: Final = b"SSHKRL\n\0"
_SIGNER_FORM: Final = f'release@example.org namespaces="{NAMESPACE}" ssh-ed25519 AAAA'
_KEY_FORM: Final = "ssh-ed25519 AAAA"


@frozen(kw_only=True)
class Signer:
    """One line of an allowed-signers file.

    Attributes:
        principals: whose key it is, as written; names for people here, nothing is matched.
        key: the key.
        namespaces: what it may sign, as patterns; ``None`` for everything.
        valid_after: from then on, in seconds since 1970; ``None`` since ever.
        valid_before: until then.
    """

    principals: str
    key: PublicKey
    namespaces: str | None = None
    valid_after: float | None = None
    valid_before: float | None = None

    @property
    def words(self) -> str:
        """Who it is, for people."""
        return f"{self.principals} ({self.key.fingerprint})"

    def objection(self, now_s: float) -> str | None:
        """Return why this line does not let its key sign descriptors now, or ``None``."""
        if self.namespaces is not None and not matches_list(NAMESPACE, self.namespaces):
            return f"may not sign for {NAMESPACE}, only for {self.namespaces!a:.80}"
        if self.valid_after is not None and now_s < self.valid_after:
            return f"is not valid before {_moment(self.valid_after)}"
        if self.valid_before is not None and now_s > self.valid_before:
            return f"has not been valid since {_moment(self.valid_before)}"
        return None


@frozen(kw_only=True)
class Signers:
    """Whose signatures are accepted.

    Attributes:
        source: the file's name, for messages.
        lines: what it says.
        revoked: blobs of keys that count no more, whatever it says.
        now: returns seconds since 1970, against which validity is held at each check.
    """

    source: str
    lines: tuple[Signer, ...]
    revoked: frozenset[bytes] = frozenset()
    now: Callable[[], float]

    def check(self, data: bytes, signature: bytes | None, source: str) -> Signer:
        """Return who signed ``data``.

        Args:
            data: the descriptor, byte for byte.
            signature: the text of its signature file, or ``None`` if there is none.
            source: the descriptor's name, for messages.

        Raises:
            DescriptorError: nobody who may.
        """
        if signature is None:
            raise _refusal(
                source,
                f"is not signed: there is no {source}{SUFFIX}",
                f"get it from where the descriptor comes from; who is listed in {self.source} "
                "makes it with p2pdist sign",
            )
        try:
            said = parse_signature(signature)
        except ValueError as error:
            reason = f"{source}{SUFFIX} cannot be used: {error}"
            remedy = "copy it again, or let p2pdist sign write it anew"
            raise _refusal(source, reason, remedy) from error
        signer = self._signer(said, source)
        if not said.covers(data):
            raise _refusal(
                source,
                f"is not what {said.key.fingerprint} signed: one of it and "
                f"{source}{SUFFIX} was changed or damaged",
                "get both again; what was changed on purpose has to be signed again",
            )
        return signer

    def _signer(self, said: Signature, source: str) -> Signer:
        """Return the line that lets the key sign; nothing is computed with the key yet."""
        if said.namespace != NAMESPACE:
            raise _refusal(
                source,
                f"was signed for {said.namespace[:40]!a}, which is another purpose",
                f"sign it with p2pdist sign, or ssh-keygen -Y sign -n {NAMESPACE}",
            )
        name = said.key.fingerprint
        if said.key.blob in self.revoked:
            raise _refusal(
                source, f"is signed with {name}, which is revoked", "sign with another key"
            )
        found = [line for line in self.lines if line.key.blob == said.key.blob]
        if not found:
            raise _refusal(
                source,
                f"is signed with {name}, which {self.source} does not list",
                "add a line for that key only if you know whose it is",
            )
        now_s = self.now()
        objections = [line.objection(now_s) for line in found]
        for line, objection in zip(found, objections, strict=True):
            if objection is None:
                return line
        reason = f"is signed with {name}, which {objections[0]} (says {self.source})"
        raise _refusal(source, reason, "sign with another key, or change that line")


def load_signers(path: str, now: Callable[[], float], revoked_path: str | None = None) -> Signers:
    """Read an allowed-signers file, and a file of revoked keys if there is one.

    Args:
        path: of the allowed-signers file.
        now: returns seconds since 1970.
        revoked_path: public keys, one a line.

    Raises:
        ConfigurationError: one cannot be read or used.
    """
    signers = parse_signers(_read(path), path, now)
    if revoked_path is None:
        return signers
    return evolve(signers, revoked=parse_revoked(_read(revoked_path), revoked_path))


def parse_signers(data: bytes, source: str, now: Callable[[], float]) -> Signers:
    """Return what the text of an allowed-signers file says.

    Raises:
        ConfigurationError: with file and line, for everything that is not understood.
    """
    lines = tuple(_each(_signer, _SIGNER_FORM, data, source))
    if not lines:
        raise ConfigurationError(f"{source}: names no signer; a line looks like: {_SIGNER_FORM}")
    return Signers(source=source, lines=lines, now=now)


def parse_revoked(data: bytes, source: str) -> frozenset[bytes]:
    """Return the blobs of the public keys in a text, one a line as in ``.pub`` files.

    Raises:
        ConfigurationError: with file and line, for everything that is not understood.
    """
    if data.startswith(_KRL):
        raise ConfigurationError(
            f"{source}: is a binary revocation list; give the revoked public keys, one a line"
        )
    return frozenset(key.blob for key in _each(_key, _KEY_FORM, data, source))


# --- lines ---


def _read(path: str) -> bytes:
    try:
        return read_small(path, limits.SIGNERS_BYTES)
    except Unreadable as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _lines(data: bytes, source: str) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of every line that says something."""
    if len(data) > limits.SIGNERS_BYTES:
        raise ConfigurationError(f"{source}: is larger than {limits.SIGNERS_BYTES} bytes")
    count = 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.rstrip(b"\r").strip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        count += 1
        if count > limits.SIGNERS:
            raise ConfigurationError(f"{source}:{number}: more than {limits.SIGNERS} keys")
        if len(line) > limits.SIGNER_LINE_BYTES:
            bound = f"is longer than {limits.SIGNER_LINE_BYTES} bytes"
            raise ConfigurationError(f"{source}:{number}: {bound}")
        yield number, line


def _each(read: Callable[[bytes], T], form: str, data: bytes, source: str) -> Iterator[T]:
    """Yield what ``read`` makes of every line; lines look like ``form``."""
    for number, line in _lines(data, source):
        yield _understood(read, line, f"{source}:{number}", form)


def _understood(read: Callable[[bytes], T], line: bytes, where: str, form: str) -> T:
    try:
        return read(line)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}; lines look like: {form}") from error


def _signer(line: bytes) -> Signer:
    """Return what one line of an allowed-signers file says; a ValueError says why not."""
    found = _PRINCIPALS.match(line)
    if found is None:
        raise ValueError("there is no key after the first word, or a quotation mark is alone")
    principals = (found[1] if found[1] is not None else found[2]).decode("utf-8", "replace")
    if principals in KEY_TYPES:
        raise ValueError("there is no name before the key")
    rest = line[found.end() :].lstrip(b" \t")
    options: dict[str, str] = {}
    word = _WORD.match(rest)
    if word is not None and _text(word[0]) not in KEY_TYPES:
        end = _OPTIONS_END.match(rest)
        if end is None:
            raise ValueError("there is no key, or a quotation mark is alone")
        options = _options(_text(end[0]))
        rest = rest[end.end() :].lstrip(b" \t")
    after, before = (_time(options, f"valid-{side}") for side in ("after", "before"))
    if after is not None and before is not None and before <= after:
        raise ValueError("valid-before is not later than valid-after")
    return Signer(
        principals=principals,
        key=_key(rest),
        namespaces=options.get("namespaces"),
        valid_after=after,
        valid_before=before,
    )


def _key(text: bytes) -> PublicKey:
    """Return the key that a text begins with; what follows is a comment."""
    words = _WORD.findall(text)
    if len(words) < 2:
        raise ValueError("there is no public key")
    return PublicKey.from_text(_text(words[0]), _text(words[1]))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _options(text: str) -> dict[str, str]:
    """Return the options of a line, by name in small letters."""
    options: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _OPTION.match(text, at)
        name = "" if found is None else found[1].lower()
        if found is not None and name == "cert-authority":
            raise ValueError("certificates are not taken; list the signers' own keys instead")
        if found is None or name not in {"namespaces", "valid-after", "valid-before"}:
            raise ValueError(
                f"{text[at : at + 60]!a} is neither an option nor a type of key that is taken"
            )
        if found[2] is None:
            raise ValueError(f'{name} needs a value, as in {name}="..."')
        if name in options:
            raise ValueError(f"{name} is there twice")
        options[name] = found[2].replace('\\"', '"')
        at = found.end()
        if found[3] == "," and at == len(text):
            raise ValueError("the options end with a comma")
    return options


def _time(options: dict[str, str], name: str) -> float | None:
    """Return the seconds since 1970 of an option; local time unless it ends with ``Z``."""
    text = options.get(name)
    if text is None:
        return None
    found = _TIME.fullmatch(text)
    # A month 0, which no calendar has, for what is no time at all: one way out for both.
    parts = [int(part or 0) for part in found.groups()[:-1]] if found else [0, 0, 0]
    zone = timezone.utc if found and found[7] else None
    try:
        return datetime(*parts, tzinfo=zone).timestamp()  # type: ignore[misc, arg-type]
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{name}: {text[:40]!a} is no time; write YYYYMMDD or YYYYMMDDHHMM[SS], with Z for UTC"
        ) from error


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _refusal(source: str, reason: str, remedy: str) -> UntrustedDescriptor:
    return UntrustedDescriptor(reason, remedy=remedy, source=source)


# --- patterns ---


def matches_list(text: str, patterns: str) -> bool:
    """Tell whether one of the comma-separated ``patterns`` fits, and none that begins with ``!``.

    Source: match_pattern_list of OpenSSH.
    """
    matched = False
    for pattern in patterns.split(","):
        if matches(text, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def matches(text: str, pattern: str) -> bool:
    """Tell whether ``pattern`` fits all of ``text``; ``*`` is any text, ``?`` any character.

    Takes at most len(text) * len(pattern) steps, whatever the pattern.
    """
    at = of = 0
    star: int | None = None
    resume = 0
    while at < len(text):
        if of < len(pattern) and pattern[of] == "*":
            star, resume = of, at
            of += 1
        elif of < len(pattern) and pattern[of] in {"?", text[at]}:
            at += 1
            of += 1
        elif star is not None:
            resume += 1
            at, of = resume, star + 1
        else:
            return False
    return not pattern[of:].strip("*")
