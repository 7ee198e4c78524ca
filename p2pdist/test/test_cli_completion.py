"""Tests of completion in shells."""

from __future__ import annotations

import json
import os

from click.testing import CliRunner

from p2pdist.faces.cli.completion import HINTS
from p2pdist.faces.cli.main import main
from p2pdist.test.support import TestCase


class CompletionTests(TestCase):
    """``p2pdist completion``, and what its script asks."""

    def test_scripts(self):
        """Each shell gets a script that asks p2pdist itself."""
        for shell in HINTS:
            result = CliRunner().invoke(main, ["completion", shell])
            self.assertEqual(0, result.exit_code, result.output)
            self.assertIn(f"_P2PDIST_COMPLETE={shell}_complete", result.output)
            said = json.loads(CliRunner().invoke(main, ["completion", shell, "--json"]).output)
            self.assertEqual(result.output.strip(), said["script"].strip())
        self.assertEqual(2, CliRunner().invoke(main, ["completion", "csh"]).exit_code)

    def complete(self, words: str) -> list[str]:
        """Return what the script offers in bash."""
        asked = {
            "_P2PDIST_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        self.patch(os, "environ", {**os.environ, **asked})
        said = CliRunner().invoke(main, [], prog_name="p2pdist").output
        return [line.partition(",")[2] for line in said.splitlines()]

    def test_commands_and_options(self):
        """Commands and options are offered by their beginning."""
        self.assertEqual(["status"], self.complete("p2pdist sta"))
        self.assertIn("--timeout", self.complete("p2pdist wait --t"))
