"""Tests of --on-complete: the production service in the simulated network, processes made up."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.daemon.hooks import Command, Hooks, parse_command
from p2pdist.errors import ConfigurationError
from p2pdist.ids import format_hash_key
from p2pdist.machine import Machine
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station
from p2pdist.test.storehouse import DATA, PIECE, Content, content, one_file
from p2pdist.test.support import TestCase


@define(eq=False)
class Process:
    """A process that ends when the test says so, and notes its signals."""

    command: Command
    argv: tuple[str, ...]
    environment: dict[str, str]
    signals: list[str] = field(factory=list)
    over: bool = False

    def signalProcess(self, name: str) -> None:
        """Note it."""
        if self.over:
            raise ProcessExitedAlready
        self.signals.append(name)

    def closeStdin(self) -> None:
        """Nothing to close."""

    def end(self, code: int = 0, signal: int | None = None) -> None:
        """End it."""
        self.over = True
        bad = ProcessTerminated(code or None, signal) if code or signal else ProcessDone(0)
        self.command.processEnded(Failure(bad))


class Spawning:
    """A simulated reactor that starts processes too."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.processes: list[Process] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def spawnProcess(
        self, command: Command, executable: str, argv: Any, environment: Any, path: str | None
    ) -> None:
        """Start one; what is called nothing cannot be started."""
        del path
        if executable == "nothing":
            raise FileNotFoundError(2, "No such file or directory")
        process = Process(command, tuple(argv), dict(environment))
        self.processes.append(process)
        command.makeConnection(process)


class HooksCase(TestCase):
    """A node that has a file, and a command."""

    def setUp(self):
        """Start the node."""
        self.made = one_file()
        self.world = World(1)
        self.station = Station.at(self.world, "10.0.0.1")
        self.station.store(self.made)
        self.start(self.made)

    def start(self, *made: Content, words: tuple[str, ...] = ("notify", "me")) -> None:
        """Start the node with its command."""
        for one in made:
            self.station.store(one)
        self.service = self.station.run(*(one.descriptor() for one in made))
        machine: Machine = self.station.machine
        self.reactor = Spawning(machine.reactor)
        self.hooks = Hooks(
            words,
            self.service.contents,
            evolve(machine, reactor=self.reactor),
            self.service.state,
            {"PATH": "/bin", "NOTIFY_SOCKET": "/run/x", "LISTEN_FDS": "2"},
        )
        self.hooks.setServiceParent(self.service)
        self.world.run(3)

    def restart(self, *made: Content, **more: Any) -> None:
        """Stop the node and start it again."""
        self.station.stop()
        self.station.host.restart()
        self.start(*made, **more)

    @property
    def processes(self) -> list[Process]:
        """What was started."""
        return self.reactor.processes


class RunTests(HooksCase):
    """When it is run, and with what."""

    def test_facts_in_the_environment(self):
        """The command's words are the operator's, the facts are in its environment."""
        (process,) = self.processes
        self.assertEqual(("notify", "me"), process.argv)
        self.assertEqual(
            {
                "PATH": "/bin",
                "P2PDIST_NAME": "file.bin",
                "P2PDIST_PATH": f"{DATA}/file.bin",
                "P2PDIST_HASH_KEY": format_hash_key(self.made.hash_key),
                "P2PDIST_LENGTH": str(len(self.made.data)),
                "P2PDIST_DESCRIPTOR": "test.desc",
            },
            process.environment,
        )
        self.assertFalse(self.hooks.idle)
        process.end()
        self.world.run(1)
        self.assertTrue(self.hooks.idle)

    def test_once(self):
        """It is run once for each content, also over restarts."""
        self.processes[0].end()
        self.world.run(5)
        self.assertEqual(1, len(self.processes))
        self.restart(self.made)
        self.assertEqual([], self.processes)

    def test_again_after_it_was_cut_short(self):
        """A run that the node's end cut short is made good; its process is told to end."""
        (process,) = self.processes
        stopping = self.service.stopService()
        self.assertEqual(["TERM"], process.signals)
        self.assert_waiting(stopping)
        process.end(signal=15)
        self.world.wait_for(stopping)
        self.station.service = None
        self.station.host.restart()
        self.start(self.made)
        self.assertEqual(1, len(self.processes))

    def test_failure_is_told(self):
        """A command that fails is logged with the end of what it said, and counts as run."""
        (process,) = self.processes
        process.command.outReceived(b"x" * limits.HOOK_OUTPUT_BYTES)
        process.command.errReceived(b"no such host\n")
        self.assertEqual(limits.HOOK_OUTPUT_BYTES, len(process.command.output))
        with capturedLogs() as events:
            process.end(7)
        (said,) = [event for event in events if "output" in event]
        self.assertEqual("ended with 7", said["how"])
        self.assertTrue(said["output"].endswith("no such host"))
        self.assertEqual(1, self.hooks.failures)
        self.world.run(5)
        self.assertEqual(1, len(self.processes))

    def test_that_cannot_be_started(self):
        """A command that is not there is told, and the node goes on."""
        self.processes[0].end()
        with capturedLogs() as events:
            self.restart(content({"new.bin": PIECE}), words=("nothing",))
        (said,) = [event for event in events if "output" in event]
        self.assertIn("could not be started", said["how"])
        self.assertIn("No such file", said["output"])
        self.assertTrue(self.hooks.idle)


class BoundTests(HooksCase):
    """What it may use up."""

    def test_some_at_a_time(self):
        """HOOKS run side by side, the others follow."""
        self.processes[0].end()
        many = [content({f"{n}.bin": 1000 + n}, seed=n) for n in range(limits.HOOKS + 2)]
        self.restart(*many)
        self.assertEqual(limits.HOOKS, len(self.processes))
        self.processes[0].end()
        self.assertEqual(limits.HOOKS + 1, len(self.processes))

    def test_one_that_hangs(self):
        """After HOOK_S it is told to end, and killed HOOK_KILL_S later."""
        (process,) = self.processes
        self.world.run(limits.HOOK_S)
        self.assertEqual(["TERM"], process.signals)
        self.world.run(limits.HOOK_KILL_S)
        self.assertEqual(["TERM", "KILL"], process.signals)
        process.end(signal=9)
        self.assertEqual(1, self.hooks.failures)

    def test_memory_is_bounded(self):
        """The last HOOKED contents are remembered."""
        state = self.service.state
        assert state is not None
        old = "".join(f"b3:{number:064x}\n" for number in range(limits.HOOKED))
        state.save_hooked(old.encode())
        self.processes[0].end()
        self.hooks.startService()
        self.hooks._done = dict.fromkeys(old.split())
        self.hooks._ended("b3:new", "x", _running(self.hooks, "b3:new"), 0)
        self.world.run(1)
        kept = state.load_hooked().decode().split()
        self.assertEqual((limits.HOOKED, "b3:new"), (len(kept), kept[-1]))


def _running(hooks: Hooks, key: str) -> Command:
    command = Command(None)
    hooks._running[key] = command
    return command


class WordTests(TestCase):
    """What the option says."""

    def test_words(self):
        """Words are split as a shell splits them, and nothing else is done."""
        self.assertEqual(("echo", "a b", "$HOME;"), parse_command("echo 'a b' $HOME\\;"))
        for wrong in ("", "  ", "echo 'x", "a\0b"):
            self.assertRaises(ConfigurationError, parse_command, wrong)
