"""Tests of ``p2pdist simulate``: options, figures, stories, interrupts."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from click.testing import CliRunner

from p2pdist.faces.cli.main import main
from p2pdist.simulation.study import Lookup, Study
from p2pdist.test.support import TestCase

SMALL = ("--nodes", "40", "--lookups", "3", "--members", "2")
MEASURED = {"wall_s", "peak_bytes"}
"""Figures of this machine, not of the simulated world."""


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command; return exit code, output and errors."""
    result = CliRunner().invoke(main, ["simulate", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


class OptionTests(TestCase):
    """What is refused, in words that say what to do."""

    def test_shares(self):
        """A share is from 0 to below 1; no number is none."""
        for option in ("--loss", "--dead", "--nat", "--black-holes", "--liars"):
            for text in ("1", "-0.1", "nan", "some"):
                code, _, errors = run(option, text)
                self.assertEqual(2, code, (option, text))
                self.assertIn(option, errors)

    def test_sum_of_shares(self):
        """Some nodes must be ordinary ones; loss is no share of the nodes."""
        code, _, errors = run(
            "--dead", "0.4", "--nat", "0.3", "--black-holes", "0.1", "--liars", "0.2"
        )
        self.assertEqual(2, code)
        self.assertIn("more than 0.9", errors)
        self.assertEqual(0, run(*SMALL, "--dead", "0.4", "--nat", "0.2", "--loss", "0.5")[0])

    def test_counts(self):
        """Nodes are two to a million."""
        for text in ("1", "1000001", "many"):
            self.assertEqual(2, run("--nodes", text)[0], text)

    def test_too_few(self):
        """Members and who looks for them must be different ordinary nodes."""
        code, _, errors = run("--nodes", "5", "--members", "5")
        self.assertEqual(2, code)
        self.assertIn("5 members of each topic and who looks for them take 6", errors)

    def test_what_goes_together(self):
        """Initiators behind NATs need some, --lookup needs --trace and a lookup of that number."""
        for arguments in (
            ("--nat-initiators",),
            ("--lookup", "1"),
            (*SMALL, "--trace", "--lookup", "4"),
            ("--trace", "--lookup", "0"),
        ):
            self.assertEqual(2, run(*arguments)[0], arguments)


class ResultTests(TestCase):
    """What is printed."""

    def figures(self, *arguments: str) -> dict[str, Any]:
        """Run for programs."""
        code, output, _ = run(*SMALL, "--json", *arguments)
        self.assertEqual((0, 1), (code, output.count("\n")))
        result = json.loads(output, parse_constant=self.fail)
        return {name: value for name, value in result.items() if name not in MEASURED}

    def test_for_programs(self):
        """One object with what was simulated and what came of it."""
        result = self.figures("--nat", "0.2", "--nat-initiators", "--rtt", "lan")
        self.assertEqual(
            (40, 3, 2, 0.2, "lan"),
            tuple(result[name] for name in ("nodes", "lookups", "members", "nat", "rtt")),
        )
        self.assertEqual(1.0, result["success"])
        self.assertLess(result["peers_p50_ms"], result["alive_p99_ms"])
        self.assertGreater(result["packets_mean"], 2)
        self.assertNotIn("trace", result)

    def test_seed_decides(self):
        """The same seed gives the same output, another one another."""
        self.assertEqual(self.figures("--trace"), self.figures("--trace"))
        self.assertNotEqual(self.figures(), self.figures("--seed", "2"))

    def test_never(self):
        """Where all fails, times are null for programs and never for people."""
        self.assertIsNone(self.figures("--loss", "0.999")["peers_p50_ms"])
        _, output, _ = run(*SMALL, "--loss", "0.999")
        self.assertIn("never", output)
        self.assertIn("0.00%", output)

    def test_for_people(self):
        """One line says what was simulated, the others what it took."""
        code, output, errors = run(*SMALL, "--liars", "0.1")
        self.assertEqual((0, ""), (code, errors))
        self.assertTrue(
            output.startswith("3 lookups among 40 nodes, 10% dead entries, 10% liars; internet")
        )
        for word in ("success", "first peers", "first live peer", "packets", "bytes", "took"):
            self.assertEqual(1, output.count(f"\n  {word} "), word)
        self.assertEqual(10, output.count("\n"))

    def test_trace(self):
        """--trace tells one lookup's story, the first unless another is named, then the figures."""
        first, second = (run(*SMALL, "--trace", *which)[1] for which in ((), ("--lookup", "2")))
        self.assertTrue(first.startswith("lookup 1: who has topic "))
        self.assertTrue(second.startswith("lookup 2: who has topic "))
        self.assertIn(" -> ", first)
        self.assertIn("\n\n3 lookups among 40 nodes", first)

    def test_interrupt(self):
        """An interrupt ends it between two events, with one word; then all is as it was."""
        before = signal.getsignal(signal.SIGINT)
        start = Study.start

        def interrupted(study: Study, lookup: Lookup) -> None:
            start(study, lookup)
            os.kill(os.getpid(), signal.SIGINT)

        self.patch(Study, "start", interrupted)
        self.assertEqual((1, "", "stopped\n"), run(*SMALL))
        self.assertEqual(before, signal.getsignal(signal.SIGINT))
