"""Tests of control sockets in deep folders, with the kernel's own sockets."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs

from p2pdist import sockpath
from p2pdist.control import Control, ControlService, socket_path
from p2pdist.faces.cli.remote import NotRunning, Remote
from p2pdist.sockpath import PATH_BYTES, short_way
from p2pdist.test.support import TestCase


class DeepTests(TestCase):
    """A state directory whose path is too long for a socket."""

    def setUp(self):
        """Make one."""
        deep = Path(self.mktemp()).absolute() / ("d" * 100) / ("e" * 100)
        deep.mkdir(parents=True)
        self.state = str(deep)
        self.path = socket_path(self.state)

    def serve(self) -> tuple[ControlService, MemoryReactorClock]:
        """Start the service."""
        reactor = MemoryReactorClock()
        control = Control.__new__(Control)  # nobody asks it here
        service = ControlService(reactor, control, self.state)
        service.startService()
        self.addCleanup(service.stopService)
        return service, reactor

    def test_node_listens(self):
        """The node's socket is in the state directory, by a path that the kernel takes."""
        (Path(self.path)).touch()  # left by a killed run
        service, reactor = self.serve()
        (way, *_) = reactor.unixServers[0]
        self.assertLessEqual(len(way), PATH_BYTES)
        self.assertFalse(Path(self.path).exists())
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(way)
        self.assertTrue(Path(self.path).is_socket())
        service.stopService()
        self.assertFalse(os.path.lexists(way), "and the descriptor is closed with it")

    def test_command_asks(self):
        """A command reaches it there."""
        with short_way(self.path) as way, socket.socket(socket.AF_UNIX) as node:
            node.bind(way)
            node.listen()

            def answer() -> None:
                connection, _ = node.accept()
                with connection, connection.makefile("rwb") as lines:
                    lines.readline()
                    lines.write(b'{"result": {"fine": true}}\n')

            thread = threading.Thread(target=answer)
            thread.start()
            self.addCleanup(thread.join)
            self.assertEqual({"fine": True}, Remote(self.state).ask("status"))

    def test_nobody_there(self):
        """Where no node runs, that is what the command says."""
        for state in (self.state, f"{self.state}/{'f' * 50}"):
            error = self.assertRaises(NotRunning, Remote(state).ask, "status")
            self.assertIn("no node runs with this state directory", str(error))

    def test_no_way_round(self):
        """Without /proc the log has path, length and what to do; the node goes on."""
        self.patch(sockpath, "_DESCRIPTORS", "/nowhere/fd")
        with capturedLogs() as events:
            _, reactor = self.serve()
        self.assertEqual([], reactor.unixServers)
        (event,) = events
        said = event["log_format"].format(**event)
        for words in (self.path, f"{len(self.path)} bytes", "shorter --state-dir"):
            self.assertIn(words, said)
        error = self.assertRaises(NotRunning, Remote(self.state).ask, "status")
        self.assertIn("shorter --state-dir", str(error))

    def test_short_ones_stay(self):
        """A path that fits is used as it is."""
        fits = "/" + "x" * (PATH_BYTES - 1)
        with short_way(fits) as way:
            self.assertEqual(fits, way)
