"""Tests of push without processes: the file of hosts, and what an ssh's end means."""

from __future__ import annotations

import ast
import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.descriptor import Descriptor
from p2pdist.errors import ConfigurationError
from p2pdist.faces.cli import push
from p2pdist.faces.cli.main import main
from p2pdist.faces.errand import COMMAND, PROGRAM, head
from p2pdist.faces.pushing import Errand, Outcome, Push, read_hosts
from p2pdist.ids import HashKey
from p2pdist.test.support import TestCase


class HostTests(TestCase):
    """``--hosts FILE[:DIR]``."""

    def read(self, text: str, directory: str = "") -> tuple[tuple[str, ...], str]:
        """Return what a file says."""
        path = Path(self.mktemp())
        path.write_text(text)
        return read_hosts(f"{path}{directory}")

    def test_hosts(self):
        """One a line, each once, comments aside; the folder stands behind a colon."""
        text = "# all\n\nalpha\nuser@beta.example  # the other\nalpha\n"
        self.assertEqual((("alpha", "user@beta.example"), "."), self.read(text))
        self.assertEqual((("alpha",), "/srv/data"), self.read("alpha\n", ":/srv/data"))

    def test_no_hosts(self):
        """What could be an option of ssh, or no host at all, is refused with its line."""
        for wrong in ("-oProxyCommand=x", "a b", "a;b", "$(x)"):
            error = self.assertRaises(ConfigurationError, self.read, f"good\n{wrong}\n")
            self.assertIn(":2: ", str(error))
        self.assertRaises(ConfigurationError, self.read, "# nobody\n")
        self.assertRaises(ConfigurationError, read_hosts, self.mktemp())

    def test_many_hosts(self):
        """PUSH_HOSTS are taken, one more is not."""
        names = [f"host-{number}\n" for number in range(limits.PUSH_HOSTS + 1)]
        self.assertEqual(limits.PUSH_HOSTS, len(self.read("".join(names[1:]))[0]))
        self.assertRaises(ConfigurationError, self.read, "".join(names))


class Pipes:
    """The transport of an ssh, as far as it is closed and killed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def closeStdin(self) -> None:
        """Note it."""
        self.calls.append("close")

    def signalProcess(self, name: str) -> None:
        """Note it."""
        self.calls.append(name)


class ErrandTests(TestCase):
    """One ssh, and what its end says."""

    def ended(self, code: int, said: str = "", *, over: bool = False) -> str:
        """Return what is told of an end."""
        errand = Errand("alpha", b"", "")
        pipes: Any = Pipes()
        errand.transport = pipes
        errand.outReceived(said.encode())
        if over:
            errand.end()
            errand.kill()
            self.assertEqual(["close", "KILL"], pipes.calls)
        reason = ProcessTerminated(code) if code else ProcessDone(0)
        errand.processEnded(Failure(reason))
        return self.successResultOf(errand.ended)

    def test_end(self):
        """It ended well if it was told to; else the last line says why, its own words first."""
        self.assertEqual("", self.ended(0, over=True))
        self.assertEqual("ended with 0: nothing was said", self.ended(0))
        self.assertEqual("ended with 255: refused", self.ended(255, "hello\nrefused\n"))
        said = "p2pdist-push: has Python 3.9\nsh: exit\n"
        self.assertEqual("ended with 4: has Python 3.9", self.ended(4, said))

    def test_one_that_does_not_end(self):
        """An ssh that is still there PUSH_END_S after it was told to end is killed."""
        clock = Clock()
        machine: Any = SimpleNamespace(reactor=clock)
        order: Any = None
        errand = Errand("alpha", b"", "")
        pipes: Any = Pipes()
        errand.transport = pipes
        gone = Push(machine, order)._end(errand)
        clock.advance(limits.PUSH_END_S - 0.1)
        self.assertEqual(["close"], pipes.calls)
        clock.advance(0.1)
        self.assertEqual(["close", "KILL"], pipes.calls)
        self.assert_waiting(gone)
        errand.processEnded(Failure(ProcessTerminated(None, 9)))
        self.successResultOf(gone)

    def test_what_it_says_is_bounded(self):
        """The end is kept of a machine that talks and talks."""
        errand = Errand("alpha", b"", "")
        errand.outReceived(b"x" * 3 * limits.HOOK_OUTPUT_BYTES)
        self.assertEqual(limits.HOOK_OUTPUT_BYTES, len(errand._said))

    def test_program(self):
        """The program is one line for any shell's quotes, and Python that is old enough."""
        program, facts, rest = head({"kind": [3, 11, "x"]}).split(b"\n")
        self.assertEqual(PROGRAM, ast.literal_eval(program.decode()))
        self.assertEqual({"kind": [3, 11, "x"]}, json.loads(facts))
        self.assertEqual(b"", rest)
        ast.parse(PROGRAM, feature_version=(3, 8))
        self.assertEqual(f"'{COMMAND}'", shlex.quote(COMMAND))


class CommandTests(TestCase):
    """What the command prints, and its exit codes."""

    def run_push(self, outcome: Outcome, *more: str) -> tuple[int, str]:
        """Run the command, with an outcome made up."""
        self.patch(push, "run_until_done", lambda _work: outcome)
        self.patch(push, "describe", lambda *_: Descriptor(hash_key=HashKey(bytes(32)), name="x"))
        hosts = Path(self.mktemp())
        hosts.write_text("a\nb\n")
        result = CliRunner().invoke(main, ["push", str(hosts), "-H", str(hosts), *more])
        return result.exit_code, result.output

    def test_exit_codes(self):
        """0 if all have it, 1 if some failed, 6 if some were late."""
        code, said = self.run_push(Outcome(("a", "b"), {}))
        self.assertEqual(0, code, said)
        self.assertIn("2 machines have x", said)
        code, said = self.run_push(Outcome(("a",), {"b": "refused"}))
        self.assertEqual(1, code)
        self.assertIn("b: refused\np2pdist: 1 of 2 machines", said)
        code, said = self.run_push(Outcome(("a",), {}, ("b",)))
        self.assertEqual(6, code)
        self.assertIn("1 of 2 are not done: b", said)
