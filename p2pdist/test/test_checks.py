"""Tests of what ``doctor`` looks at on this machine."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

from p2pdist.addresses import Address
from p2pdist.faces import checks
from p2pdist.faces.checks import BAD, HINT, OK, Finding
from p2pdist.test.support import TestCase


class Usage(NamedTuple):
    """What shutil tells."""

    total: int
    used: int
    free: int


class CheckTests(TestCase):
    """One question each."""

    def setUp(self):
        """Make a folder."""
        self.folder = str(Path(self.mktemp()).absolute())
        Path(self.folder).mkdir()

    def assert_found(self, verdict: str, words: str, finding: Finding) -> None:
        """Expect a verdict, and these words in text or remedy; what is bad has a remedy."""
        self.assertEqual(verdict, finding.verdict, finding)
        self.assertIn(words, f"{finding.text} {finding.remedy}")
        self.assertEqual(verdict != OK, bool(finding.remedy))

    def test_port(self):
        """A free port is fine, one in use is bad unless a node of ours has it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
            busy.bind(("127.0.0.1", 0))
            port = busy.getsockname()[1]
            found = checks.check_port(port, ["127.0.0.1"], ours=False)
            self.assert_found(BAD, "another --port", found)
            self.assertEqual(4, found.exit_code)
            self.assert_found(OK, "runs", checks.check_port(port, ["127.0.0.1"], ours=True))
        self.assert_found(OK, "UDP and TCP", checks.check_port(port, ["127.0.0.1"], ours=False))

    def test_port_that_is_not_permitted(self):
        """A port below 1024 that the user may not have says how to have it."""

        class Refusing(socket.socket):
            def bind(self, _address) -> None:
                raise OSError(errno.EACCES, "Permission denied")

        self.patch(socket, "socket", Refusing)
        self.assert_found(BAD, "p2pdist.socket", checks.check_port(80, ["0.0.0.0"], ours=False))

    def test_folder(self):
        """It has to be there, writable, and have room."""
        self.assert_found(OK, "writable", checks.check_folder(self.folder, 0))
        self.assert_found(BAD, "make it first", checks.check_folder(self.folder + "/none", 0))
        self.patch(shutil, "disk_usage", lambda _path: Usage(100, 60, 40))
        self.assert_found(OK, "40 bytes free", checks.check_folder(self.folder, 40))
        self.assert_found(BAD, "1 bytes short", checks.check_folder(self.folder, 41))
        self.patch(os, "access", lambda _path, _mode: False)
        self.assert_found(HINT, "may not write", checks.check_folder(self.folder, 0))
        self.assert_found(BAD, "may not write", checks.check_folder(self.folder, 5))

    def test_state_directory(self):
        """It is fine, can be made, or the reason is told."""
        self.assert_found(OK, "can be used", checks.check_state(self.folder))
        deep = self.folder + "/a/b"
        self.assert_found(OK, "first start", checks.check_state(deep))
        Path(self.folder).chmod(0o777)
        self.assert_found(BAD, "chmod 700", checks.check_state(self.folder))
        Path(self.folder).chmod(0o700)
        self.patch(os, "access", lambda _path, _mode: False)
        self.assert_found(BAD, "may not use it", checks.check_state(self.folder))
        self.assert_found(BAD, "another --state-dir", checks.check_state(deep))

    def test_clock(self):
        """A clock that was never set is told; whatever may be right is fine."""
        self.assert_found(BAD, "set it", checks.check_clock(86_400.0))
        self.assert_found(OK, "can be right", checks.check_clock(checks.BEFORE + 1.0))

    def test_open_files(self):
        """Few allowed files are a hint, with what to do."""
        self.patch(resource, "getrlimit", lambda _which: (256, 4096))
        self.assert_found(HINT, "LimitNOFILE=", checks.check_files())
        self.patch(resource, "getrlimit", lambda _which: (4096, 4096))
        self.assert_found(OK, "4096", checks.check_files())

    def test_mtu(self):
        """Loopback has room for whole datagrams; less is a hint; no way at all is bad."""
        self.assert_found(OK, "bytes", checks.check_mtu(Address("127.0.0.1", 7667)))
        self.patch(checks, "MTU_WANTED", 10**6)
        self.assert_found(HINT, "raise the MTU", checks.check_mtu(Address("127.0.0.1", 7667)))
        found = checks.check_mtu(Address("255.255.255.255", 7667))
        self.assert_found(BAD, "routes", found)
