"""``p2pdist simulate``: lookups among thousands of simulated nodes, and what they took.

Job: options, progress, figures for people and programs. Does NOT simulate (``simulation``).
Tests: ``test_cli_simulate``.
"""

from __future__ import annotations

import math
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from p2pdist.faces.cli.output import Output, format_bytes, format_count, reports_errors
from p2pdist.simulation.population import Mix, Role
from p2pdist.simulation.study import Study, Summary, World, quantile, summarize
from p2pdist.simulation.terrain import MODELS
from p2pdist.simulation.timeline import Timeline
from p2pdist.simulation.trace import Trace, plural

NODES_MAX = 1_000_000
LOOKUPS_MAX = 1_000_000
MEMBERS_MAX = 100
SHARES_SUM = 0.9
KINDS = {
    "dead": "dead entries",
    "nat": "behind NATs",
    "black_holes": "black holes",
    "liars": "liars",
}
"""Options that are shares of the nodes, and how people call those nodes."""


def check_share(_context: click.Context, _option: click.Parameter, value: float) -> float:
    """Return a share.

    Raises:
        click.BadParameter: it is not from 0 to below 1; no range refuses what is no number.
    """
    if not 0 <= value < 1:
        raise click.BadParameter(f"{value:g} is no share from 0 to below 1, such as 0.1")
    return value


def share(name: str, default: float, text: str) -> Callable[[Any], Any]:
    """Return an option that takes a share."""
    return click.option(
        name,
        type=float,
        callback=check_share,
        default=default,
        show_default=True,
        metavar="SHARE",
        help=text,
    )


_WORLD: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--nodes",
        type=click.IntRange(2, NODES_MAX),
        default=1000,
        show_default=True,
        metavar="N",
        help="Living nodes.",
    ),
    click.option(
        "--lookups",
        type=click.IntRange(1, LOOKUPS_MAX),
        default=1000,
        show_default=True,
        metavar="K",
        help="How many, each of a new topic.",
    ),
    click.option(
        "--members",
        type=click.IntRange(1, MEMBERS_MAX),
        metavar="M",
        help="Peers of each topic; 1, 3 or 10 by the number of nodes if not given.",
    ),
    click.option(
        "--rtt",
        type=click.Choice(MODELS),
        default=MODELS[0],
        show_default=True,
        help="Model of the round-trip times.",
    ),
    share("--loss", 0.05, "Datagrams lost."),
    share("--dead", 0.1, "Dead nodes among all that tables know."),
    share("--nat", 0.0, "Nodes behind NATs."),
    click.option("--nat-initiators", is_flag=True, help="Lookups start behind NATs."),
    share("--black-holes", 0.0, "Nodes that take queries and drop them."),
    share("--liars", 0.0, "Nodes that offer peers which do not exist."),
    click.option("--seed", type=int, default=1, show_default=True, help="Decides everything."),
)
"""Options that say what is simulated, in the order of the help."""


def world_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :data:`_WORLD`."""
    for option in reversed(_WORLD):
        command = option(command)
    return command


@click.command()
@world_options
@click.option("--trace", is_flag=True, help="Tell the story of one lookup, datagram by datagram.")
@click.option(
    "--lookup",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Which one --trace tells of; the first if not given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reports_errors
def simulate(*, trace: bool, lookup: int | None, as_json: bool, **options: Any) -> None:
    """Try discovery with thousands of simulated nodes.

    Every node runs the code of a real one, on simulated time and links. Random nodes look for the
    peers of random topics; what that took is printed. The same seed gives the same figures.
    """
    _check(options, trace=trace, lookup=lookup)
    output = Output(as_json)
    began = output.now()
    study = _study(options)
    story = Trace(study, (lookup or 1) - 1) if trace else None
    with (
        output.progress("lookups", format_count) as meter,
        _interruptible(study.crowd.timeline),
    ):
        study.run(options["lookups"], meter.update)
    figures = _figures(study, output.now() - began)
    lines = list(story.lines()) if story is not None else []
    for line in [*lines, ""] if lines else []:
        output.line(line)
    _tell(output, options, study, figures)
    simulated = {**options, "members": study.world.member_count}
    output.result({**simulated, **figures, **({"trace": lines} if lines else {})})


def _check(options: dict[str, Any], *, trace: bool, lookup: int | None) -> None:
    """Refuse options that do not go together.

    Raises:
        click.UsageError: so.
    """
    if sum(options[name] for name in KINDS) > SHARES_SUM:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in KINDS)
        raise click.UsageError(f"the shares of {names} are together more than {SHARES_SUM}")
    if lookup is not None and not trace:
        raise click.UsageError("--lookup goes with --trace only")
    if lookup is not None and lookup > options["lookups"]:
        raise click.UsageError(f"there is no lookup {lookup}: --lookups is {options['lookups']}")
    if options["nat_initiators"] and round(options["nodes"] * options["nat"]) < 1:
        raise click.UsageError("--nat-initiators needs nodes behind NATs: raise --nat")


def _study(options: dict[str, Any]) -> Study:
    """Return what is to be run.

    Raises:
        click.UsageError: too few ordinary nodes.
    """
    mix = Mix(
        nodes=options["nodes"],
        dead=options["dead"],
        nated=options["nat"],
        black_holes=options["black_holes"],
        liars=options["liars"],
    )
    world = World(
        mix=mix,
        loss=options["loss"],
        rtt=options["rtt"],
        members=options["members"],
        nated_initiators=options["nat_initiators"],
        seed=options["seed"],
    )
    study = Study(world)
    ordinary = len(study.population.living(Role.OPEN))
    needed = world.member_count + (not world.nated_initiators)
    if ordinary < needed:
        raise click.UsageError(
            f"{plural(world.member_count, 'member')} of each topic and who looks for them take "
            f"{plural(needed, 'ordinary node')}, and there are {ordinary}: raise --nodes, or lower "
            "--members or the shares"
        )
    return study


@contextmanager
def _interruptible(timeline: Timeline) -> Iterator[None]:
    """Let an interrupt raise between two events: Deferreds would swallow it inside of one."""
    stopped: list[int] = []

    def check() -> None:
        if stopped:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, lambda number, _frame: stopped.append(number))
    timeline.after_event.append(check)
    try:
        yield
    finally:
        timeline.after_event.remove(check)
        signal.signal(signal.SIGINT, before)


# --- figures ---


def _finite(value: float) -> float | None:
    """Return a figure as JSON can have it: never is ``None``."""
    return round(value, 3) if math.isfinite(value) else None


def _figures(study: Study, wall_s: float) -> dict[str, Any]:
    """Return everything that came out."""
    summary: Summary = summarize(study.lookups)
    alive = [math.inf if k.alive_s is None else k.alive_s * 1e3 for k in study.lookups]
    return {
        "success": summary.success,
        "peers_p50_ms": _finite(summary.p50_ms),
        "peers_p90_ms": _finite(summary.p90_ms),
        "peers_p99_ms": _finite(summary.p99_ms),
        "alive_p50_ms": _finite(summary.alive_p50_ms),
        "alive_p90_ms": _finite(quantile(alive, 0.9)),
        "alive_p99_ms": _finite(summary.alive_p99_ms),
        "packets_mean": round(summary.packets, 3),
        "packets_p99": summary.packets_p99,
        "bytes_mean": round(summary.size, 1),
        "hottest_mean": round(summary.hottest, 3),
        "contact_mean": round(summary.contact, 3),
        "nodes_made": len(study.crowd.made),
        "simulated_s": round(study.crowd.timeline.now, 3),
        "wall_s": round(wall_s, 3),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _tell(output: Output, options: dict[str, Any], study: Study, figures: dict[str, Any]) -> None:
    """Print the figures for people; what another run would measure anew stands in the last line."""

    def times(name: str) -> str:
        values = ((p, figures[f"{name}_{p}_ms"]) for p in ("p50", "p90", "p99"))
        return "   ".join(
            f"{p} {'never' if value is None else f'{value:,.0f} ms':>8}" for p, value in values
        )

    kinds = [f"{options[name]:.0%} {words}" for name, words in KINDS.items() if options[name]]
    where = " from behind NATs" if options["nat_initiators"] else ""
    world = ", ".join([f"{options['nodes']:,} nodes", *kinds])
    output.line(
        f"{plural(options['lookups'], 'lookup')}{where} among {world}; {options['rtt']} round "
        f"trips, {options['loss']:.0%} loss, {plural(study.world.member_count, 'member')} a topic, "
        f"seed {options['seed']}"
    )
    rows = {
        "success": f"{figures['success']:.2%}",
        "first peers": times("peers"),
        "first live peer": times("alive"),
        "packets": f"mean {figures['packets_mean']:.1f}   p99 {figures['packets_p99']:,}",
        "bytes": f"mean {figures['bytes_mean']:,.0f}",
        "hottest node": f"mean {figures['hottest_mean']:.1f} packets",
        "contact packets": f"mean {figures['contact_mean']:.1f}, to try the peers found",
        "simulated": f"{figures['simulated_s']:,.1f} s, {figures['nodes_made']:,} nodes spoken to",
        "took": f"{figures['wall_s']:.1f} s, {format_bytes(figures['peak_bytes'])} at most",
    }
    for name, text in rows.items():
        output.line(f"  {name:16}{text}")
