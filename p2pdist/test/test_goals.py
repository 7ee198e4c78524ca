"""Tests of --exit-when: pure decisions, and the production service that ends."""

from __future__ import annotations

from attrs import evolve

from p2pdist import limits
from p2pdist.daemon.goals import Ending, Goal, Kind, Standing, parse_goal, verdict
from p2pdist.errors import ConfigurationError
from p2pdist.stages import Stage
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import one_file
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan

SEEDING, LEECHING, FAILED = Stage.SEEDING, Stage.LEECHING, Stage.FAILED


class GoalTests(TestCase):
    """What the option says, and when it is reached."""

    def test_parse(self):
        """Each goal has its form; anything else is refused with all of them."""
        self.assertEqual(Goal(Kind.DONE), parse_goal("done"))
        self.assertEqual(Goal(Kind.SEEDED, ratio=1.5), parse_goal("seeded:1.5"))
        self.assertEqual(Goal(Kind.FLEET, nodes=2), parse_goal("fleet-done"))
        self.assertEqual(Goal(Kind.FLEET, nodes=40), parse_goal("fleet-done:40"))
        too_much = f"seeded:{limits.RATIO_MAX * 2}"
        for wrong in (
            *("", "never", "done:1", "seeded", "seeded:", "seeded:0", "seeded:-1", "seeded:nan"),
            *("seeded:inf", too_much, "fleet-done:", "fleet-done:0", "fleet-done:x", "fleet:3"),
        ):
            error = self.assertRaises(ConfigurationError, parse_goal, wrong)
            self.assertIn("seeded:RATIO", str(error))

    def test_done(self):
        """Every content has to be complete; one that failed makes the exit code 1."""
        goal = Goal(Kind.DONE)
        done, going, failed = (Standing(stage=stage) for stage in (SEEDING, LEECHING, FAILED))
        for contents, code in (
            ((), None),
            ((done, done), 0),
            ((done, going), None),
            ((done, failed), 1),
            ((failed,), 1),
            ((failed, going), None),
        ):
            self.assertEqual(code, verdict(goal, contents), contents)

    def test_seeded(self):
        """Each content was sent so many times its length."""
        goal = Goal(Kind.SEEDED, ratio=1.5)
        enough, less = (Standing(stage=SEEDING, ratio=ratio) for ratio in (1.5, 1.4))
        self.assertEqual(0, verdict(goal, [enough, enough]))
        self.assertIsNone(verdict(goal, [enough, less]))
        self.assertIsNone(verdict(goal, [Standing(stage=LEECHING, ratio=2.0)]))

    def test_fleet(self):
        """Everybody known is done, and there are so many."""
        for fleet, done, code in ((1, 1, None), (2, 1, None), (2, 2, 0), (3, 3, 0)):
            found = verdict(Goal(Kind.FLEET), [Standing(stage=SEEDING, fleet=fleet, done=done)])
            self.assertEqual(code, found, (fleet, done))
        lost = Standing(stage=SEEDING, fleet=3, done=2, lost=("rack-7",))
        self.assertEqual(1, verdict(Goal(Kind.FLEET), [lost]))
        self.assertIsNone(verdict(Goal(Kind.FLEET), [evolve(lost, done=1)]))
        three = Standing(stage=SEEDING, fleet=3, done=3)
        self.assertIsNone(verdict(Goal(Kind.FLEET, nodes=4), [three]))


class EndingTests(TestCase):
    """A process that ends by itself."""

    def setUp(self):
        """A seed, and a downloader with a goal."""
        self.made = one_file()
        self.world = lan()
        self.seed = Station.at(self.world, "10.0.0.1")
        self.seed.store(self.made)
        self.seed.run(self.made.descriptor(), name="seed")
        self.leech = Station.at(self.world, "10.0.0.2")
        self.ends: list[tuple[float, int]] = []

    def aim(self, station: Station, goal: str, **more) -> Ending:
        """Give a node a goal."""
        assert station.service is not None
        contents, clock = station.service.contents, station.machine.reactor
        ending = Ending(
            parse_goal(goal),
            contents,
            clock,
            lambda code: self.ends.append((self.world.now, code)),
            **more,
        )
        ending.setServiceParent(station.service)
        return ending

    def test_done(self):
        """The node ends within a second of being done, and once."""
        self.leech.run(pointing(self.made, self.seed))
        self.aim(self.leech, "done")
        self.world.run_until(lambda: self.leech.session.stage is SEEDING)
        done_at = self.world.now
        self.world.run(10)
        ((ended_at, code),) = self.ends
        self.assertEqual(0, code)
        self.assertLessEqual(ended_at - done_at, limits.PROGRESS_EVERY_S)

    def test_other_work_is_waited_for(self):
        """It waits for the command of --on-complete, whose failure is the exit code."""
        self.leech.run(pointing(self.made, self.seed))
        busy = [True]
        self.aim(self.leech, "done", busy=lambda: busy[0], failed=lambda: True)
        self.world.run(20)
        self.assertEqual([], self.ends)
        busy[0] = False
        self.world.run(2)
        self.assertEqual([1], [code for _, code in self.ends])

    def test_fleet(self):
        """Both end when both are done, not at once but FLEET_DONE_S later; the last one too."""
        self.aim(self.seed, "fleet-done:2")
        self.world.run(limits.FLEET_DONE_S + 5)
        self.assertEqual([], self.ends)
        self.leech.run(pointing(self.made, self.seed), name="leech")
        self.aim(self.leech, "fleet-done:2")
        self.world.run_until(lambda: self.leech.session.stage is SEEDING)
        done_at = self.world.now
        self.world.run_until(lambda: self.ends)
        self.seed.stop()
        self.world.run(5)
        self.assertEqual([0, 0], [code for _, code in self.ends])
        for ended_at, _ in self.ends:
            self.assertGreaterEqual(ended_at - done_at, limits.FLEET_DONE_S - 1)

    def test_lost_machine(self):
        """One that crashed is given FLEET_LOST_S to come again; then the node ends with 1."""
        self.aim(self.seed, "fleet-done")
        third = Station.at(self.world, "10.0.0.3")
        self.leech.run(pointing(self.made, self.seed), name="leech")
        third.run(pointing(self.made, self.seed), name="crashing")
        self.world.run_until(lambda: self.fleet_of("crashing"))
        third.host.crash()
        crashed_at = self.world.now
        self.world.run_until(lambda: self.ends, timeout=600)
        self.assertEqual([1], [code for _, code in self.ends])
        waited = self.ends[0][0] - crashed_at
        known_after = limits.CENSUS_ALIVE_S * limits.CENSUS_SILENT_ROUNDS
        self.assertGreater(waited, limits.FLEET_LOST_S)
        self.assertLess(waited, limits.FLEET_LOST_S + known_after + 10)

    def fleet_of(self, name: str) -> bool:
        """Tell whether the seed has heard of a machine."""
        return any(host.name == name for host in self.seed.session.fleet.hosts())

    def test_paused_content_is_waited_for(self):
        """What is paused is not done."""
        service = self.leech.run(pointing(self.made, self.seed))
        self.aim(self.leech, "done")
        other = pointing(self.made, self.seed).hash_key
        self.world.wait_for(service.contents.pause(other))
        self.world.run(10)
        self.assertEqual([], self.ends)

    def test_stop(self):
        """A stopped node decides nothing more."""
        self.leech.run(pointing(self.made, self.seed))
        self.aim(self.leech, "done")
        self.leech.stop()
        self.world.run(5)
        self.assertEqual([], self.ends)
