"""Tests of --config: a file of options, the same checks, lines in errors."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from p2pdist import limits
from p2pdist.addresses import HostPort
from p2pdist.faces.tap import Options
from p2pdist.limits import MIB
from p2pdist.swarm.throttle import RateLimits
from p2pdist.test.support import TestCase

DESCRIPTOR = f'hash_key = "b3:{"0" * 64}"\nname = "a.bin"\n'


class ConfigFileTests(TestCase):
    """``twistd -n p2pdist --config FILE``."""

    def setUp(self):
        """Make a folder with a descriptor."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "p2pdist.toml"
        (self.folder / "a.desc").write_text(DESCRIPTOR)

    def read(self, text: str, *more: str) -> Options:
        """Return the options of a file, and of ``more`` on the command line."""
        self.file.write_text(text)
        options = Options()
        options.parseOptions(["--config", str(self.file), *more])
        return options

    def refused(self, text: str, *more: str) -> tuple[str, int]:
        """Return line and exit code of a refusal."""
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        caught = self.assertRaises(SystemExit, self.read, text, *more)
        self.assertEqual(1, errors.getvalue().count("\n"), errors.getvalue())
        return errors.getvalue(), caught.code

    def test_everything(self):
        """Texts, numbers, lists and flags; paths begin at the file's folder."""
        (self.folder / "in").mkdir()
        config = self.read(
            'descriptor = ["a.desc"]\n'
            'directory = "in"\n'
            'watch = "in"\n'
            'state-dir = "/var/x"\n'
            "port = 7000\n"
            "no-lan = true\n"
            "verbose = false\n"
            'node = ["10.0.0.5", "10.0.0.6:7"]\n'
            'listen = "127.0.0.1"\n'
            'upload-limit = ["10MB", "a.desc=1MB"]\n'
            "on-complete = \"echo 'a b'\"\n"
            'exit-when = "seeded:2"\n'
        )
        found = config.config
        self.assertEqual(str(self.folder / "in"), found.directory)
        self.assertEqual(("/var/x", 7000, False), (found.state_dir, found.port, found.lan))
        self.assertEqual((HostPort("10.0.0.5", 7667), HostPort("10.0.0.6", 7)), found.nodes)
        self.assertEqual(RateLimits(upload=10 * MIB), found.rates)
        self.assertEqual(RateLimits(upload=MIB), config.rates_of(config.descriptors[0]))
        self.assertEqual(("echo", "a b"), config.duties.on_complete)
        self.assertEqual(str(self.folder / "in"), config.duties.watch)

    def test_command_line_comes_after(self):
        """A single option of the command line replaces the file's, a repeated one adds."""
        text = 'port = 1\nnode = "10.0.0.1"\n'
        options = self.read(text, "--port", "2", "--node", "10.0.0.2")
        self.assertEqual(2, options.config.port)
        self.assertEqual(["10.0.0.1", "10.0.0.2"], [node.host for node in options.config.nodes])

    def test_every_option_may_stand_there(self):
        """All options but --config itself, --help and --version are known in files."""
        options = Options()
        names = {name.rstrip("=") for name in options.longOpt} - {"config", "help", "version"}
        for name in names:
            text, _ = self.refused(f"{name} = [[1]]\n")
            self.assertIn(f"p2pdist.toml:1: {name}: ", text)

    def test_unknown_keys_are_named_with_their_line(self):
        """A key that is no option is refused with its line and the nearest one."""
        text, code = self.refused("port = 1\n\nstate_dir = 'x'\n")
        self.assertIn(f"{self.file}:3: unknown key 'state_dir'; did you mean state-dir?", text)
        self.assertEqual(4, code)

    def test_wrong_kinds(self):
        """Each value has its kind; lines are named."""
        for text, expected in (
            ("no-lan = 'yes'\n", ":1: no-lan: expected true or false"),
            ("\nport = true\n", ":2: port: expected text"),
            ("port = [1]\n", ":1: port: expected one value, not a list"),
            ("node = [1, true]\n", ":1: node: expected text"),
            ("port = \n", "p2pdist.toml: "),
            ("port = 1\nport = 2\n", ":2: port: stands here and in line 1"),
            ("[table]\n", ":1: a [table] has no place here"),
        ):
            said, code = self.refused(text)
            self.assertIn(expected, said)
            self.assertEqual(4, code)

    def test_the_same_checks(self):
        """A value is checked as on the command line, with the same words."""
        for text, expected, exit_code in (
            ("port = 70000\n", "--port '70000'", 4),
            ('listen = "localhost"\n', "--listen 'localhost'", 4),
            ('exit-when = "never"\n', "--exit-when 'never'", 4),
            ('watch = "none"\n', "no such folder", 4),
            ('on-complete = ""\n', "--on-complete '': expected a command", 4),
            ('descriptor = "none.desc"\n', "none.desc", 2),
        ):
            said, code = self.refused(text)
            self.assertIn(expected, said)
            self.assertEqual(exit_code, code)

    def test_files_that_are_none(self):
        """A file that is not there, is a folder, or has more than CONFIG_BYTES is refused."""
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        for path in (self.folder / "none", self.folder):
            self.assertRaises(SystemExit, Options().parseOptions, [f"--config={path}"])
        self.assertIn("cannot be read", errors.getvalue())
        self.assertIn("is a folder", errors.getvalue())
        text, code = self.refused("#" * (limits.CONFIG_BYTES + 1))
        self.assertIn(str(limits.CONFIG_BYTES), text)
        self.assertEqual(4, code)
