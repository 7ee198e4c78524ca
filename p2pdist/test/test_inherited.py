"""Tests of sockets that the service manager opened: real ones, on loopback."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from p2pdist.daemon.inherited import FDS_MAX, inherited
from p2pdist.errors import ConfigurationError
from p2pdist.ports import Inherited
from p2pdist.test.support import TestCase

FIRST = 200
"""Descriptors of these tests begin here: nobody else's are so high."""


class InheritedTests(TestCase):
    """What is handed over."""

    def hand(self, *kinds: str, port: int = 0) -> int:
        """Open sockets as ``udp``, ``tcp`` and their like; return the port of the last."""
        for number, kind in enumerate(kinds):
            family = socket.AF_INET6 if kind.endswith("6") else socket.AF_INET
            udp = kind.startswith("udp")
            one = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
            one.bind(("::1" if kind.endswith("6") else "127.0.0.1", port))
            port = one.getsockname()[1]
            if kind.startswith("tcp"):
                one.listen()
            os.dup2(one.fileno(), FIRST + number)
            one.close()
            self.addCleanup(os.close, FIRST + number)
        return port

    def found(self, count: int) -> tuple[Inherited, ...]:
        """Return what is found when so many were handed over."""
        return inherited({"LISTEN_FDS": str(count), "LISTEN_PID": "7"}, 7, FIRST)

    def refusal(self, count: int) -> str:
        """Return why they are refused."""
        return str(self.assertRaises(ConfigurationError, self.found, count))

    def test_a_pair(self):
        """UDP and TCP of one address and port are a pair, in any order."""
        port = self.hand("udp", "tcp")
        pair = Inherited(
            udp=FIRST, tcp=FIRST + 1, family=socket.AF_INET, interface="127.0.0.1", port=port
        )
        self.assertEqual((pair,), self.found(2))

    def test_two_pairs(self):
        """Several addresses have a pair each, of one port number."""
        port = self.hand("udp", "tcp", "tcp6", "udp6")
        pairs = self.found(4)
        self.assertEqual(["127.0.0.1", "::1"], [pair.interface for pair in pairs])
        self.assertEqual([port, port], [pair.port for pair in pairs])
        self.assertEqual((FIRST + 3, FIRST + 2), (pairs[1].udp, pairs[1].tcp))

    def test_none(self):
        """Nothing is taken that is meant for another process, or was not handed over."""
        for environment in ({}, {"LISTEN_FDS": "2"}, {"LISTEN_FDS": "2", "LISTEN_PID": "8"}):
            self.assertEqual((), inherited(environment, 7, FIRST))
        self.assertEqual((), inherited({"LISTEN_FDS": "x", "LISTEN_PID": "7"}, 7, FIRST))

    def test_half_a_pair(self):
        """UDP without TCP is refused with the lines a unit needs; so is TCP without UDP."""
        self.hand("udp")
        self.assertIn("has UDP only; name it as ListenStream=", self.refusal(1))

    def test_several_ports(self):
        """A node has one port number."""
        self.hand("udp", "tcp")
        os.dup2(FIRST, FIRST + 10)
        os.dup2(FIRST + 1, FIRST + 11)
        self.addCleanup(os.close, FIRST + 10)
        self.addCleanup(os.close, FIRST + 11)
        other = 0
        for number, kind in ((2, socket.SOCK_DGRAM), (3, socket.SOCK_STREAM)):
            one = socket.socket(socket.AF_INET, kind)
            one.bind(("127.0.0.1", other))
            other = one.getsockname()[1]
            if kind == socket.SOCK_STREAM:
                one.listen()
            os.dup2(one.fileno(), FIRST + number)
            one.close()
            self.addCleanup(os.close, FIRST + number)
        self.assertIn("one port number", self.refusal(4))

    def test_what_is_no_socket_of_ours(self):
        """Files, UNIX sockets, connections, descriptors that are closed, and too many."""
        with Path(os.devnull).open() as file:
            os.dup2(file.fileno(), FIRST)
        self.addCleanup(os.close, FIRST)
        self.assertIn(f"descriptor {FIRST}", self.refusal(1))
        pair = socket.socketpair()
        for one in pair:
            self.addCleanup(one.close)
        os.dup2(pair[0].fileno(), FIRST)
        self.assertIn("no IP socket", self.refusal(1))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as quiet:
            quiet.bind(("127.0.0.1", 0))
            os.dup2(quiet.fileno(), FIRST)
        self.assertIn("is a connection", self.refusal(1))
        self.assertIn("descriptor", self.refusal(2))
        self.assertIn(str(FDS_MAX), self.refusal(FDS_MAX + 1))
