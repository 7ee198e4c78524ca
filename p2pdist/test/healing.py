"""How long a swarm takes to be whole again: scenes with a cut, an absence and an end of both.

Job: each function plays one scene with whole services in the simulated network and returns the
simulated seconds from the end of the trouble to the first sign of recovery. Does NOT judge. Tests:
``test_sim_heal``; ``benchmarks/reliability.py`` measures many seeds.
"""

from __future__ import annotations

from typing import Final

from p2pdist.session import Session
from p2pdist.stages import Stage
from p2pdist.swarm.messages import Message, Request
from p2pdist.test.lies import half
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import PIECE, Content, content
from p2pdist.test.swarmfakes import Liar, LiarNode, SwarmNode, file_of, honest

PATIENCE_S: Final = 1000.0
"""A scene that takes longer ends with ``Stuck``."""
LOSS: Final = 0.05
"""Of all datagrams, each way, in every scene."""
PIECES: Final = 400
LAST: Final = 28
"""Pieces that lack when peers fall silent: most are on their way by then, a few are held back."""
SLOW_BYTES: Final = 60_000.0
"""Bytes a second of every machine: the content takes a minute and a half."""


def made_of(pieces: int = 80) -> Content:
    """Make up the content."""
    return content({"model.bin": pieces * PIECE})


def swarm(seed: int, leeches: int) -> tuple[World, Content, list[Station]]:
    """Start a bootstrap node, a seed and downloaders on slow machines, and wait for half a file."""
    world, made = World(seed), made_of()
    world.link(loss=LOSS, delay=(0.005, 0.02), bandwidth=SLOW_BYTES)
    stations = [Station.at(world, f"10.0.0.{number + 1}") for number in range(leeches + 2)]
    stations[0].run()
    stations[1].store(made)
    for station in stations[1:]:
        station.run(pointing(made, stations[0]))
    world.run_until(lambda: all(have(station) > 10 for station in stations[2:]), 300)
    return world, made, stations


def have(station: Station) -> int:
    """Return how many pieces a station has."""
    session = session_of(station)
    store = None if session is None else session.transfer.store
    return 0 if store is None else store.have.count_set


def session_of(station: Station) -> Session | None:
    """Return its only session, if it runs one."""
    if station.service is None:
        return None
    return next(iter(station.service.contents.sessions.values()), None)


def got_more(world: World, station: Station) -> float:
    """Return after how long bytes of pieces come to a station again."""

    def received() -> int:
        return station.session.transfer.progress().downloaded_bytes

    before = received()
    return world.run_until(lambda: received() > before, PATIENCE_S)


def after_partition(seed: int, seconds: float, *, one_way: bool = False) -> float:
    """Cut two of four downloaders off from everybody else, the bootstrap node included."""
    world, _, stations = swarm(seed, 4)
    island = [station.host for station in stations[4:]]
    rest = [station.host for station in stations[:4]]
    world.partition(island, rest, one_way=one_way)
    world.run(seconds)
    world.heal()
    return got_more(world, stations[4])


def after_seed_returns(seed: int, seconds: float, *, lonely: bool = False) -> float:
    """Switch the only seed off and on again.

    Args:
        seed: of chance.
        seconds: how long it is away.
        lonely: there is one downloader only, which has nobody meanwhile.
    """
    world, made, stations = swarm(seed, 1 if lonely else 3)
    source = stations[1]
    source.host.crash()
    source.service = None
    world.run(seconds)
    source.host.restart()
    source.run(pointing(made, stations[0]))
    return got_more(world, stations[2])


def after_bootstraps_return(seed: int, seconds: float) -> float:
    """Let a newcomer wait for the descriptor's only node, which comes back and knows nobody.

    Seed and downloader have known each other for long; the newcomer knows nothing but the node.
    """
    world, made, stations = swarm(seed, 1)
    boot = stations[0]
    boot.host.crash()
    boot.service = None
    newcomer = Station.at(world, "10.0.9.1")
    newcomer.run(pointing(made, boot))
    world.run(seconds)
    boot.host.restart()
    boot.disk.crash(lambda: 0.0)
    boot.run()
    return world.run_until(lambda: newcomer.session.stage is Stage.LEECHING, PATIENCE_S)


def newcomer_after_restart(seed: int) -> float:
    """Restart the node of the descriptor under a complete swarm, then let somebody new come."""
    world, made, stations = swarm(seed, 1)
    world.run_until(lambda: stations[2].holds(made), 600)
    world.run(400)
    boot = stations[0]
    boot.host.crash()
    boot.host.restart()
    boot.run()
    newcomer = Station.at(world, "10.0.9.1")
    newcomer.run(pointing(made, boot))
    return world.run_until(lambda: newcomer.session.stage is Stage.LEECHING, PATIENCE_S)


def after_names_return(seed: int, seconds: float) -> float:
    """Name the only node by a host name whose server is silent for a while."""
    world, made = World(seed), made_of(4)
    world.link(loss=LOSS, delay=(0.005, 0.02))
    boot, source, newcomer = (Station.at(world, f"10.0.0.{number}") for number in (1, 2, 3))
    boot.run()
    source.store(made)
    source.run(pointing(made, boot))
    world.dns["boot.example"] = None
    newcomer.run(pointing(made, "boot.example"))
    world.run(seconds)
    world.dns["boot.example"] = ["10.0.0.1"]
    return world.run_until(lambda: newcomer.holds(made), PATIENCE_S)


def ipv6_only(seed: int) -> float:
    """Fetch a file where no machine has an IPv4 address; return how long that takes."""
    world, made = World(seed), made_of(4)
    world.link(loss=LOSS, delay=(0.005, 0.02))
    stations = [Station.at(world, f"fd00::{number}") for number in (1, 2, 3)]
    stations[1].store(made)
    stations[0].run(listen=("::",))
    for station in stations[1:]:
        station.run(pointing(made, stations[0]), listen=("::",))
    return world.run_until(lambda: stations[2].holds(made), PATIENCE_S)


class NoScene(Exception):
    """What was to be looked at did not come about with this seed."""


def after_stall(seed: int, liars: int = 9) -> float:
    """Let all but one of the peers stop in the middle of pieces when nearly all is here or coming.

    Returns:
        how long the rest takes.

    Raises:
        NoScene: nobody had been asked for a piece that it could hold back.
    """
    made = file_of(PIECES)
    held: list[int] = []
    world = World(seed)
    world.link(delay=(0.001, 0.01), bandwidth=1_000_000.0)
    victim, source = SwarmNode(world, 1, made), SwarmNode(world, 50, made)

    def near_the_end() -> bool:
        return victim.progress.have_pieces >= made.count - LAST

    def fall_silent(liar: Liar, message: Message) -> None:
        if not isinstance(message, Request):
            honest(liar, message)
        elif near_the_end():
            half(liar, message.index)
            held.append(message.index)
        else:
            honest(liar, message)

    victim.leech()
    source.seed()
    victim.meet(source)
    for number in range(liars):
        liar = LiarNode(world, 100 + number, made, fall_silent)
        victim.transfer.peer_joined(liar.address, liar.key.node_id, dial_now=True)
    world.run_until(near_the_end, PATIENCE_S)
    took = world.run_until(lambda: victim.complete, PATIENCE_S)
    if not held:
        raise NoScene("nobody had anything to hold back")
    return took
