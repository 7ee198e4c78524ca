"""The library in the simulated network: fetch, distribute, Swarm; their ends, and their errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred

import p2pdist
from p2pdist import api, limits
from p2pdist.addresses import HostPort
from p2pdist.api import Config, RateLimits, Swarm, distribute, fetch
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import (
    AlreadyRunning,
    ConfigurationError,
    DescriptorError,
    NodeStopped,
    StorageError,
    UnsafeName,
)
from p2pdist.machine import Machine
from p2pdist.source import build_metadata
from p2pdist.stages import Stage
from p2pdist.standing import SessionStatus
from p2pdist.storage.realdisk import RealDisk
from p2pdist.test.servicesworld import Station, failures_of, pointing
from p2pdist.test.storehouse import DATA, PIECE, STATE, content, one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan

SETTINGS: dict[str, Any] = {"listen": ("0.0.0.0",), "lan": False}
HERE = Config(directory=DATA, **SETTINGS)


class LibraryCase(TestCase):
    """Programs on machines of the simulated network."""

    def setUp(self):
        """Set up a world; a reactor's machine is that of its station."""
        self.world = lan()
        self.machines: dict[Any, Machine] = {}
        self.patch(api, "machine_of", self.machines.__getitem__)

    def station(self, ip: str, *, real_files: bool = False) -> Station:
        """Return a machine; with ``real_files`` its disk is this computer's."""
        station = Station.at(self.world, ip)
        machine = station.machine
        disk = RealDisk() if real_files else machine.disk
        self.machines[station.host.reactor] = evolve(machine, disk=disk)
        return station

    def seeded(self, *, pieces: int = 4) -> tuple[Station, Descriptor]:
        """Start a service that has a content; return it with a descriptor that points to it."""
        made = content({"file.bin": pieces * PIECE})
        seed = self.station("10.0.0.1")
        seed.store(made)
        seed.run(pointing(made))
        return seed, pointing(made, seed)

    def original(self, length: int = 3 * PIECE) -> Path:
        """Make a real file."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        path = folder / "model.bin"
        path.write_bytes(bytes(range(256)) * (length // 256))
        return path

    def fails_with(self, kind: type[Exception], waiting: Deferred[Any]) -> None:
        """Run until the Deferred fails, which has to be with this kind of error."""
        failures = failures_of(waiting)
        self.world.run_until(lambda: failures)
        self.assertTrue(failures[0].check(kind), failures[0])

    def assert_nothing_left(self, station: Station) -> None:
        """Fail if the station's process has a timer, port or connection."""
        self.assertEqual([], station.host.leaks())


class FetchTests(LibraryCase):
    """``fetch``."""

    def test_path_of_the_copy(self):
        """It fires with the path when everything is verified, after a clean stop."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")
        path = self.world.wait_for(fetch(client.host.reactor, descriptor, HERE))
        self.assertEqual(f"{DATA}/file.bin", path)
        self.assertEqual(4 * PIECE, len(client.disk.get(path)))
        self.assert_nothing_left(client)
        self.assertEqual(0, client.disk.open_handles)

    def test_file_or_link(self):
        """A descriptor may be named by its file, or given as a link."""
        _, descriptor = self.seeded()
        file = Path(self.mktemp())
        file.write_text(descriptor.to_toml())
        forms: tuple[api.What, ...] = (str(file), file, descriptor.to_uri())
        for number, what in enumerate(forms):
            client = self.station(f"10.0.0.{number + 2}")
            self.world.wait_for(fetch(client.host.reactor, what, HERE))

    def test_progress(self):
        """The callback is told every PROGRESS_EVERY_S, and at the end that all is there."""
        _, descriptor = self.seeded(pieces=400)
        client = self.station("10.0.0.2")
        told: list[SessionStatus] = []
        began = self.world.now
        self.world.wait_for(fetch(client.host.reactor, descriptor, HERE, on_progress=told.append))
        seconds = (self.world.now - began) / limits.PROGRESS_EVERY_S
        self.assertEqual(int(seconds) + 1, len(told))
        self.assertIs(Stage.SEEDING, told[-1].stage)
        self.assertEqual(400, told[-1].progress.have_pieces)

    def test_callback_that_fails(self):
        """What the program's callback raises is logged, and the content still arrives."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")

        def broken(_status: SessionStatus) -> None:
            raise ZeroDivisionError("theirs")

        self.world.wait_for(fetch(client.host.reactor, descriptor, HERE, on_progress=broken))
        self.assertNotEqual([], self.flushLoggedErrors(ZeroDivisionError))

    def test_cancel(self):
        """A cancel stops cleanly, then fails with CancelledError; the next try goes on."""
        _, descriptor = self.seeded(pieces=400)
        client = self.station("10.0.0.2")
        told: list[SessionStatus] = []
        fetching = fetch(client.host.reactor, descriptor, HERE, on_progress=told.append)
        failures = failures_of(fetching)
        self.world.run_until(lambda: told and told[-1].progress.have_pieces > 50)
        fetching.cancel()
        self.world.run_until(lambda: failures)
        self.assertTrue(failures[0].check(CancelledError))
        self.assert_nothing_left(client)
        again: list[SessionStatus] = []
        self.world.wait_for(fetch(client.host.reactor, descriptor, HERE, on_progress=again.append))
        self.assertLess(again[-1].progress.downloaded_bytes, 360 * PIECE)

    def test_timeout(self):
        """Twisted's ``addTimeout`` gives up on a content that nobody has."""
        client = self.station("10.0.0.2")
        fetching = fetch(client.host.reactor, pointing(one_file(), "10.0.0.9"), HERE)
        self.fails_with(defer.TimeoutError, fetching.addTimeout(30, client.host.reactor))
        self.assert_nothing_left(client)

    def test_errors(self):
        """What is wrong fails the Deferred with the error of its kind, and nothing is left."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")
        reactor = client.host.reactor
        client.disk.put(f"{DATA}/file.bin", b"another")
        cases: tuple[tuple[api.What, Config, type[Exception]], ...] = (
            ("there is no such file", HERE, DescriptorError),
            ("p2pdist:nonsense", HERE, DescriptorError),
            (descriptor, Config(directory=DATA, listen=("10.9.9.9",)), ConfigurationError),
            (descriptor, HERE, StorageError),
        )
        for what, config, error in cases:
            self.fails_with(error, fetch(reactor, what, config))
            self.assert_nothing_left(client)

    def test_replace(self):
        """With ``replace`` another content in the place of this one makes way."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")
        client.disk.put(f"{DATA}/file.bin", b"another")
        path = self.world.wait_for(fetch(client.host.reactor, descriptor, HERE, replace=True))
        self.assertEqual(4 * PIECE, len(client.disk.get(path)))

    def test_lock_is_given_back(self):
        """After a start that failed, another node can have the state directory."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")
        kept = evolve(HERE, state_dir=STATE)
        elsewhere = evolve(kept, listen=("10.9.9.9",))
        self.fails_with(ConfigurationError, fetch(client.host.reactor, descriptor, elsewhere))
        self.world.wait_for(fetch(client.host.reactor, descriptor, kept))


class SwarmTests(LibraryCase):
    """``Swarm``."""

    def joined(self, station: Station, descriptor: Descriptor, **options: Any) -> Swarm:
        """Join, and return the swarm."""
        config = options.pop("config", HERE)
        return self.world.wait_for(Swarm.join(station.host.reactor, descriptor, config, **options))

    def test_serves_on(self):
        """A swarm that is complete serves others until it is stopped."""
        seed, descriptor = self.seeded()
        first, second = self.station("10.0.0.2"), self.station("10.0.0.3")
        swarm = self.joined(first, descriptor)
        self.world.wait_for(swarm.complete)
        seed.stop()
        at_first = evolve(descriptor, nodes=(HostPort("10.0.0.2", swarm.port),))
        self.world.wait_for(fetch(second.host.reactor, at_first, HERE))
        self.world.wait_for(swarm.stop())
        self.world.wait_for(swarm.stop())
        self.assert_nothing_left(first)

    def test_everybody_is_done(self):
        """``done`` fires when so many machines have everything, and says who they are."""
        _, descriptor = self.seeded(pieces=100)
        swarms = [
            self.joined(
                self.station(f"10.0.0.{number}"), descriptor, config=evolve(HERE, name=f"{number}")
            )
            for number in (2, 3)
        ]
        hosts = self.world.wait_for(swarms[0].done(3))
        self.assertLessEqual({"2", "3"}, {host.record.report.name for host in hosts})
        self.assertEqual(3, len(swarms[0].hosts()))
        for swarm in swarms:
            self.assertIs(Stage.SEEDING, swarm.status().stage)
            self.world.wait_for(swarm.stop())

    def test_machines_that_left_count(self):
        """A machine that took everything and left is one of those that are done."""
        _, descriptor = self.seeded()
        swarm = self.joined(self.station("10.0.0.2"), descriptor)
        done = swarm.done(3)
        self.world.wait_for(fetch(self.station("10.0.0.3").host.reactor, descriptor, HERE))
        self.assertEqual(3, len(self.world.wait_for(done)))
        self.world.wait_for(swarm.stop())

    def test_stop_ends_every_wait(self):
        """A stop fails ``complete`` with NodeStopped and ``done`` with CancelledError."""
        client = self.station("10.0.0.2")
        swarm = self.joined(client, pointing(one_file(), "10.0.0.9"))
        complete, done = failures_of(swarm.complete), failures_of(swarm.done(5))
        self.world.wait_for(swarm.stop())
        self.assertTrue(complete[0].check(NodeStopped))
        self.assertTrue(done[0].check(CancelledError))
        self.assert_nothing_left(client)

    def test_cancelled_waits_stop_nothing(self):
        """Cancelling ``complete`` or ``done`` ends that wait only."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")
        swarm = self.joined(client, descriptor)
        waits: list[Deferred[Any]] = [swarm.complete, swarm.done(2)]
        for waiting in waits:
            failures = failures_of(waiting)
            waiting.cancel()
            self.assertTrue(failures[0].check(CancelledError))
        self.world.wait_for(swarm.complete)
        self.world.wait_for(swarm.stop())

    def test_only_what_is_there(self):
        """With ``path`` nothing is fetched: what is not this content there is refused."""
        client = self.station("10.0.0.2")
        client.disk.put(f"{DATA}/mine.bin", b"another")
        bare = evolve(pointing(one_file(), "10.0.0.9"), length=None, piece_length=None)
        swarm = self.joined(client, bare, path=f"{DATA}/mine.bin")
        self.fails_with(StorageError, swarm.complete)
        self.world.wait_for(swarm.stop())

    def test_reactor_forgets_it(self):
        """After a stop nothing is left to be called when the reactor shuts down."""
        client = self.station("10.0.0.2")
        reactor: Any = client.host.reactor
        forget, forgotten = reactor.removeSystemEventTrigger, []

        def note(trigger: Any) -> None:
            forgotten.append(trigger)
            forget(trigger)

        self.patch(reactor, "removeSystemEventTrigger", note)
        swarm = self.joined(client, pointing(one_file(), "10.0.0.9"))
        self.world.wait_for(swarm.stop())
        self.assertEqual(1, len(forgotten))

    def test_shutdown_of_the_reactor(self):
        """When the reactor shuts down, the swarm leaves cleanly before it."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")
        self.joined(client, descriptor)
        self.world.wait_for(client.host.reactor.fireSystemEvent("shutdown"))
        self.assert_nothing_left(client)

    def test_limits(self):
        """A limit set while it runs holds from then on."""
        _, descriptor = self.seeded(pieces=64)
        client = self.station("10.0.0.2")
        swarm = self.joined(client, descriptor)
        swarm.set_limits(RateLimits(download=16 * PIECE))
        began = self.world.now
        self.world.wait_for(swarm.complete)
        self.assertGreater(self.world.now - began, 3)
        self.world.wait_for(swarm.stop())

    def test_state_directory_is_locked(self):
        """Two nodes with one state directory are refused."""
        _, descriptor = self.seeded()
        client = self.station("10.0.0.2")
        kept = evolve(HERE, state_dir=STATE)
        swarm = self.joined(client, descriptor, config=kept)
        failures = failures_of(fetch(client.host.reactor, descriptor, kept))
        self.world.run_until(lambda: failures)
        self.assertTrue(failures[0].check(AlreadyRunning))
        self.world.wait_for(swarm.stop())


class DistributeTests(LibraryCase):
    """``distribute``."""

    def distributed(self, station: Station, path: Path, **options: Any) -> Swarm:
        """Distribute from a station with real files."""
        config = Config(directory=str(path.parent), **SETTINGS)
        return self.world.wait_for(distribute(station.host.reactor, path, config, **options))

    def test_descriptor_for_the_others(self):
        """Its descriptor, as text, is all that another machine needs."""
        path = self.original()
        sender = self.station("10.0.0.1", real_files=True)
        hashed: list[tuple[int, int]] = []
        swarm = self.distributed(
            sender,
            path,
            nodes=["10.0.0.1:7667", HostPort("10.0.0.1", 7667)],
            name="renamed.bin",
            on_hashed=lambda done, total: hashed.append((done, total)),
        )
        self.assertEqual([HostPort("10.0.0.1", 7667)], list(swarm.descriptor.nodes))
        client = self.station("10.0.0.2")
        received = DescriptorParser().parse(swarm.descriptor.to_toml())
        copy = self.world.wait_for(fetch(client.host.reactor, received, HERE))
        self.assertEqual(f"{DATA}/renamed.bin", copy)
        self.assertEqual(path.read_bytes(), client.disk.get(copy))
        self.world.wait_for(swarm.stop())
        self.assertEqual([path], list(path.parent.iterdir()))

    def test_hashing_is_told_and_can_be_cancelled(self):
        """While a file is hashed the program is told how far; a cancel ends it."""
        sender = self.station("10.0.0.1", real_files=True)
        sender.host.workers.delay = (5.0, 5.0)
        hashed: list[tuple[int, int]] = []
        threads: list[Callable[[int, int], None]] = []
        build = build_metadata

        def watched(*arguments: Any, progress: Callable[[int, int], None], **more: Any) -> Any:
            threads.append(progress)
            return build(*arguments, progress=progress, **more)

        self.patch(api, "build_metadata", watched)
        work = distribute(
            sender.host.reactor,
            self.original(),
            HERE,
            on_hashed=lambda done, total: hashed.append((done, total)),
        )
        failures = failures_of(work)
        self.world.run(4.5 * limits.PROGRESS_EVERY_S)
        self.assertEqual([(0, 0)] * 4, hashed)
        work.cancel()
        self.assertTrue(failures[0].check(CancelledError))
        self.world.run(10)
        self.assert_nothing_left(sender)
        self.assertRaises(CancelledError, threads[0], 1, 2)  # so the threads end

    def test_errors(self):
        """A missing file, an unsafe name or a bad node fails the Deferred."""
        sender = self.station("10.0.0.1", real_files=True)
        path = self.original()
        cases: tuple[tuple[Path, dict[str, Any], type[Exception]], ...] = (
            (path.with_name("none"), {}, StorageError),
            (path, {"name": "../up"}, UnsafeName),
            (path, {"nodes": ["::1::2:x"]}, ConfigurationError),
        )
        for wrong, options, error in cases:
            self.fails_with(error, distribute(sender.host.reactor, wrong, HERE, **options))
            self.assert_nothing_left(sender)

    def test_private(self):
        """A private content has a secret of its own, goes to whoever has it, or to nobody."""
        path = self.original()
        sender, client = self.station("10.0.0.1", real_files=True), self.station("10.0.0.2")
        config = Config(directory=str(path.parent), **SETTINGS)
        work = distribute(sender.host.reactor, path, config, nodes=["10.0.0.1:7667"], private=True)
        swarm = self.world.wait_for(work)
        self.assertEqual(1, len(swarm.descriptor.secrets))
        copy = self.world.wait_for(fetch(client.host.reactor, swarm.descriptor, HERE))
        self.assertEqual(path.read_bytes(), client.disk.get(copy))
        stranger = self.station("10.0.0.3")
        public = evolve(swarm.descriptor, secrets=())
        fetching = fetch(stranger.host.reactor, public, HERE)
        self.world.run(60)
        self.assert_waiting(fetching)
        failures_of(fetching)
        fetching.cancel()
        self.world.wait_for(swarm.stop())


class PackageTests(TestCase):
    """``from p2pdist import ...``."""

    def test_names(self):
        """The package hands out the library's names, and no others."""
        self.assertEqual(set(p2pdist.__all__) - {"__version__"}, set(api.__all__))
        for name in api.__all__:
            self.assertIs(getattr(api, name), getattr(p2pdist, name))
        for name in ("nothing", "real_machine"):
            self.assertRaises(AttributeError, getattr, p2pdist, name)

    def test_import_is_cheap(self):
        """Importing the package alone imports neither Twisted nor any module of ours."""
        code = "import p2pdist, sys; print(*(n for n in sys.modules if n[:7] in sys.argv[1:]))"
        root = str(Path(p2pdist.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", code, "p2pdist", "twisted"],
            env={**os.environ, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual("p2pdist", done.stdout.strip())
