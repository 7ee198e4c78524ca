"""The k-th call to the disk fails, in a whole node: for every k, wherever in its life that is.

Two production services in the simulated network, one with a disk that fails once. Whatever fails,
the node goes on, or ends with a sentence about it; it stops in time; no wrong byte is served or
kept; and its next process finishes. Source: libtorrent's "fail every allocation in turn".

Job: the four lives; used by ``test_every_k`` (some k) and ``tools/every_k.py`` (every k).
Tests: ``test_every_k``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from p2pdist import limits
from p2pdist.errors import P2PDistError
from p2pdist.stages import Stage
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import PIECE, Content, content

PATIENCE_S = 4 * limits.DISK_RETRY_S
"""Longer than any retry: who has neither finished nor said why by then hangs."""


class Broken(AssertionError):
    """A promise was not kept."""


def small() -> Content:
    """Make up a folder of five pieces."""
    return content({"t/a": 2 * PIECE + 7, "t/b/c*": 2 * PIECE, "t/d": 900})


@define
class Pair:
    """A seed and a downloader, one of which has the disk that fails.

    Attributes:
        world: they live in.
        made: the content.
        seed: has it.
        leech: wants it.
        failing: the one with the bad disk.
        said: what it ended with, if it did.
    """

    world: World
    made: Content
    seed: Station
    leech: Station
    failing: Station
    said: str = ""

    @classmethod
    def make(cls, *, seed_fails: bool = False) -> Pair:
        """Set up the machines; nothing runs yet."""
        world, made = World(1), small()
        world.link(delay=(0.001, 0.003), bandwidth=50_000_000)
        seed, leech = Station.at(world, "10.0.0.1"), Station.at(world, "10.0.1.1")
        seed.store(made)
        return cls(world, made, seed, leech, seed if seed_fails else leech)

    def start(self, station: Station) -> None:
        """Start a node; one that refuses to start must say why."""
        try:
            station.run(pointing(self.made, *([] if station is self.seed else [self.seed])))
        except P2PDistError as error:
            if station is not self.failing:
                raise
            self.said = str(error)
            station.host.kill()
            station.host.restart()
            station.disk.kill()
            station.service = None

    def break_at(self, k: int, code: int) -> None:
        """Let the k-th operation from now on fail."""
        self.failing.disk.failures[len(self.failing.disk.calls) + k] = code

    @property
    def reached(self) -> bool:
        """Whether the failure has happened."""
        return not self.failing.disk.failures

    def done(self) -> bool:
        """Tell whether the downloader has everything."""
        return self.leech.service is not None and self.leech.session.stage is Stage.SEEDING

    def over(self) -> bool:
        """Tell whether there is nothing left to wait for."""
        session = self.failing.session if self.failing.service is not None else None
        if session is not None and session.stage is Stage.FAILED:
            self.said = session.status().error
        return bool(self.said) or self.done()

    def run_on(self) -> None:
        """Let both work; neither may hang."""
        self.world.run_until(self.over, PATIENCE_S)

    def stop(self, station: Station) -> None:
        """Stop a node, in time and with nothing left."""
        if station.service is not None:
            before = self.world.now
            station.stop()
            if self.world.now - before > limits.STOP_S:
                raise Broken("stopping took too long")

    def settle(self) -> None:
        """Start anew what failed, on a disk that works; then all must be well."""
        self.failing.disk.failures.clear()
        self.stop(self.failing)
        self.failing.host.restart()
        self.said = ""
        self.start(self.failing)
        if self.leech.service is None:
            self.start(self.leech)
        if self.said:
            raise Broken(f"the next start: {self.said}")
        self.world.run_until(self.done, PATIENCE_S + 2 * limits.BAN_S)
        for station in (self.seed, self.leech):
            if not station.holds(self.made):
                raise Broken("wrong bytes in the end")
            self.stop(station)


def download(k: int, code: int) -> Pair:
    """Fail in a download from its start to its end."""
    pair = Pair.make()
    pair.start(pair.seed)
    pair.break_at(k, code)
    pair.start(pair.leech)
    pair.run_on()
    return pair


def seeding(k: int, code: int) -> Pair:
    """Fail in the seed."""
    pair = Pair.make(seed_fails=True)
    pair.break_at(k, code)
    pair.start(pair.seed)
    pair.start(pair.leech)
    pair.run_on()
    return pair


def resume(k: int, code: int) -> Pair:
    """Fail in a download that goes on after a kill."""
    pair = _half_done()
    pair.leech.host.kill()
    pair.leech.disk.kill()
    pair.leech.host.restart()
    pair.leech.service = None
    pair.break_at(k, code)
    pair.start(pair.leech)
    pair.run_on()
    return pair


def shutdown(k: int, code: int) -> Pair:
    """Fail while a download is being stopped."""
    pair = _half_done()
    pair.break_at(k, code)
    pair.stop(pair.leech)
    return pair


def _half_done() -> Pair:
    pair = Pair.make()
    pair.start(pair.seed)
    pair.start(pair.leech)
    pair.world.run_until(lambda: (pair.leech.session.transfer.progress().have_pieces or 0) >= 2, 20)
    return pair


LIVES: dict[str, Callable[[int, int], Pair]] = {
    "download": download,
    "seed": seeding,
    "resume": resume,
    "shutdown": shutdown,
}


def fail_at(life: str, k: int, code: int) -> bool:
    """Live one life with a failure; return whether there was a k-th operation.

    Raises:
        Broken: a promise was not kept.
        Stuck: a node hangs.
    """
    pair = LIVES[life](k, code)
    reached = pair.reached
    pair.settle()
    return reached
