"""Tests of the settings of one process."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.config import (
    Config,
    default_state_dir,
    parse_limits,
    parse_listen,
    parse_port,
    parse_rate,
)
from p2pdist.errors import ConfigurationError
from p2pdist.test.support import TestCase, given


class PortTests(TestCase):
    """``--port``."""

    @given(st.integers(0, 65535))
    def test_ports(self, port: int):
        """Numbers from 0 to 65535 are ports."""
        self.assertEqual(port, parse_port(str(port)))

    def test_refused(self):
        """Everything else is refused with a sentence that quotes it, shortened."""
        for text in ("", "-1", "65536", "80a", " 80", "٣", "1" * 6000, "000000000065536", "8_0"):
            with self.assertRaises(ConfigurationError) as caught:
                parse_port(text)
            self.assertIn("expected a number from 0 to 65535", str(caught.exception))
            self.assertLess(len(str(caught.exception)), 120)

    @given(st.text(max_size=12))
    def test_any_text(self, text: str):
        """Any text is a port or a configuration error."""
        try:
            self.assertTrue(0 <= parse_port(text) <= 65535)
        except ConfigurationError as error:
            self.assertEqual(4, error.exit_code)


class ListenTests(TestCase):
    """``--listen``."""

    def test_addresses(self):
        """IP addresses come out in their canonical form."""
        for text, ip in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "0.0.0.0"),
            ("::", "::"),
            ("FD00:0::1", "fd00::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ]:
            self.assertEqual(ip, parse_listen(text))

    def test_refused(self):
        """Names, ports and zones are no addresses to listen on."""
        for text in ("localhost", "", "127.0.0.1:80", "fe80::1%eth0", "1.2.3", "x" * 500):
            with self.assertRaises(ConfigurationError) as caught:
                parse_listen(text)
            self.assertIn("expected an IP address of this machine", str(caught.exception))
            self.assertLess(len(str(caught.exception)), 250)


class RateTests(TestCase):
    """``--upload-limit`` and ``--download-limit``."""

    def test_rates(self):
        """Numbers with and without unit, decimals and ``/s``; units are powers of 1024."""
        mib = limits.MIB
        for text, rate in [
            ("50000", 50_000),
            ("16KiB", limits.RATE_LIMIT_MIN),
            ("100kB", 100 * limits.KIB),
            ("10MB", 10 * mib),
            ("10M", 10 * mib),
            ("10MiB/s", 10 * mib),
            ("1.5MiB", 3 * mib // 2),
            ("0.5 GB/s", limits.GIB // 2),
            ("1T", limits.TIB),
            ("0", None),
            ("0MB", None),
            ("none", None),
        ]:
            self.assertEqual(rate, parse_rate(text, "--upload-limit"), text)

    def test_refused(self):
        """What is no speed, or too low a one, is refused with option, text and remedy."""
        for text, expected in [
            ("", "expected a speed"),
            ("fast", "expected a speed"),
            ("-1MB", "expected a speed"),
            ("1e9", "expected a speed"),
            ("10Mbit", "expected a speed"),
            (".5MB", "expected a speed"),
            ("٣MB", "expected a speed"),
            ("9" * 5000, "expected a speed"),
            ("16383", "at least 16KiB per second"),
            ("0.1B", "unlimited"),
        ]:
            with self.assertRaises(ConfigurationError) as caught:
                parse_rate(text, "--upload-limit")
            self.assertIn(expected, str(caught.exception))
            self.assertIn(f"--upload-limit {text[:80]!a}", str(caught.exception))
            self.assertLess(len(str(caught.exception)), 250)

    @given(st.text(max_size=12))
    def test_any_text(self, text: str):
        """Any text is a rate, no limit, or a configuration error."""
        try:
            rate = parse_rate(text, "--upload-limit")
        except ConfigurationError as error:
            self.assertEqual(4, error.exit_code)
        else:
            self.assertTrue(rate is None or rate >= limits.RATE_LIMIT_MIN)

    def test_by_name(self):
        """A repeated option limits all contents, and single ones by their names."""
        rates = parse_limits(["10MB", "a=b.bin=1MB", "c=none"], "--download-limit")
        self.assertEqual({"": 10 * limits.MIB, "a=b.bin": limits.MIB, "c": None}, rates)
        for texts in (["1MB", "2MB"], ["a=1MB", "a=2MB"]):
            with self.assertRaises(ConfigurationError) as caught:
                parse_limits(texts, "--download-limit")
            self.assertIn("given twice", str(caught.exception))


class ConfigTests(TestCase):
    """The settings as a whole."""

    def test_defaults(self):
        """Without options: the current directory, the usual port, all addresses, LAN discovery."""
        config = Config()
        self.assertEqual((str(Path.cwd()), limits.DEFAULT_PORT), (config.directory, config.port))
        self.assertEqual(((), ()), (config.listen, config.nodes))
        self.assertIsNone(config.state_dir)
        self.assertTrue(config.lan)

    def test_directory_is_absolute(self):
        """A later change of directory moves nothing."""
        self.assertEqual(str(Path.cwd() / "there"), Config(directory="there").directory)
        self.assertEqual("/x/y", Config(directory="/x/./z/../y").directory)

    def test_state_directory(self):
        """Systemd's directory goes first, then XDG's, then one below home."""
        self.assertEqual(
            "/var/lib/p2pdist",
            default_state_dir({"STATE_DIRECTORY": "/var/lib/p2pdist", "XDG_STATE_HOME": "/x"}),
        )
        self.assertEqual("/a", default_state_dir({"STATE_DIRECTORY": "/a:/b"}))
        self.assertEqual("/x/p2pdist", default_state_dir({"XDG_STATE_HOME": "/x"}))
        home = str(Path.home() / ".local/state/p2pdist")
        for environment in ({}, {"STATE_DIRECTORY": "", "XDG_STATE_HOME": ""}):
            self.assertEqual(home, default_state_dir(environment))
