"""The twistd plugin's options: everything that can be wrong is one line and an exit code."""

from __future__ import annotations

import io
import os
import random
import sys
from pathlib import Path

from p2pdist.addresses import HostPort
from p2pdist.faces.tap import Options
from p2pdist.limits import DEFAULT_PORT, MIB
from p2pdist.secretfile import write_secret_file
from p2pdist.swarm.throttle import RateLimits
from p2pdist.test.support import TestCase

GOOD = f'hash_key = "b3:{"0" * 64}"\nnodes = ["10.0.0.5"]\n'


class OptionsTests(TestCase):
    """``twistd -n p2pdist``."""

    def setUp(self):
        """Make a folder with one good descriptor."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.good = self.folder / "good.desc"
        self.good.write_text(GOOD)

    def refused(self, *arguments: str) -> tuple[str, int]:
        """Parse, and return the line and the exit code."""
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        caught = self.assertRaises(SystemExit, Options().parseOptions, list(arguments))
        text = errors.getvalue()
        self.assertEqual(1, text.count("\n"), text)
        return text, caught.code

    def test_defaults(self):
        """Without options it is a bare overlay node on all addresses."""
        self.patch(os, "environ", {"HOME": "/home/u"})
        options = Options()
        options.parseOptions([])
        self.assertEqual([], options.descriptors)
        self.assertEqual(DEFAULT_PORT, options.config.port)
        self.assertEqual((), options.config.listen)
        self.assertTrue(options.config.lan)
        self.assertEqual("/home/u/.local/state/p2pdist", options.config.state_dir)

    def test_state_directory_of_systemd(self):
        """Systemd's $STATE_DIRECTORY is used where there is no option."""
        self.patch(os, "environ", {"STATE_DIRECTORY": "/var/lib/p2pdist", "HOME": "/"})
        options = Options()
        options.parseOptions([])
        self.assertEqual("/var/lib/p2pdist", options.config.state_dir)

    def test_secret_files(self):
        """Private networks to serve: each secret once; a bad file is one line and exit code 4."""
        paths = [str(self.folder / name) for name in ("one", "two")]
        made = [write_secret_file(path, random.Random(path).randbytes) for path in paths]
        options = Options()
        options.parseOptions([f"--secret-file={path}" for path in (*paths, paths[0])])
        self.assertEqual(tuple(made), options.config.secrets)
        self.assertNotIn(made[0].text, repr(options.config))
        Path(paths[0]).chmod(0o644)
        text, code = self.refused("--secret-file", paths[0])
        self.assertEqual(4, code)
        self.assertIn("chmod 600", text)

    def test_everything(self):
        """Every option reaches the configuration; repeated ones add up."""
        options = Options()
        options.parseOptions(
            [
                *("--descriptor", str(self.good), "--descriptor", str(self.good)),
                *("--directory", str(self.folder), "--port", "0", "--state-dir", "state"),
                *("--listen", "127.0.0.1", "--listen", "::1", "--listen", "127.0.0.1"),
                *("--node", "a.example", "--node", "[::1]:7", "--no-lan", "--web", "7680"),
            ]
        )
        self.assertEqual(2, len(options.descriptors))
        config = options.config
        self.assertEqual(str(self.folder.absolute()), config.directory)
        self.assertEqual((0, ("127.0.0.1", "::1"), False), (config.port, config.listen, config.lan))
        self.assertEqual(7680, config.web)
        self.assertEqual((HostPort("a.example", 7667), HostPort("::1", 7)), config.nodes)
        self.assertTrue(Path(str(config.state_dir)).is_absolute())

    def test_bad_descriptor(self):
        """A bad descriptor is refused with file, line, field and remedy, and code 2."""
        bad = self.folder / "bad.desc"
        bad.write_text("# comment\nhash_key = 5\n")
        text, code = self.refused("--descriptor", str(bad))
        self.assertIn(f"{bad}:2: hash_key: ", text)
        self.assertEqual(2, code)

    def test_missing_descriptor(self):
        """A descriptor file that is not there is refused with its name."""
        text, code = self.refused("--descriptor", str(self.folder / "none.desc"))
        self.assertIn("none.desc", text)
        self.assertEqual(2, code)

    def test_bad_values(self):
        """Ports, addresses, nodes and folders are checked before anything starts."""
        for option, value, expected in (
            ("--port", "70000", "--port"),
            ("--port", "http", "--port"),
            ("--web", "127.0.0.1:80", "--web"),
            ("--port", "9" * 5000, "--port"),
            ("--listen", "localhost", "--listen"),
            ("--node", "a b", "--node"),
            ("--node", "10.0.0.1:0", "--node"),
            ("--directory", str(self.folder / "none"), "make it first"),
        ):
            text, code = self.refused(option, value)
            self.assertIn(expected, text)
            self.assertEqual(4, code)

    def test_limits(self):
        """Rate limits hold for the process, or for the content of a name or descriptor file."""
        named = self.folder / "named.desc"
        named.write_text(f'hash_key = "b3:{"1" * 64}"\nname = "a.bin"\n')
        options = Options()
        options.parseOptions(
            [
                *("--descriptor", str(self.good), "--descriptor", str(named)),
                *("--upload-limit", "10MB", "--upload-limit", "a.bin=1.5MiB"),
                *("--download-limit", f"{named}=2MB", "--download-limit", f"{self.good}=3MB"),
            ]
        )
        good, other = options.descriptors
        self.assertEqual(RateLimits(upload=10 * MIB), options.config.rates)
        self.assertEqual(RateLimits(download=3 * MIB), options.rates_of(good))
        self.assertEqual(RateLimits(upload=3 * MIB // 2, download=2 * MIB), options.rates_of(other))

    def test_no_limits(self):
        """Without such options nothing is limited, and nothing is set for single contents."""
        options = Options()
        options.parseOptions(["--descriptor", str(self.good)])
        self.assertEqual(RateLimits(), options.config.rates)
        self.assertIsNone(options.rates_of(options.descriptors[0]))

    def test_bad_limits(self):
        """A limit that is none, or names no content, is one line that says what there is."""
        for value, expected in (
            ("fast", "expected a speed such as 10MB"),
            ("1", "at least 16KiB"),
            (
                "b.bin=1MB",
                "'b.bin': no content or descriptor is called that; there is 'good.desc', ",
            ),
        ):
            for option in ("--upload-limit", "--download-limit"):
                text, code = self.refused("--descriptor", str(self.good), option, value)
                self.assertIn(option, text)
                self.assertIn(expected, text)
                self.assertEqual(4, code)
        text, _ = self.refused("--upload-limit", "b.bin=1MB")
        self.assertIn("there is none", text)

    def test_unknown_option(self):
        """An unknown option is one line with a way out, and code 2."""
        text, code = self.refused("--tracker", "x")
        self.assertIn("--help", text)
        self.assertEqual(2, code)
