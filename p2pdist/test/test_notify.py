"""Tests of telling the service manager: a real socket, the service in the simulated network."""

from __future__ import annotations

import os
import socket
from select import select

from attrs import evolve
from twisted.internet.defer import Deferred

from p2pdist import limits
from p2pdist.daemon.notify import SIGNS, Notifying, Supervisor, status_text
from p2pdist.stages import Stage
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import PIECE, content, one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan

WATCHDOG_S = 30.0


class Listener:
    """A service manager's socket, without a name in any file system."""

    def __init__(self, case: TestCase) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self._socket.close)
        self.address = f"@p2pdist-{os.getpid()}-{id(self)}"
        self._socket.bind("\0" + self.address[1:])
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return the lines that came since the last time."""
        lines: list[str] = []
        while select([self._socket], [], [], 0)[0]:
            lines += self._socket.recv(4096).decode().splitlines()
        return lines


class SupervisorTests(TestCase):
    """Who wants to hear."""

    def test_environment(self):
        """The socket and the watchdog's time come from the environment, if they are for us."""
        for environment, expected in (
            ({}, None),
            ({"NOTIFY_SOCKET": "relative"}, None),
            ({"NOTIFY_SOCKET": "/run/n"}, Supervisor("/run/n")),
            ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000"}, Supervisor("@n", 30.0)),
            ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "3", "WATCHDOG_PID": "8"}, Supervisor("@n")),
            ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "x"}, Supervisor("@n")),
        ):
            self.assertEqual(expected, Supervisor.of(environment, 7))
        watched = {"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "7"}
        self.assertEqual(Supervisor("@n", 1e-6), Supervisor.of(watched, 7))

    def test_nobody_there(self):
        """A socket that is gone is no trouble."""
        self.assertFalse(Supervisor(f"@p2pdist-nobody-{os.getpid()}").tell("READY=1"))
        self.assertFalse(Supervisor(self.mktemp()).tell("READY=1"))


class NotifyingTests(TestCase):
    """What it is told, and when."""

    def setUp(self):
        """A seed and a downloader; the latter has a supervisor."""
        self.made = content({"model.bin": 100 * PIECE})
        self.world = lan()
        self.world.link(delay=(0.001, 0.003), bandwidth=1_000_000)
        self.seed = Station.at(self.world, "10.0.0.1")
        self.seed.store(self.made)
        self.seed.run(self.made.descriptor(), name="seed")
        self.world.run(2)
        self.leech = Station.at(self.world, "10.0.0.2")
        self.listener = Listener(self)
        service = self.leech.run(pointing(self.made, self.seed), name="leech")
        self.telling = Notifying(
            Supervisor(self.listener.address, WATCHDOG_S), service.contents, self.leech.machine
        )
        self.telling.setServiceParent(service)

    def signs(self) -> int:
        """Return how many signs of life came."""
        return self.listener.heard().count("WATCHDOG=1")

    def test_ready_status_stopping(self):
        """Ready comes first, then how it goes, whenever that changed; stopping is last."""
        self.world.run(1)
        heard = self.listener.heard()
        self.assertEqual("READY=1", heard[0])
        self.assertIn("STATUS=0 %, 0/1 hosts done", heard)
        self.world.run_until(lambda: self.leech.session.stage is Stage.SEEDING)
        during = [line for line in self.listener.heard() if line.startswith("STATUS=")]
        self.assertRegex(during[-1], r"STATUS=[1-9]\d? %, 1/2 hosts done")
        self.world.run(limits.STATUS_EVERY_S)
        self.assertIn("STATUS=complete, 2/2 hosts done", self.listener.heard())
        self.world.run(5 * limits.STATUS_EVERY_S)
        self.assertEqual([], [line for line in self.listener.heard() if "STATUS" in line])
        self.leech.stop()
        self.assertEqual(["STOPPING=1", "STATUS=stopping"], self.listener.heard())

    def test_signs_of_life(self):
        """Within the time allowed there are several signs."""
        self.world.run(0.1)
        self.listener.heard()
        for _ in range(10 * SIGNS):
            self.world.run(WATCHDOG_S / SIGNS)
            self.assertEqual(1, self.signs())

    def test_a_disk_that_hangs_is_silent(self):
        """While no worker comes back, there is no sign; when it does, there are again."""
        self.world.run(WATCHDOG_S)
        self.leech.host.workers.delay = (1000.0, 1000.0)
        self.world.run(WATCHDOG_S)
        self.signs()
        self.world.run(5 * WATCHDOG_S)
        self.assertEqual(0, self.signs())
        self.leech.host.workers.delay = (0.001, 0.001)
        self.world.run(1000)
        self.signs()
        self.world.run(WATCHDOG_S)
        self.assertEqual(SIGNS, self.signs())

    def test_a_reactor_that_hangs_is_silent(self):
        """A process that does nothing gives no sign."""
        self.world.run(WATCHDOG_S)
        self.leech.host.pause()
        self.signs()
        self.world.run(5 * WATCHDOG_S)
        self.assertEqual(0, self.signs())
        self.leech.host.resume()

    def test_a_folder_that_is_gone_is_no_hang(self):
        """The disk answers, whatever it says."""
        contents = self.telling.contents
        contents.config = evolve(contents.config, directory="/none")
        self.signs()
        self.world.run(2 * WATCHDOG_S)
        self.assertGreaterEqual(self.signs(), SIGNS)

    def test_reload(self):
        """A reload is told when it begins and when it ends."""
        self.world.run(1)
        self.listener.heard()
        work: Deferred[None] = Deferred()
        self.telling.reloading(lambda: work)
        self.assertEqual(["RELOADING=1"], self.listener.heard())
        work.callback(None)
        self.assertEqual(["READY=1"], self.listener.heard())


class StatusTests(TestCase):
    """The line for people."""

    def test_none(self):
        """A bare node, and one whose contents are all paused, say so."""
        self.assertEqual("no content, for others to ask", status_text([]))
        self.assertEqual("2 contents, all paused", status_text([], 2))

    def test_several(self):
        """Several contents are added up; the fleet shown is the one that has most to do."""
        world = lan()
        station = Station.at(world, "10.0.0.1")
        one, two = one_file(), content({"other.bin": 5 * PIECE})
        station.store(one)
        station.disk.put("/data/other.bin", b"something else")
        service = station.run(one.descriptor(), two.descriptor())
        world.run(5)
        sessions = list(service.contents.sessions.values())
        self.assertEqual(
            "2 contents, 1 paused, 1 failed, see the log, 99 %, 0/1 hosts done",
            status_text(sessions, 1).replace("3 contents", "2 contents"),
        )
        many = [sessions[0]] * limits.STATUS_FLEETS + [sessions[1]]
        self.assertIn("1/1 hosts done", status_text(many))
