"""Where the keys of a descriptor stand, so that errors can name lines.

Job: one quick pass over TOML or JSON text before the real parser sees it. It finds the line of each
key and of each entry of a list, and refuses what a descriptor never needs. Does NOT understand
values: what it accepts may still be nonsense, and the parser says so.

Threat: within 64 KiB, ``a.a.a...=1`` keeps tomllib busy for 20 seconds, a number of 5000 digits or
1000 brackets end in errors without a line. Strings, comments and brackets are read exactly as the
parsers read them, so nothing can be hidden from this pass. Tests: ``test_outline``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from typing import Final, NoReturn

from attrs import define, field, frozen

from p2pdist import limits
from p2pdist.errors import DescriptorError

_TOKEN: Final = re.compile(
    r"""
      (?P<blank>  (?: [ \t\r\n]+ | \#[^\n]* )+ )
    | (?P<string> \"{3} (?:\\.|[^\\])*? \"{3} \"{0,2}
                | '{3} .*? '{3} '{0,2}
                | (?!\"{3}) " (?:\\.|[^"\\\n])* "
                | (?!'{3}) ' [^'\n]* ' )
    | (?P<open>   [\[{] )
    | (?P<close>  [\]}] )
    | (?P<comma>  , )
    | (?P<equals> [=:] )
    | (?P<bare>   [\w+-]+ )
    """,
    re.ASCII | re.DOTALL | re.VERBOSE,
)
_SYNTAX_REMEDY: Final = 'lines look like name = "file.iso"; see descriptors/ for examples'


@frozen
class Outline:
    """Lines, counted from 1.

    Attributes:
        keys: of each key.
        entries: of each entry of the list under a key, if it is a list.
    """

    keys: dict[str, int]
    entries: dict[str, list[int]]


def outline(text: str, *, known: Collection[str], is_json: bool, source: str) -> Outline:
    """Return where the keys of a flat TOML or JSON table stand.

    Args:
        text: of the descriptor, with UNIX or Windows line ends.
        known: every other key is refused.
        is_json: JSON (one table in braces) or TOML.
        source: for errors.

    Raises:
        DescriptorError: unknown keys, keys there twice, tables and dotted keys, strings without
            end, lists in lists, words of over ``limits.DESCRIPTOR_WORD`` characters, lists of over
            ``limits.DESCRIPTOR_NODES`` entries, characters no descriptor holds outside strings.
    """
    scan = _Scan(known, source, is_json)
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            scan.refuse(text[position])
        scan.take(match.lastgroup or "", match[0])
        position = match.end()
    return Outline(scan.keys, scan.entries)


@define
class _Scan:
    """The pass itself.

    A key is a word or string before ``=`` (JSON: ``:``); it is the table's own if it stands at
    depth 0 (JSON: 1, inside the braces). An entry begins after ``[`` or a comma one level deeper.
    """

    known: Collection[str]
    source: str
    is_json: bool
    keys: dict[str, int] = field(init=False, factory=dict)
    entries: dict[str, list[int]] = field(init=False, factory=dict)
    _key: str | None = field(init=False, default=None)
    _inner_keys: set[str] = field(init=False, factory=set)
    _line: int = field(init=False, default=1)
    _depth: int = field(init=False, default=0)
    _last: tuple[str, str] = field(init=False, default=("", ""))

    def take(self, kind: str, text: str) -> None:
        """Go on by one token."""
        if kind in {"string", "bare", "open"}:
            self._begin_value(kind, text)
        elif kind == "close":
            self._depth = max(0, self._depth - 1)
        elif kind == "equals" and text == (":" if self.is_json else "="):
            self._see_key()
        if kind != "blank":
            self._last = kind, text
        self._line += text.count("\n")

    @property
    def _here(self) -> str | None:
        """The key whose value this seems to be: inside its brackets or on its line."""
        if self._key is None:
            return None
        inside = self._depth > int(self.is_json) or self.keys[self._key] == self._line
        return self._key if inside else None

    def _begin_value(self, kind: str, text: str) -> None:
        base = int(self.is_json)
        if self._key is not None and self._depth == base + 1 and self._last[0] in {"open", "comma"}:
            lines = self.entries.setdefault(self._key, [])
            lines.append(self._line)
            if len(lines) > limits.DESCRIPTOR_NODES:
                self._fail(
                    f"holds more than {limits.DESCRIPTOR_NODES} entries",
                    "a few nodes are enough: they know the others"
                    if self._key == "nodes"
                    else "that many are not read",
                    self._key,
                )
        if kind == "bare" and len(text) > limits.DESCRIPTOR_WORD:
            self._fail(f"a word or number of {len(text)} characters", "shorten it", self._here)
        if kind == "open":
            if not self.is_json and self._depth == 0 and self._last[0] != "equals":
                self._fail("a [table] has no place here", "write all keys at the top level")
            self._depth += 1
            self._inner_keys.clear()
            if self._depth > base + 2:
                self._fail("brackets are nested too deeply", _SYNTAX_REMEDY, self._here)

    def _see_key(self) -> None:
        kind, text = self._last
        key = text[1:-1] if kind == "string" else text
        if self._depth > int(self.is_json):
            if key in self._inner_keys:
                self._fail(f"{key[:80]!a} stands here twice", "remove one of them", self._key)
            self._inner_keys.add(key)
            return
        if key in self.keys:
            self._fail(f"stands here and in line {self.keys[key]}", "remove one of them", key)
        if key not in self.known:
            near = difflib.get_close_matches(key[:80], self.known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(self.known)}"
            self._fail(f"unknown key {key[:80]!a}", hint)
        self._key = key
        self.keys[key] = self._line

    def refuse(self, character: str) -> NoReturn:
        """Say what is wrong with a character where no token begins."""
        if character in "\"'":
            self._fail("a string that begins here does not end", "close it", self._here)
        if character == ".":
            self._fail(
                "a dot outside quotation marks",
                "put names and addresses in quotation marks; numbers are whole, keys without dots",
                self._here,
            )
        self._fail(
            f"{character!a} outside quotation marks", 'text stands in "quotation marks"', self._here
        )

    def _fail(self, reason: str, remedy: str, key: str | None = None) -> NoReturn:
        raise DescriptorError(reason, remedy=remedy, source=self.source, line=self._line, field=key)
