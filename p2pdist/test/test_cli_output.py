"""Tests of what the commands share on the terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator

import click
from click.testing import CliRunner, Result
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import AlreadyRunning, NoPeersFound, StorageError, UnsafeName
from p2pdist.faces.cli import output
from p2pdist.faces.cli.output import Output, format_count
from p2pdist.test.support import TestCase, given


def run(function: Callable[[], object]) -> Result:
    """Run a function as a command of its own and return what came of it."""
    return CliRunner().invoke(click.command()(output.reports_errors(function)))


class TextTests(TestCase):
    """Text that is safe and short enough to print."""

    def test_printable(self):
        """Usual text stays, what could steer a terminal is escaped, long text loses its middle."""
        self.assertEqual("naïve 日本 'x'", output.printable("naïve 日本 'x'"))
        self.assertEqual(r"a\x1b[31m\nb\u202e\udcff", output.printable("a\x1b[31m\nb\u202e\udcff"))
        self.assertEqual("abc…xyz", output.printable("abc" + "-" * 50 + "xyz", 7))
        longest = "x" * limits.PRINTED_CHARACTERS
        self.assertEqual(longest, output.printable(longest))
        self.assertEqual(limits.PRINTED_CHARACTERS, len(output.printable(longest + "x")))
        self.assertEqual(longest + "x", output.printable(longest + "x", None))

    @given(st.text(max_size=80), st.integers(1, 60))
    def test_any_text_is_one_short_line(self, text: str, width: int):
        """Whatever the text, the line is printable and not wider than asked."""
        line = output.printable(text, width)
        self.assertTrue(line.isprintable())
        self.assertLessEqual(len(line), width)

    def test_bytes(self):
        """Sizes in binary units, with a digit after the point where it says something."""
        for count, expected in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (100 * limits.KIB, "100 KiB"),
            (limits.MIB, "1.0 MiB"),
            (3.25 * limits.GIB, "3.2 GiB"),
            (8 * limits.TIB, "8.0 TiB"),
            (5000 * limits.TIB, "5000 TiB"),
        ):
            self.assertEqual(expected, output.format_bytes(count))
        self.assertEqual("2.0 MiB/s", output.format_rate(2 * limits.MIB))

    def test_durations(self):
        """Time spans with two units at most."""
        for seconds, expected in (
            (0.4, "0 s"),
            (59.6, "1 min 00 s"),
            (200, "3 min 20 s"),
            (3600, "1 h 00 min"),
            (7500, "2 h 05 min"),
            (86400 * 3 + 3600 * 4, "3 d 4 h"),
        ):
            self.assertEqual(expected, output.format_duration(seconds))

    def test_sizes(self):
        """Sizes with and without units, in any case; slips are usage errors."""
        for text in ("4194304", "4096K", "4M", "4MiB", "4mib", " 4MB "):
            self.assertEqual(4 * limits.MIB, output.parse_size(text))
        self.assertEqual(3 * limits.TIB, output.parse_size("3T"))
        for text in ("", "M", "-1", "1.5M", "4X", "4MK", "0x10", "٣", "9" * 30, "4 iM\x1b"):
            error = self.assertRaises(click.BadParameter, output.parse_size, text)
            self.assertTrue(error.message.isprintable())


class ErrorTests(TestCase):
    """How errors leave a command (decision 28)."""

    def test_one_line_and_the_exit_code(self):
        """A P2PDistError is one line on standard error, and the exit code of its class."""
        for error, code in (
            (StorageError("a\nb\x1b[0m"), 4),
            (AlreadyRunning("x"), 5),
            (NoPeersFound(asked=1, answered=0, elapsed_s=2.0), 3),
            (UnsafeName("a\nb", "bad"), 2),
        ):

            def fail(error: Exception = error) -> None:
                raise error

            result = run(fail)
            self.assertEqual((code, ""), (result.exit_code, result.stdout))
            self.assertTrue(result.stderr.startswith("p2pdist: "))
            self.assertEqual(1, result.stderr.count("\n"))
            self.assertNotIn("\x1b", result.stderr)

    def test_for_programs(self):
        """With --json an error is one object too, unless a result stands there already."""

        @click.command()
        @click.option("--json", "as_json", is_flag=True)
        @click.option("--late", is_flag=True)
        @output.reports_errors
        def fail(*, as_json: bool, late: bool) -> None:
            if late:
                Output(as_json).result({"done": 1})
            raise StorageError("no\x1broom")

        for arguments, printed in (
            (["--json"], {"error": {"code": 4, "message": "no\x1broom"}}),
            (["--json", "--late"], {"done": 1}),
        ):
            result = CliRunner().invoke(fail, arguments)
            self.assertEqual((4, printed), (result.exit_code, json.loads(result.stdout)))
            self.assertIn("p2pdist: no", result.stderr)

    def test_interrupt(self):
        """Who interrupts is told that it stopped, and nothing else."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        result = run(interrupt)
        self.assertEqual((1, "", "stopped\n"), (result.exit_code, result.stdout, result.stderr))

    def test_others_pass(self):
        """Success is 0, usage is 2, and a bug of ours keeps its traceback."""

        def misuse() -> None:
            raise click.UsageError("x")

        def bug() -> None:
            raise ZeroDivisionError

        self.assertEqual(0, run(lambda: None).exit_code)
        self.assertEqual(2, run(misuse).exit_code)
        self.assertIsInstance(run(bug).exception, ZeroDivisionError)


class OutputTests(TestCase):
    """Results for people and for programs."""

    def test_for_people(self):
        """Lines go to standard output, notes to standard error, JSON nowhere."""

        def speak() -> None:
            words = Output()
            words.line("result\x07")
            words.note("remark")
            words.result({"a": 1})

        result = run(speak)
        self.assertEqual(("result\\x07\n", "remark\n"), (result.stdout, result.stderr))

    def test_for_programs(self):
        """With --json nothing but one line of JSON is on standard output."""

        def speak() -> None:
            words = Output(as_json=True)
            words.line("result")
            words.result({"a": "é\n"})

        result = run(speak)
        self.assertEqual({"a": "é\n"}, json.loads(result.stdout))
        self.assertEqual(1, result.stdout.count("\n"))


class _Screen(io.StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self) -> bool:
        return True


class ProgressTests(TestCase):
    """Progress in a log and on a terminal."""

    def test_plain_lines(self):
        """Without a terminal: a line every few seconds, with share, rate, rest and reason."""
        clock = [100.0]

        def work() -> None:
            with Output(now=lambda: clock[0]).progress("hashing a\n") as meter:
                for second in range(1, 12):
                    clock[0] = 100.0 + second * limits.PROGRESS_LINE_S / 5
                    meter.update(second * limits.MIB, 20 * limits.MIB, "disk" * (second > 5))

        result = run(work)
        self.assertEqual("", result.stdout)
        self.assertEqual(
            [
                "hashing a\\n: 25% of 20.0 MiB, 1.0 MiB/s, 15 s left",
                "hashing a\\n: 50% of 20.0 MiB, 1.0 MiB/s, 10 s left, disk",
            ],
            result.stderr.splitlines(),
        )

    def test_line_tells_of_now(self):
        """The speed is that since the last line, and 100 % is only what is whole."""
        clock = [0.0]
        total = 4000 * limits.MIB

        def work() -> None:
            with Output(now=lambda: clock[0]).progress("getting") as meter:
                for done in (3000 * limits.MIB, 3010 * limits.MIB, 0, total - 1, total - 1, total):
                    clock[0] += limits.PROGRESS_LINE_S
                    meter.update(done, total)

        lines = run(work).stderr.splitlines()
        self.assertEqual("getting: 75% of 3.9 GiB, 2.0 MiB/s, 8 min 15 s left", lines[1])
        self.assertEqual("getting: 0% of 3.9 GiB, 0 B/s", lines[2])
        self.assertTrue(lines[3].startswith("getting: 99% of"), lines[3])
        self.assertEqual("getting: 99% of 3.9 GiB, 0 B/s", lines[4])
        self.assertTrue(lines[5].startswith("getting: 100% of"), lines[5])

    def test_counts(self):
        """What is counted need not be bytes."""
        clock = [0.0]

        def work() -> None:
            with Output(now=lambda: clock[0]).progress("lookups", format_count) as meter:
                clock[0] += limits.PROGRESS_LINE_S
                meter.update(1500, 6000)

        self.assertEqual("lookups: 25% of 6,000, 300/s, 15 s left\n", run(work).stderr)

    def test_plain_lines_without_total(self):
        """A total that is not known yet, and no progress at all, are no trouble."""
        clock = [0.0]

        def work() -> None:
            with Output(now=lambda: clock[0]).progress("getting") as meter:
                for _ in range(2):
                    clock[0] += limits.PROGRESS_LINE_S
                    meter.update(0, 0)
                clock[0] += limits.PROGRESS_LINE_S
                meter.update(0, 5, "no peers")

        self.assertEqual(
            ["getting: 0 B, 0 B/s"] * 2 + ["getting: 0% of 5 B, 0 B/s, no peers"],
            run(work).stderr.splitlines(),
        )

    def test_terminal(self):
        """On a terminal there is a bar, and names cannot steer it."""
        with (
            self.terminal("xterm") as screen,
            Output().progress("hashing [red]\x1b]0;x\x07") as meter,
        ):
            meter.update(0, 0)
            meter.update(1, 2, "slow [disk]")
        shown = screen.getvalue()
        self.assertIn("hashing [red]\\x1b]0;x\\x07", shown)
        self.assertIn("slow [disk]", shown)
        self.assertNotIn("\x1b]0", shown)

    def test_dumb_terminal(self):
        """A terminal that cannot move its cursor gets lines like a log."""
        clock = [0.0]
        words = Output(now=lambda: clock[0])
        with self.terminal("dumb") as screen, words.progress("getting") as meter:
            clock[0] += limits.PROGRESS_LINE_S
            meter.update(5, 10)
        self.assertEqual("getting: 50% of 10 B, 1 B/s, 5 s left\n", screen.getvalue())

    @contextlib.contextmanager
    def terminal(self, kind: str) -> Iterator[_Screen]:
        """Let standard error be a terminal."""
        self.patch(os, "environ", {**os.environ, "TERM": kind})
        screen = _Screen()
        with contextlib.redirect_stderr(screen):
            yield screen
