"""Tests of the command ``doctor``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from p2pdist.addresses import Address, HostPort
from p2pdist.faces import checks
from p2pdist.faces.cli import doctor
from p2pdist.faces.cli.main import main
from p2pdist.faces.reaching import Reached
from p2pdist.overlay.bootstrap import EntryState
from p2pdist.test.support import TestCase

LINK = f"p2pdist:b3:{'ab' * 32}?n=127.0.0.1:7667"


class DoctorTests(TestCase):
    """``p2pdist doctor``."""

    def setUp(self):
        """A machine on which all is well."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.patch(doctor, "check_port", lambda *_, **__: checks.Finding("port 1", "ok", "free"))
        self.state = EntryState.ANSWERED
        self.tcp = ""

        def run(_work):
            address = Address("127.0.0.1", 7667)
            return [Reached(HostPort(*address), self.state, (address,), {address: self.tcp})]

        self.patch(doctor, "run_until_done", run)

    def run_doctor(self, *arguments: str) -> Result:
        """Run it."""
        state = ("--state-dir", str(self.folder / "state"))
        options = ("--directory", str(self.folder), *state)
        return CliRunner().invoke(main, ["doctor", *options, *arguments])

    def test_all_is_well(self):
        """Every finding is a line; the exit code is 0."""
        result = self.run_doctor(LINK)
        self.assertEqual(0, result.exit_code, result.output)
        for word in ("port 1", "folder", "state directory", "clock", "open files", "node", "way"):
            self.assertIn(f"ok    {word}", result.output)

    def test_exit_codes(self):
        """4 for this machine, 3 if no node answers, 1 where TCP is blocked."""
        self.tcp = "refused"
        self.assertEqual(1, self.run_doctor(LINK).exit_code)
        self.state = EntryState.SILENT
        result = self.run_doctor(LINK)
        self.assertEqual(3, result.exit_code)
        self.assertIn("BAD   node 127.0.0.1:7667: no answer over UDP; TCP: refused", result.output)
        result = self.run_doctor("--directory", str(self.folder / "none"), LINK)
        self.assertEqual(4, result.exit_code)
        self.assertIn("make it first", result.output)

    def test_bad_descriptor(self):
        """A descriptor that cannot be used ends it with 2."""
        self.assertEqual(2, self.run_doctor("p2pdist:nonsense").exit_code)

    def test_json(self):
        """Programs get the same."""
        said = json.loads(self.run_doctor("--json").output)
        self.assertEqual(0, said["exit_code"])
        self.assertEqual({"subject", "verdict", "text", "remedy"}, set(said["findings"][0]))

    def test_room_for_what_is_missing(self):
        """The lengths of contents that are not there are needed as room."""
        for name in ("there", "missing"):
            (self.folder / f"{name}.desc").write_text(
                f'hash_key = "b3:{"0" * 64}"\nname = "{name}"\nlength = 1000\nnodes = []\n'
            )
        (self.folder / "there").touch()
        both = [str(self.folder / f"{name}.desc") for name in ("there", "missing")]
        self.assertIn("1000 needed at most", self.run_doctor(*both).output)
