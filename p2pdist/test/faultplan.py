"""What goes wrong in one simulated swarm, and when: all of it drawn from one number.

Job: :func:`draw` makes a :class:`Plan`, which can be printed and read. Does NOT carry it out
(``faultworld``). The ranges follow TigerBeetle's VOPR. Tests: ``test_sim_faults``.
"""

from __future__ import annotations

import random
from typing import Any, Final

from attrs import evolve, field, frozen

KINDS: Final = (
    *("partition", "one-way", "clog", "pause", "crash", "kill", "restart"),
    *("slow disk", "failing disk", "full disk", "clock", "names", "rot"),
)
"""Faults that begin and end at some time; ``weather`` goes on in between."""
LIARS: Final = (
    *("corrupt", "swap", "halve", "drip", "reject", "silent", "flood", "junk", "thief"),
    *("bitfield", "metadata", "metadata-stall"),
)
"""See ``faultliars``."""
PIECES: Final = (1, 14)
FAULTS: Final = (2, 9)
STORM_S: Final = (8.0, 40.0)
"""How long faults happen."""


@frozen
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: seconds after the start.
        lasts: seconds; the end of the storm ends it too.
        kind: of :data:`KINDS`.
        who: numbers of the machines it befalls.
        how: what the kind needs to know.
    """

    at: float
    lasts: float
    kind: str
    who: tuple[int, ...]
    how: float = 0.0

    def __str__(self) -> str:
        who = " ".join(map(str, self.who))
        return f"{self.at:5.1f} s for {self.lasts:4.1f} s: {self.kind} at {who} ({self.how:.2f})"


@frozen(kw_only=True)
class Plan:
    """One simulated swarm and its fate.

    Machine 0 is a bootstrap node without content; then come the seeds, then the downloaders.

    Attributes:
        seed: of everything.
        ipv6: no machine has an IPv4 address.
        folder: the content is a folder, else one file.
        pieces: of the content.
        zeros: which of them have no other byte.
        seeds: machines that begin with the whole content.
        leeches: machines that begin without.
        liars: kinds of the hostile peers.
        starts: when each machine starts its service.
        by_name: the descriptor names the bootstrap node by a host name.
        weather: of every link while the storm lasts.
        bandwidth: of every machine, bytes per second.
        storm_s: seconds until the faults end.
        faults: by their beginning.
    """

    seed: int
    ipv6: bool
    folder: bool
    pieces: int
    zeros: tuple[int, ...]
    seeds: int
    leeches: int
    liars: tuple[str, ...]
    starts: tuple[float, ...]
    by_name: bool
    weather: dict[str, Any] = field(hash=False)
    bandwidth: float
    storm_s: float
    faults: tuple[Fault, ...]

    @property
    def machines(self) -> int:
        """How many honest machines there are."""
        return 1 + self.seeds + self.leeches

    def __str__(self) -> str:
        weather = ", ".join(f"{name} {value}" for name, value in self.weather.items() if value)
        what = f"{self.pieces} pieces{' in a folder' if self.folder else ''}"
        who = f"{self.seeds} seeds, {self.leeches} downloaders{', IPv6' if self.ipv6 else ''}"
        lines = [
            f"seed {self.seed}: {what}, {who}, liars: {', '.join(self.liars) or 'none'}",
            f"{self.bandwidth / 1000:.0f} kB/s, {weather}; storm of {self.storm_s:.1f} s",
            *map(str, self.faults),
        ]
        return "\n".join(lines)


def draw(seed: int, *, small: bool = False) -> Plan:
    """Draw a plan; the same seed gives the same for ever.

    Args:
        seed: any number.
        small: few machines, pieces, liars and seconds, for a run of a tenth of a second.
    """
    rng = random.Random(f"plan/{seed}")
    pieces = rng.randint(*PIECES) if not small else rng.randint(2, 6)
    sizes = ((1, 2), (1, 3), (1, 4), (2, 3)) if not small else ((1, 2), (1, 2), (2, 2))
    count, leeches = rng.choice(sizes)
    storm_s = rng.uniform(*STORM_S) / (2 if small else 1)
    machines = 1 + count + leeches
    faults = [_fault(rng, machines, count, storm_s) for _ in range(rng.randint(*FAULTS))]
    zeros = tuple(sorted(rng.sample(range(pieces), pieces // 4))) if rng.random() < 0.15 else ()
    return Plan(
        seed=seed,
        ipv6=rng.random() < 0.1,
        folder=rng.random() < 0.3,
        pieces=pieces,
        zeros=zeros,
        seeds=count,
        leeches=leeches,
        liars=tuple(rng.choices(LIARS, k=rng.choice((0, 1) if small else (0, 0, 1, 1, 2, 3)))),
        starts=(0.0, *(rng.uniform(0, 4) for _ in range(machines - 1))),
        by_name=rng.random() < 0.2,
        weather=_weather(rng),
        bandwidth=pieces * 65536 * rng.choice((0.05, 0.1, 0.3, 1.0, 10.0)),
        storm_s=storm_s,
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def _weather(rng: random.Random) -> dict[str, Any]:
    """Draw loss 0-40 %, duplicates 0-50 %, order, corruption, delays."""
    low = rng.choice((0.0005, 0.002, 0.01, 0.03))
    return {
        "loss": rng.choice((0.0, 0.0, 0.02, 0.1, 0.2, rng.uniform(0, 0.4))),
        "duplicate": rng.choice((0.0, 0.0, rng.uniform(0, 0.5))),
        "reorder": rng.choice((0.0, 0.0, rng.uniform(0, 0.5))),
        "corrupt": rng.choice((0.0, 0.0, 0.01, rng.uniform(0, 0.2))),
        "delay": (low, low * rng.choice((1.0, 2.0, 5.0, 10.0))),
        "split": rng.choice((0.0, 0.05, 0.5)),
    }


def _fault(rng: random.Random, machines: int, seeds: int, storm_s: float) -> Fault:
    kind = rng.choice(KINDS)
    at = rng.uniform(0.2, storm_s * 0.9)
    lasts = rng.choice((rng.uniform(0.1, 2), rng.uniform(1, 10), rng.uniform(5, 40)))
    if kind == "clog":
        lasts = rng.uniform(0.1, 5)
    if kind in {"partition", "one-way"}:
        who = tuple(sorted(rng.sample(range(machines), rng.randint(1, machines - 1))))
    elif kind == "clog":
        who = tuple(rng.sample(range(machines), 2))
    elif kind == "rot":  # not of a seed: somebody must have the right bytes
        who = (rng.randrange(1 + seeds, machines),)
    else:
        who = (rng.randrange(machines),)
    return Fault(at, lasts, kind, who, rng.random())


def siege(seed: int, kind: str, *, liars: int = 9, pieces: int = 8, leeches: int = 2) -> Plan:
    """Return a plan without faults: one seed and some downloaders among liars of one kind."""
    return evolve(
        draw(seed, small=True),
        faults=(),
        liars=(kind,) * liars,
        weather={"delay": (0.001, 0.005)},
        ipv6=False,
        folder=False,
        by_name=False,
        zeros=(),
        pieces=pieces,
        seeds=1,
        leeches=leeches,
        starts=(0.0, 0.0) + (1.0,) * leeches,
        bandwidth=500_000.0,
        storm_s=2.0,
    )
