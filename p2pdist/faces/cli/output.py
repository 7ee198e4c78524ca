"""What all commands share on the terminal: progress, JSON, errors, sizes, harmless names.

Job: results go to standard output, everything else to standard error; a terminal gets a bar, a log
file plain lines every few seconds. Does NOT know what any command does.
Threat: names and addresses from outside could steer the terminal or forge lines: everything that is
printed goes through :func:`printable`. Tests: ``test_cli_output``.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

import click
from attrs import define, field, frozen

from p2pdist import limits
from p2pdist.errors import P2PDistError

P = ParamSpec("P")
R = TypeVar("R")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_RESULT = "p2pdist.result"
"""Whether a result was printed, in the command's context."""
_SUFFIXES = {"": 1, "K": limits.KIB, "M": limits.MIB, "G": limits.GIB, "T": limits.TIB}


# --- text ---


def printable(text: str, width: int | None = limits.PRINTED_CHARACTERS) -> str:
    """Return ``text`` on one line, at most ``width`` characters, with what could do harm escaped.

    Escapes control, format and undecodable characters as Python writes them; cuts in the middle,
    because both ends of a path tell more. ``None`` cuts nothing, for text that is copied.
    """
    safe = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    if width is None or len(safe) <= width:
        return safe
    head = (width - 1) // 2
    return f"{safe[:head]}…{safe[len(safe) - (width - 1 - head) :]}"


def format_bytes(count: float) -> str:
    """Return a size for people: ``"0 B"``, ``"1.5 MiB"``, ``"231 GiB"``."""
    size = float(count)
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    digits = 1 if unit and size < 99.95 else 0
    return f"{size:.{digits}f} {_UNITS[unit]}"


def format_rate(bytes_per_s: float) -> str:
    """Return a speed for people."""
    return f"{format_bytes(bytes_per_s)}/s"


def format_duration(seconds: float) -> str:
    """Return a time span for people: ``8 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 60:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes} min {whole % 60:02} s"
    if days < 1:
        return f"{hours} h {minutes % 60:02} min"
    return f"{days} d {hours % 24} h"


def format_count(count: float) -> str:
    """Return a number for people: ``1,000,000``."""
    return f"{count:,.0f}"


def parse_size(text: str) -> int:
    """Return the bytes an option names: ``4194304``, ``4096K``, ``4M`` or ``4MiB``, all the same.

    Raises:
        click.BadParameter: none of these.
    """
    short = text.strip().upper().removesuffix("B").removesuffix("I")
    digits = short.rstrip("KMGT")
    factor = _SUFFIXES.get(short[len(digits) :])
    if factor is None or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise click.BadParameter(f"{printable(text, 40)!r} is no size such as 4194304 or 4MiB")
    return int(digits) * factor


# --- errors ---


def check_timeout(_context: click.Context, _option: click.Parameter, value: float | None) -> Any:
    """Return the seconds of a ``--timeout``.

    Raises:
        click.BadParameter: they are no number; no range refuses that.
    """
    if value is not None and math.isnan(value):
        raise click.BadParameter("expected a number of seconds")
    return value


def timeout_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--timeout``: when to give up waiting for others."""
    return click.option(
        "--timeout",
        type=click.FloatRange(0),
        callback=check_timeout,
        metavar="S",
        help="Give up after S seconds.",
    )(command)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: an escaping P2PDistError becomes one line and its class's exit code.

    With ``--json`` it becomes a line of JSON as well, where no result was printed before. An
    interrupt becomes a word.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except P2PDistError as error:
            report(error, as_json=bool(kwargs.get("as_json")))
            raise click.exceptions.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            raise click.exceptions.Exit(1) from None

    return run


def report(error: P2PDistError, *, as_json: bool = False) -> None:
    """Print the one line of an error to standard error; for programs an object, as the node's."""
    text = str(error)
    click.echo(f"p2pdist: {printable(text, None)}", err=True)
    if as_json and not click.get_current_context().meta.get(_RESULT):
        click.echo(json.dumps({"error": {"code": error.exit_code, "message": text}}))


# --- output ---


class Meter(Protocol):
    """Shows how far some work is; its methods may be called from any thread, one at a time."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show ``done`` of ``total`` (bytes mostly), and what the work waits for, if anything."""


@frozen
class Output:
    """Where a command's words go.

    Attributes:
        as_json: the result is for programs; nothing else goes to standard output.
        now: seconds of any clock that only goes forward, for the pace of plain lines.
    """

    as_json: bool = False
    now: Callable[[], float] = time.perf_counter

    def line(self, text: str) -> None:
        """Print a line of the result, unless it is for programs."""
        if not self.as_json:
            click.echo(printable(text, None))

    def note(self, text: str) -> None:
        """Print a remark to standard error."""
        click.echo(printable(text, None), err=True)

    def result(self, values: Mapping[str, Any]) -> None:
        """Print the result as one line of JSON, if it is for programs."""
        if self.as_json:
            context = click.get_current_context(silent=True)
            if context is not None:
                context.meta[_RESULT] = True
            click.echo(json.dumps(values))

    @contextmanager
    def progress(
        self, label: str, amount: Callable[[float], str] = format_bytes
    ) -> Iterator[Meter]:
        """Show a bar on a terminal, else a plain line every few seconds, while the block runs.

        ``amount`` words what the meter counts.
        """
        if sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}:
            with _bar(label, amount) as meter:
                yield meter
        else:
            yield _PlainMeter(label, self.note, self.now, amount)


@define
class _PlainMeter:
    """Lines for a log: none for short work, then one every ``limits.PROGRESS_LINE_S``."""

    label: str
    write: Callable[[str], None]
    now: Callable[[], float]
    amount: Callable[[float], str] = format_bytes
    _written: float = field(init=False)
    _base: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._written = self.now()

    def update(self, done: int, total: int, note: str = "") -> None:
        now = self.now()
        self._base = min(self._base, done)  # less than before: other work has begun
        elapsed = now - self._written
        if elapsed < limits.PROGRESS_LINE_S:
            return
        rate = (done - self._base) / elapsed  # since the last line: what was there is no speed
        self._written, self._base = now, done
        words = [
            f"{self.label}: {done * 100 // total}% of {self.amount(total)}"
            if total
            else f"{self.label}: {self.amount(done)}",
            f"{self.amount(rate)}/s",
        ]
        if rate > 0 and done < total:
            words.append(f"{format_duration((total - done) / rate)} left")
        if note:
            words.append(note)
        self.write(", ".join(words))


@contextmanager
def _bar(label: str, amount: Callable[[float], str]) -> Iterator[Meter]:
    """Show a bar of rich, which is imported only here: it takes longer to load than most work."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    def words(template: str, column: Column) -> TextColumn:
        return TextColumn(template, markup=False, table_column=column)

    columns = (
        words("{task.description}", Column(no_wrap=True, max_width=32)),
        BarColumn(bar_width=16, table_column=Column(min_width=4)),
        words("{task.fields[size]}", Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        words("{task.fields[note]}", Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task(printable(label), total=None, note="", size="")

        class Bar:
            def update(self, done: int, total: int, note: str = "") -> None:
                speed = bar.tasks[0].speed
                size = f"{done * 100 // total}% of {amount(total)}" if total else ""
                if speed:
                    size += f", {amount(speed)}/s"
                bar.update(
                    task, completed=done, total=total or None, size=size, note=printable(note)
                )

        yield Bar()


@contextmanager
def board() -> Iterator[Callable[[list[tuple[str, int]]], None]]:
    """Show how far several things are, in percent: bars on a terminal, else changed lines."""
    if not sys.stderr.isatty():
        last: list[list[tuple[str, int]]] = [[]]

        def lines(rows: list[tuple[str, int]]) -> None:
            if rows != last[0]:
                last[0] = rows
                text = "  ".join(f"{name} {percent:3} %" for name, percent in rows)
                click.echo(printable(text, None), err=True)

        yield lines
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(rows: list[tuple[str, int]]) -> None:
            for name, percent in rows:
                if name not in tasks:
                    tasks[name] = bars.add_task(escape(printable(name)), total=100)
                bars.update(tasks[name], completed=percent)

        yield show
