"""Whole services in the simulated network: what ``why`` says of a node, under each cause.

Each test makes one thing the narrow one, whatever it takes, and asks a node over its control.
"""

from __future__ import annotations

import json
from itertools import accumulate, cycle
from typing import Any

from p2pdist import limits
from p2pdist.control import Control
from p2pdist.descriptor import DescriptorParser
from p2pdist.stages import Stage
from p2pdist.swarm.throttle import RateLimits
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import PIECE, Content, content
from p2pdist.test.support import TestCase
from p2pdist.test.test_sim_swarm import lan

NAME = "host-under-test"


def timer(hashing_s: float, writing_s: float) -> Any:
    """Return a timer by which each piece takes so long: to check, and to write."""
    return accumulate(cycle((0.0, hashing_s, writing_s))).__next__


class WhyTests(TestCase):
    """Each of the causes by itself, named by the node itself and by its seed."""

    def setUp(self):
        """Start a seed of two hundred pieces on fast links, and set up a machine."""
        self.world: World = lan()
        self.seed_of(content({"model.bin": 200 * PIECE}))
        self.leech = Station.at(self.world, "10.0.1.1")

    def seed_of(self, made: Content) -> None:
        """Start a seed, the only one."""
        self.made = made
        count = len(self.world.hosts)
        self.seed = Station.at(self.world, f"10.0.0.{count + 1}")
        self.seed.store(made)
        self.seed.run(pointing(made), name="seed")
        self.world.run(1)

    def start(self, **settings: Any) -> None:
        """Start the download."""
        self.leech.run(pointing(self.made, self.seed), name=NAME, **settings)

    def run_to(self, pieces: int) -> None:
        """Run until so many pieces are there."""
        self.world.run_until(lambda: self.leech.session.transfer.progress().have_pieces >= pieces)

    def told(self, asked: Station, name: str = NAME) -> dict[str, Any]:
        """Return what the node ``asked`` says of the machine called ``name``."""
        assert asked.service is not None
        control = Control(asked.service, DescriptorParser())
        answer = self.world.wait_for(control.answer(json.dumps({"method": "fleet"}).encode()))
        hosts = {host["name"]: host for host in answer["result"]["hosts"]}
        found: dict[str, Any] = hosts.get(name, {"reason": "not known"})
        return found

    def assert_told(self, reason: str, *asked: Station) -> None:
        """Expect this reason from the machine itself and from ``asked``, before anything else."""
        for station in (self.leech, *asked):
            self.assertEqual(reason, self.told(station)["reason"])

    def test_finding_peers(self):
        """Nobody is there: it has no peer yet."""
        self.seed.host.crash()
        self.start()
        self.world.run(10)
        self.assert_told("finding_peers")

    def test_no_peer_has_pieces(self):
        """The seed goes in the middle: what is missing is nowhere."""
        self.world.link(delay=(0.001, 0.003), bandwidth=1_000_000)
        other = Station.at(self.world, "10.0.1.2")
        other.run(pointing(self.made, self.seed))
        self.start()
        self.run_to(50)
        self.seed.stop()
        self.world.run(60)
        self.assert_told("no_peer_has_pieces", other)

    def test_waiting_for_slots(self):
        """More machines than the seed has slots, and none sees another: one at least waits."""
        self.world.link(delay=(0.001, 0.003), bandwidth=200_000)
        many = [Station.at(self.world, f"10.0.1.{number}") for number in range(2, 9)]
        for station in many:
            others = [one.host for one in (self.leech, *many) if one is not station]
            self.world.partition([station.host], others)
            station.run(pointing(self.made, self.seed), name=station.host.name)
        self.start()
        self.world.run(20)
        reasons = [self.told(station, station.host.name)["reason"] for station in many]
        reasons.append(self.told(self.leech)["reason"])
        self.assertEqual({"waiting_for_slots", "remote_upload"}, set(reasons))
        served = reasons.count("remote_upload")
        most = limits.UPLOAD_SLOTS_RANGE[1] + limits.GRANTS_AHEAD_MAX
        self.assertLessEqual(served, most)
        self.assertGreaterEqual(reasons.count("waiting_for_slots"), 1)

    def test_remote_upload(self):
        """The seed's line is slow, and that is all."""
        self.world.link(delay=(0.001, 0.003), bandwidth=300_000)
        self.start()
        self.run_to(20)
        self.world.run(3)
        self.assert_told("remote_upload", self.seed)

    def test_own_limit(self):
        """It is told to be slow."""
        self.start(rates=RateLimits(download=300_000))
        self.run_to(30)
        self.world.run(3)
        self.assert_told("own_limit", self.seed)

    def slow_worker(self, hashing_s: float, writing_s: float) -> None:
        """Let checking and writing take long, and bytes pile up before them."""
        self.seed_of(content({"large.bin": 400 * PIECE}))
        self.leech.timer = timer(hashing_s, writing_s)
        self.start()
        self.run_to(10)
        self.leech.host.workers.delay = (20.0, 20.0)
        self.world.run(8)

    def test_disk(self):
        """Pieces wait to be written: the disk."""
        self.slow_worker(hashing_s=0.01, writing_s=2.0)
        self.assert_told("disk", self.seed)

    def test_hashing(self):
        """Pieces wait to be checked: the processor."""
        self.slow_worker(hashing_s=2.0, writing_s=0.01)
        self.assert_told("hashing", self.seed)

    def test_disk_full(self):
        """There is no room for the next piece; how little there is, is told too."""
        self.leech.disk.capacity = 10 * PIECE
        self.start()
        self.world.run(10)
        self.assert_told("disk_full", self.seed)
        self.assertLessEqual(self.told(self.seed)["disk_free"], 10 * PIECE)

    def test_paused(self):
        """It was paused on its way: the others are told so, for as long as it is."""
        self.world.link(delay=(0.001, 0.003), bandwidth=1_000_000)
        self.start()
        self.run_to(10)
        other = Station.at(self.world, "10.0.1.2")
        other.run(pointing(self.made, self.seed, self.leech))
        self.run_to(50)
        self.seed.stop()
        self.world.run(30)
        assert self.leech.service is not None
        contents, key = self.leech.service.contents, self.made.metadata.hash_key()
        self.world.wait_for(contents.pause(key))
        self.world.run(90)
        told = self.told(other)
        self.assertEqual(("paused", "paused"), (told["state"], told["reason"]))
        self.assertFalse(told["lost"] or told["complete"] or told["left"])
        contents.resume(key)
        self.world.run_until(lambda: self.told(other)["state"] == "downloading")

    def test_done_with_free_space(self):
        """A machine that is done says so, and how much room it has left."""
        self.leech.disk.capacity = 500 * PIECE
        self.start()
        self.world.run_until(lambda: self.leech.session.stage is Stage.SEEDING)
        self.world.run(limits.FREE_SPACE_EVERY_S + limits.CENSUS_REFRESH_S + limits.UPKEEP_EVERY_S)
        self.assert_told("done", self.seed)
        free = self.told(self.seed)["disk_free"]
        self.assertLess(0, free)
        self.assertLessEqual(free, 300 * PIECE)
