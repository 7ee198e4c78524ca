"""One descriptor's life: stages, reports and what is said while waiting."""

from __future__ import annotations

import errno

from attrs import evolve
from twisted.logger import capturedLogs

from p2pdist import limits
from p2pdist.errors import NodeStopped
from p2pdist.overlay.messages import (
    Status,
)
from p2pdist.stages import Stage
from p2pdist.test.servicesworld import Station, failures_of, pointing
from p2pdist.test.storehouse import DATA, PIECE, content, one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan, swarm


class StageTests(TestCase):
    """Where a descriptor stands, step by step."""

    def test_stages_of_a_download(self):
        """A download goes through checking, resolving, finding, joining, leeching, seeding."""
        made = one_file()
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        world.run(5)
        leech = Station.at(world, "10.0.1.1")
        leech.run(pointing(made, bootstrap))
        seen: list[Stage] = []

        def watch() -> None:
            stage = leech.session.stage
            if not seen or seen[-1] is not stage:
                seen.append(stage)

        world.after_event.append(watch)
        world.run_until(lambda: leech.session.stage is Stage.SEEDING)
        expected = [Stage.CHECKING, Stage.RESOLVING, Stage.FINDING, Stage.JOINING]
        self.assertEqual([*expected, Stage.LEECHING, Stage.SEEDING], seen)
        world.after_event.clear()
        session = leech.session
        leech.stop()
        self.assertIs(Stage.STOPPED, session.stage)

    def test_status_is_declared(self):
        """Peers hear leech while fetching and seed when complete."""
        made = content({"model.bin": 30 * PIECE})
        world = lan()
        world.link(delay=(0.001, 0.003), bandwidth=1_000_000)
        _, seed, (leech,) = swarm(world, made, 1)
        joined = seed.session.membership.joined
        world.run_until(lambda: leech.session.stage is Stage.LEECHING)
        world.run(0.2)
        self.assertEqual([Status.LEECH], [peer.status for peer in joined.values()])
        world.run_until(lambda: leech.session.stage is Stage.SEEDING)
        world.run(0.2)
        self.assertEqual([Status.SEED], [peer.status for peer in joined.values()])

    def test_last_peer_leaves(self):
        """When the last peer leaves, the session looks for others."""
        made = content({"model.bin": 60 * PIECE})
        world = lan()
        world.link(delay=(0.001, 0.003), bandwidth=1_000_000)
        _, seed, (leech,) = swarm(world, made, 1)
        world.run_until(lambda: leech.session.transfer.progress().have_pieces > 3)
        seed.stop()
        world.run(1)
        self.assertIn(leech.session.stage, {Stage.FINDING, Stage.JOINING})
        self.assertIn("a peer", leech.session.status().waiting_for)

    def test_changed_file_is_for_the_operator(self):
        """A seed whose file was changed says so and fails; others get the piece elsewhere."""
        made = content({"model.bin": 8 * PIECE})
        world = lan()
        bootstrap, seed, _ = swarm(world, made, 0)
        world.run_until(lambda: seed.session.stage is Stage.SEEDING)
        path = f"{DATA}/model.bin"
        good = seed.disk.get(path)
        seed.disk.put(path, good[: 3 * PIECE] + b"?" + good[3 * PIECE + 1 :])
        other = Station.at(world, "10.0.1.1")
        other.run(pointing(made, bootstrap))
        world.run_until(lambda: seed.session.stage is Stage.FAILED)
        self.assertIn(f"{path} was changed after completion", seed.session.status().error)
        third = Station.at(world, "10.0.1.2")
        third.store(made)
        third.run(pointing(made, bootstrap))
        world.run_until(lambda: other.holds(made), timeout=60)


class TroubleTests(TestCase):
    """A disk that refuses while it is looked at."""

    def paused(self, station: Station) -> None:
        """Check that a station says what it waits for, once, and is about to go on."""
        self.assertIs(Stage.CHECKING, station.session.stage)
        self.assertIn("Input/output error", station.session.status().waiting_for)
        self.assertEqual("", station.session.status().error)

    def test_disk_that_cannot_be_looked_at_for_a_while(self):
        """EIO at the very start is a pause with its reason; the disk is looked at again."""
        made = content({"model.bin": 8 * PIECE})
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        leech.disk.put_folder(DATA)
        with capturedLogs() as logs:
            leech.run(pointing(made, bootstrap))
            leech.disk.failing["open_root"] = [errno.EIO] * 100
            for seconds in (1, limits.DISK_RETRY_S + limits.UPKEEP_EVERY_S):
                world.run(seconds)
                self.paused(leech)
            leech.disk.failing.clear()
            world.run_until(lambda: leech.holds(made), timeout=2 * limits.DISK_RETRY_S)
        told = [event["log_format"] for event in logs]
        self.assertEqual(1, sum("paused" in text for text in told))
        self.assertEqual(1, sum("goes on" in text for text in told))

    def test_stop_while_paused(self):
        """A session that waits for its disk ends at once, and looks no more."""
        made = one_file()
        world = lan()
        station = Station.at(world, "10.0.1.1")
        station.store(made)
        station.run(pointing(made))
        station.disk.failing["open_root"] = [errno.EIO] * 100
        world.run(1)
        self.paused(station)
        station.stop()
        self.assertEqual([], station.host.leaks())


class ReportTests(TestCase):
    """What people are told."""

    def test_waiting_text_of_each_stage(self):
        """Every stage says what it waits for, naming the entries of ``nodes``."""
        made = one_file()
        world = lan()
        leech = Station.at(world, "10.0.1.1")
        leech.run(pointing(made, "10.0.0.77"))
        session = leech.session
        self.assertIn("check", session.status().waiting_for)
        world.run(3)
        self.assertIs(Stage.RESOLVING, session.stage)
        self.assertIn("10.0.0.77:7667 no answer", session.status().waiting_for)

    def test_without_nodes(self):
        """Without any node the local network is all there is to wait for, if it is searched."""
        for searches, listen, told in (
            (True, (), "a node on the local network"),
            (False, (), "the local network is not searched"),
            (True, ("0.0.0.0",), "the local network is not searched"),
        ):
            leech = Station.at(lan(), "10.0.1.1")
            leech.run(pointing(one_file()), lan=searches, listen=listen)
            leech.host.world.run(3)
            self.assertIn(told, leech.session.status().waiting_for)

    def test_nodes_of_options_are_reported(self):
        """How the nodes of ``--node`` stand is told like that of the descriptor's."""
        world = lan()
        bootstrap = Station.at(world, "10.0.0.1")
        leech = Station.at(world, "10.0.1.1")
        leech.run(pointing(one_file()), nodes=(bootstrap,))
        world.run(8)
        self.assertIn("10.0.0.1:7667 no answer", leech.session.status().waiting_for)
        self.assertEqual(1, len(leech.session.status().nodes))

    def test_wait_is_logged_once(self):
        """After ten seconds the log says what is waited for; not again while that is the same."""
        made = one_file()
        world = lan()
        bootstrap = Station.at(world, "10.0.0.1")
        bootstrap.run()
        leech = Station.at(world, "10.0.1.1")
        with capturedLogs() as events:
            leech.run(pointing(made, bootstrap))
            world.run(limits.QUIET_S + 60)
        waits = [event for event in events if "waiting for" in event.get("log_format", "")]
        self.assertEqual(1, len(waits))
        self.assertIn("knows no peers", str(waits[0]["what"]))

    def test_name_before_metadata(self):
        """Without a name in the descriptor the key stands for it until the metadata is there."""
        made = one_file()
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        world.run(1)
        leech = Station.at(world, "10.0.1.1")
        nameless = evolve(pointing(made, bootstrap), name=None, length=None, piece_length=None)
        leech.run(nameless)
        self.assertTrue(leech.session.name.startswith("b3:"))
        world.run_until(lambda: leech.session.stage is Stage.SEEDING)
        self.assertEqual("file.bin", leech.session.name)
        self.assertTrue(leech.holds(made))

    def test_stop_before_complete(self):
        """Whoever waits for the content learns that the node stopped."""
        leech = Station.at(lan(), "10.0.1.1")
        leech.run(pointing(one_file()))
        errors = failures_of(leech.session.complete)
        leech.stop()
        self.assertEqual([NodeStopped], [failure.type for failure in errors])

    def test_stop_waits_for_the_files_of_a_check(self):
        """Stopped while what is on disk is checked, it fires only when the files are closed."""
        made = content({"model.bin": 40 * PIECE})
        world = lan()
        seed = Station.at(world, "10.0.0.2")
        seed.store(made)
        seed.host.workers.delay = (0.5, 0.5)
        seed.run(pointing(made))
        world.run(0.1)
        world.wait_for(seed.session.stop())
        self.assertEqual(2, seed.disk.open_handles, "the state directory and its lock")

    def test_a_late_listener_learns_the_outcome_too(self):
        """Whoever asks after the end gets the path or the error, as those who waited."""
        made = one_file()
        world = lan()
        seed = Station.at(world, "10.0.0.2")
        seed.store(made)
        seed.run(pointing(made))
        world.run_until(lambda: seed.session.stage is Stage.SEEDING)
        self.assertEqual(f"{DATA}/file.bin", self.result_of(seed.session.complete))
        self.assertEqual(f"{DATA}/file.bin", self.result_of(seed.session.complete))
        leech = Station.at(world, "10.0.1.1")
        session = leech.run(pointing(made)).contents.sessions[made.hash_key]
        leech.stop()
        self.error_of(session.complete, NodeStopped)
        self.error_of(session.complete, NodeStopped)

    def test_progress_is_logged_in_tenths(self):
        """A large download logs every tenth of its way, with rate and peers."""
        made = content({"model.bin": 60 * PIECE})
        world = lan()
        bootstrap, _, _ = swarm(world, made, 0)
        leech = Station.at(world, "10.0.1.1")
        with capturedLogs() as events:
            leech.run(pointing(made, bootstrap))
            world.run_until(lambda: leech.session.stage is Stage.SEEDING)
        percents = [event["percent"] for event in events if "percent" in event]
        self.assertEqual([10, 20, 30, 40, 50, 60, 70, 80, 90], percents)
