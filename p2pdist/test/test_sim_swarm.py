"""Whole services in the simulated network: from a descriptor to verified copies everywhere."""

from __future__ import annotations

import errno
import os

from attrs import evolve

from p2pdist import limits
from p2pdist.errors import ContentConflict, NodeStopped
from p2pdist.ids import HashKey, NodeID
from p2pdist.overlay.bootstrap import EntryState
from p2pdist.overlay.messages import (
    Status,
)
from p2pdist.stages import Stage
from p2pdist.storage.disk import Access
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, failures_of, pointing
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import DATA, PIECE, Content, content, folder, one_file
from p2pdist.test.support import TestCase


class ReadOnlyDisk(SimDisk):
    """A disk that programs can only read."""

    def open_file(self, parent: int, name: str, access: Access, follow: bool = False) -> int:
        """Open for reading, or refuse; a missing file is missing first, as on Linux."""
        here = self.facts_at(parent, name) is not None
        if access is Access.CREATE or (access is Access.UPDATE and here):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super().open_file(parent, name, access, follow)

    def make_directory(self, parent: int, name: str) -> None:
        """Refuse."""
        del parent, name
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def lan(seed: int = 1, *, loss: float = 0.0) -> World:
    """Return a world of short ways."""
    world = World(seed)
    world.link(loss=loss, delay=(0.001, 0.003), bandwidth=20_000_000)
    return world


def swarm(world: World, made: Content, count: int) -> tuple[Station, Station, list[Station]]:
    """Start a bootstrap node that holds nothing, a seed, and ``count`` downloaders."""
    bootstrap = Station.at(world, "10.0.0.1")
    bootstrap.run()
    seed = Station.at(world, "10.0.0.2")
    seed.store(made)
    seed.run(pointing(made, bootstrap))
    leeches = [Station.at(world, f"10.0.1.{number + 1}") for number in range(count)]
    for leech in leeches:
        leech.run(pointing(made, bootstrap))
    return bootstrap, seed, leeches


class MainJobTests(TestCase):
    """One descriptor, N machines, the whole content everywhere."""

    def check(self, world: World, made: Content, count: int, timeout: float = 60) -> list[Station]:
        """Run a swarm to its end, stop everything, and return the downloaders."""
        bootstrap, seed, leeches = swarm(world, made, count)
        left = list(leeches)

        def done() -> bool:
            while left and left[-1].session.stage is Stage.SEEDING:
                left.pop()
            return not left

        world.run_until(done, timeout)
        for leech in leeches:
            self.assertTrue(leech.holds(made))
            beside = [path for path in leech.disk.paths(DATA) if "p2pdist" in path]
            self.assertEqual([], beside, "nothing is left beside the content")
        for station in (bootstrap, seed, *leeches):
            station.stop()
        return leeches

    def test_file_reaches_five_downloaders(self):
        """A file reaches five downloaders through a bootstrap that is no member."""
        self.check(lan(), content({"model.bin": 12 * PIECE + 77}), 5)

    def test_folder_reaches_five_downloaders(self):
        """A folder with nested, empty and non-ASCII files arrives whole, with its modes."""
        leeches = self.check(lan(), folder(), 5)
        self.assertEqual(0o755, leeches[0].disk.mode(f"{DATA}/tree/b/run") & 0o777)

    def test_fifty_nodes_under_loss(self):
        """Fifty nodes get a file while every twentieth datagram is lost."""
        self.check(lan(3, loss=0.05), content({"model.bin": 9 * PIECE}), 48, timeout=120)

    def test_same_seed_same_trace(self):
        """The same seed gives the same trace of a whole swarm; another seed another one."""

        def trace(seed: int) -> str:
            world = lan(seed, loss=0.02)
            self.check(world, one_file(), 4)
            return world.trace_hash()

        self.assertEqual(trace(5), trace(5))
        self.assertNotEqual(trace(5), trace(6))

    def test_zero_pieces_are_not_sent(self):
        """All-zero pieces are neither sent nor written, and the copy is equal all the same."""
        made = content({"image.raw": 20 * PIECE}, zeros=tuple(range(2, 18)))
        world = lan()
        _, seed, (leech,) = swarm(world, made, 1)
        world.run_until(lambda: leech.session.stage is Stage.SEEDING)
        self.assertTrue(leech.holds(made))
        self.assertEqual(4 * PIECE, seed.session.transfer.progress().uploaded_bytes)

    def test_empty_file(self):
        """A file without any byte is distributed like any other."""
        self.check(lan(), content({"empty": 0}), 2)

    def test_all_addresses_are_ipv6(self):
        """A swarm without any IPv4 address works."""
        world = lan()
        made = one_file()
        stations = [Station.at(world, f"fd00::{number}") for number in (1, 2, 3)]
        stations[1].store(made)
        for station in stations[1:]:
            station.run(pointing(made, stations[0]), listen=("::",))
        stations[0].run(listen=("::",))
        world.run_until(lambda: stations[2].holds(made))


class SeedScenarioTests(TestCase):
    """What the whole idea began with, with files."""

    def test_chain_with_direct_answer(self):
        """A knows B, B knows C, C's PeerTable has D and the dead E: A fetches from D and seeds."""
        world = lan()
        made = one_file()
        a, b, c, d, e = (Station.at(world, f"10.0.0.{number}") for number in range(1, 6))
        d.store(made)
        service_c = c.run()
        b.run(nodes=(c,))
        d.run(pointing(made))
        world.run(5)
        table = service_c.overlay.network.peers
        topic = d.session.transfer.topic
        for station in (d, e):
            table.put(topic, NodeID(bytes(20)), station.address, Status.SEED, 0, world.now)
        start = len(world.trace)
        a.run(pointing(made, b))
        world.run_until(lambda: d.session.membership.joined)
        (seen,) = d.session.membership.joined.values()
        self.assertEqual((a.address, Status.IDLE), (seen.address, seen.status))
        world.run_until(lambda: a.session.stage is Stage.SEEDING)
        world.run(3)
        self.assertTrue(a.holds(made))
        hops = [
            (record.source[0][-1], record.target[0][-1])
            for record in world.trace[start:]
            if record.kind == "udp"
        ]
        order = [hops.index(hop) for hop in (("1", "2"), ("2", "3"), ("3", "1"))]
        self.assertEqual(sorted(order), order, "A asks B, B asks C, C answers A directly")
        self.assertIn(("1", "5"), hops, "A pings E")
        (peer,) = a.session.membership.joined.values()
        self.assertEqual("10.0.0.4", peer.address.host)
        self.assertIs(Status.SEED, d.session.membership.joined[seen.node_id].status)


class RestartTests(TestCase):
    """Crashes, stops and what is there afterwards."""

    def start(self, made: Content) -> tuple[World, Station, Station, Station]:
        """Start a slow swarm of one downloader and stop the world half way."""
        world = lan(7)
        world.link(delay=(0.001, 0.003), bandwidth=1_000_000)
        bootstrap, seed, (leech,) = swarm(world, made, 1)
        world.run_until(lambda: leech.session.transfer.progress().have_pieces >= made.count // 2)
        return world, bootstrap, seed, leech

    def test_resumes_after_kill(self):
        """After SIGKILL the download goes on with what was synced, and ends equal."""
        made = content({"model.bin": 200 * PIECE})
        world, bootstrap, seed, leech = self.start(made)
        world.run(limits.SYNC_EVERY_S + 0.5)
        leech.host.kill()
        leech.disk.crash(lambda: 1.0)
        before = seed.session.transfer.progress().uploaded_bytes
        leech.host.restart()
        leech.run(pointing(made, bootstrap))
        world.run_until(lambda: leech.session.stage is Stage.SEEDING, timeout=120)
        self.assertTrue(leech.holds(made))
        again = seed.session.transfer.progress().uploaded_bytes - before
        self.assertLess(again, len(made.data) * 3 // 4, "what was synced is not sent again")

    def test_resumes_after_power_loss(self):
        """After a power failure nothing wrong is trusted, and the download ends equal."""
        made = content({"model.bin": 100 * PIECE})
        world, bootstrap, _, leech = self.start(made)
        leech.host.crash()
        leech.host.restart()
        leech.run(pointing(made, bootstrap))
        world.run_until(lambda: leech.session.stage is Stage.SEEDING, timeout=120)
        self.assertTrue(leech.holds(made))

    def test_partial_node_serves_after_restart_without_the_seed(self):
        """Two halves that restart without the seed serve each other what they have."""
        made = content({"model.bin": 40 * PIECE})
        world, bootstrap, seed, leech = self.start(made)
        leech.stop()
        seed.stop()
        leech.host.restart()
        leech.run(pointing(made, bootstrap))
        world.run(3)
        other = Station.at(world, "10.0.1.9")
        other.run(pointing(made, bootstrap))
        have = leech.session.transfer.progress().have_pieces
        self.assertGreater(have, 0)
        world.run_until(lambda: other.session.transfer.progress().have_pieces == have, timeout=60)

    def test_complete_copy_is_trusted_after_restart(self):
        """A complete copy whose file looks as it did is served again at once, without hashing."""
        made = one_file()
        world = lan()
        bootstrap, _, (leech,) = swarm(world, made, 1)
        world.run_until(lambda: leech.session.stage is Stage.SEEDING)
        leech.stop()
        leech.host.restart()
        reads = len(leech.disk.calls)
        leech.run(pointing(made, bootstrap))
        world.run_until(lambda: leech.session.stage is Stage.SEEDING)
        self.assertNotIn(
            "read", [call[0] for call in leech.disk.calls[reads:] if "file.bin" in call[1]]
        )

    def test_restarted_node_finds_its_way_without_bootstrap(self):
        """When every bootstrap address is dead, saved neighbours and peers lead the way."""
        made = content({"model.bin": 60 * PIECE})
        world, bootstrap, _, leech = self.start(made)
        world.run(1)
        leech.stop()
        bootstrap.stop()
        bootstrap.host.crash()
        leech.host.restart()
        leech.run(pointing(made, bootstrap))
        world.run_until(lambda: leech.session.stage is Stage.SEEDING, timeout=60)
        self.assertTrue(leech.holds(made))

    def test_stop_in_the_middle_leaves_nothing(self):
        """A stop during the download leaves no delayed call, port or unfired Deferred."""
        made = content({"model.bin": 60 * PIECE})
        _, bootstrap, seed, leech = self.start(made)
        failures = failures_of(leech.session.complete)
        for station in (leech, seed, bootstrap):
            station.stop()
        self.assertEqual(0, leech.disk.open_handles)
        self.assertEqual([NodeStopped], [failure.type for failure in failures])


class TroubleTests(TestCase):
    """What goes wrong outside, and what is said about it."""

    def test_different_file_is_refused_before_any_download(self):
        """Another file under the target's name is left alone, and nothing is fetched."""
        made = one_file()
        world = lan()
        bootstrap, seed, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        leech.disk.put(f"{DATA}/file.bin", b"mine")
        leech.run(pointing(made, bootstrap))
        errors = failures_of(leech.session.complete)
        world.run_until(lambda: leech.session.stage is Stage.FAILED)
        self.assertEqual([ContentConflict], [failure.type for failure in errors])
        self.assertIn("file.bin", leech.session.status().error)
        self.assertEqual(b"mine", leech.disk.get(f"{DATA}/file.bin"))
        self.assertEqual(0, seed.session.transfer.progress().uploaded_bytes)

    def test_disk_that_is_too_small_is_said_before_the_start(self):
        """Too little space pauses before the first piece, says how much is short, and resumes."""
        made = content({"model.bin": 30 * PIECE})
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        leech.disk.capacity = 10 * PIECE
        leech.run(pointing(made, bootstrap))
        world.run_until(lambda: "bytes short" in leech.session.status().waiting_for, timeout=20)
        self.assertIn(DATA, leech.session.status().waiting_for)
        beside = [path for path in leech.disk.paths(DATA) if "p2pdist" in path]
        self.assertEqual([], beside, "nothing was begun")
        leech.disk.capacity = 1 << 40
        world.run_until(lambda: leech.session.stage is Stage.SEEDING, timeout=90)
        self.assertTrue(leech.holds(made))

    def test_read_only_folder_is_said(self):
        """A folder that cannot be written to fails the download with its path and the reason."""
        made = one_file()
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1", disk=ReadOnlyDisk())
        leech.run(pointing(made, bootstrap), state_dir=None)
        world.run_until(lambda: leech.session.stage is Stage.FAILED)
        error = leech.session.status().error
        self.assertIn(DATA, error)
        self.assertIn("Read-only file system", error)

    def test_read_only_media_is_seeded(self):
        """A complete file on media that cannot be written to is checked and served."""
        made = one_file()
        world = lan()
        seed = Station.at(world, "10.0.0.2", disk=ReadOnlyDisk())
        seed.store(made)
        seed.run(pointing(made), state_dir=None)
        leech = Station.at(world, "10.0.1.1")
        leech.run(pointing(made, seed))
        world.run_until(lambda: leech.holds(made))

    def test_wrong_descriptor_name_is_said(self):
        """Metadata that does not agree with the descriptor stops the session with a reason."""
        made = one_file()
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        leech.run(evolve(pointing(made, bootstrap), name="other.bin"))
        world.run_until(lambda: leech.session.stage is Stage.FAILED)
        self.assertIn("name", leech.session.status().error)

    def test_unknown_content_says_that_nobody_knows_it(self):
        """While nobody knows the content, the entry's state and the stage say so."""
        made = one_file()
        world = lan()
        bootstrap = Station.at(world, "10.0.0.1")
        bootstrap.run()
        leech = Station.at(world, "10.0.1.1")
        stray = evolve(pointing(made, bootstrap), hash_key=HashKey(b"x" * 32))
        leech.run(stray)
        world.run(15)
        status = leech.session.status()
        self.assertIs(Stage.FINDING, status.stage)
        self.assertEqual([EntryState.NO_PEERS], [report.state for report in status.nodes])
        self.assertIn("knows no peers", status.waiting_for)

    def test_blocked_tcp_is_named(self):
        """A peer that answers on UDP but whose TCP is refused is named as blocked."""
        made = one_file()
        world = lan()
        seed = Station.at(world, "10.0.0.2")
        seed.store(made)
        seed.run(pointing(made))
        world.run(1)
        for port in list(seed.host.tcp):
            port.close()
        leech = Station.at(world, "10.0.1.1")
        leech.run(pointing(made, seed))
        world.run_until(
            lambda: leech.session.status().nodes[0].state is EntryState.TCP_BLOCKED, timeout=60
        )
        self.assertIn("TCP", leech.session.status().waiting_for)

    def test_seed_that_starts_later_is_found(self):
        """A downloader that waits finds a seed that starts a minute later, within half a minute."""
        made = one_file()
        world = lan()
        bootstrap, _, (leech,) = (*swarm(world, made, 0)[:2], [Station.at(world, "10.0.1.1")])
        world.run(0)
        late = content({"late.bin": 5 * PIECE}, seed=9)
        leech.run(pointing(late, bootstrap))
        world.run(60)
        seed = Station.at(world, "10.0.2.1")
        seed.store(late)
        seed.run(pointing(late, bootstrap))
        world.run_until(lambda: leech.holds(late), timeout=30)

    def test_seed_dies_and_another_comes(self):
        """When the only seed dies half way, the download ends with the next one."""
        made = content({"model.bin": 60 * PIECE})
        world = lan(7)
        world.link(delay=(0.001, 0.003), bandwidth=1_000_000)
        bootstrap, seed, (leech,) = swarm(world, made, 1)
        world.run_until(lambda: leech.session.transfer.progress().have_pieces > 10)
        seed.host.crash()
        world.run(20)
        second = Station.at(world, "10.0.3.1")
        second.store(made)
        second.run(pointing(made, bootstrap))
        world.run_until(lambda: leech.holds(made), timeout=90)

    def test_many_contents_in_common(self) -> None:
        """Finished contents of two nodes leave their connections to those that are not."""
        world = lan()
        count = 2 * limits.CONNECTIONS_PER_HOST + 4
        made = [content({f"{n}.bin": 100}, seed=n) for n in range(count)]
        seed, leech = Station.at(world, "10.0.0.2"), Station.at(world, "10.0.1.1")
        for each in made:
            seed.store(each)
        seed.run(*(pointing(each, seed) for each in made))
        leech.run(*(pointing(each, seed) for each in made))
        assert leech.service is not None
        sessions = leech.service.contents.sessions.values()
        world.run_until(lambda: all(s.stage is Stage.SEEDING for s in sessions), timeout=60)

    def test_two_descriptors_in_one_process(self):
        """One process fetches two contents at once."""
        one, two = one_file(), folder()
        world = lan()
        bootstrap = Station.at(world, "10.0.0.1")
        bootstrap.run()
        seed = Station.at(world, "10.0.0.2")
        for made in (one, two):
            seed.store(made)
        seed.run(pointing(one, bootstrap), pointing(two, bootstrap))
        leech = Station.at(world, "10.0.1.1")
        leech.run(pointing(one, bootstrap), pointing(two, bootstrap))
        world.run_until(lambda: leech.holds(one) and leech.holds(two))
        leech.stop()
