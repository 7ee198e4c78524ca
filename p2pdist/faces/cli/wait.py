"""``p2pdist wait``: end when everybody is done, and say who is not. Tests: ``test_cli_remote``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from attrs import frozen

from p2pdist.errors import ConfigurationError, P2PDistError
from p2pdist.faces.cli.output import Output, printable, reports_errors, timeout_option
from p2pdist.faces.cli.remote import (
    Remote,
    counts,
    fleets,
    now,
    pause,
    state_option,
    trouble,
)

ASK_S = 0.5
STUCK = frozenset({"failed", "paused"})
"""States of machines that somebody has to see to."""


class Stragglers(P2PDistError):
    """The time is over and some are not done; or all are but those nobody works on."""

    exit_code = 6


@frozen
class Goal:
    """Who has to be done.

    Attributes:
        nodes: so many, or ``None``.
        names: these, or ``None``; ``None`` for both means everybody known.
    """

    nodes: int | None = None
    names: frozenset[str] | None = None

    def missing(self, hosts: list[dict[str, Any]]) -> list[str]:
        """Return who is not done yet, by name; a name nobody bears is missing too."""
        present = [host for host in hosts if counts(host)]
        late = [host["name"] for host in present if not host["complete"]]
        if self.names is not None:
            done = {host["name"] for host in present if host["complete"]}
            return sorted(self.names - done)
        if self.nodes is not None:
            done_count = sum(host["complete"] for host in present)
            lacking = self.nodes - done_count
            if lacking <= 0:
                return []
            unknown = max(0, self.nodes - len(present))
            return late + [f"{unknown} that nobody has heard of"] * bool(unknown)
        return late

    def hopeless(self, hosts: list[dict[str, Any]]) -> bool:
        """Tell whether nobody is left to wait for: who is not done is lost, failed or paused.

        Only where nobody said who has to be done: else it is known that more is to come.
        """
        late = [host for host in hosts if counts(host) and not host["complete"]]
        open_end = self.nodes is None and self.names is None
        return open_end and all(host["lost"] or host["state"] in STUCK for host in late)


@frozen
class Standing:
    """How the fleet of one content stands.

    Attributes:
        name: of the content.
        hosts: its machines.
        missing: who is not done yet.
    """

    name: str
    hosts: list[dict[str, Any]]
    missing: list[str]

    @classmethod
    def of(cls, fleet: dict[str, Any], goal: Goal) -> Standing:
        """Return how a fleet stands as a node tells it."""
        hosts = fleet["hosts"]
        return cls(fleet["name"], hosts, goal.missing(hosts))

    @property
    def done(self) -> int:
        """How many have everything."""
        return sum(host["complete"] for host in self.hosts)

    def told(self) -> str:
        """Return who is missing, and why, in words."""
        return ", ".join(explained(self.missing, self.hosts))


def explained(missing: list[str], hosts: list[dict[str, Any]]) -> list[str]:
    """Return who is missing and, in brackets, why, as far as it was heard of."""
    known = {host["name"]: host for host in hosts if counts(host) and not host["complete"]}
    names = [(name, known.get(name)) for name in missing]
    return [
        printable(name, 40) + (f" ({trouble(host)})" if host is not None else "")
        for name, host in names
    ]


@click.command()
@click.argument("content", required=False, metavar="[NAME|b3:KEY]")
@click.option("--nodes", type=click.IntRange(1), help="So many machines, this one included.")
@click.option(
    "--names",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="The machines named in FILE, one a line.",
)
@click.option("--all", "everybody", is_flag=True, help="Everybody who is known.")
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print how it ended as JSON.")
@state_option
@reports_errors
def wait(
    content: str | None,
    *,
    nodes: int | None,
    names: str | None,
    everybody: bool,
    timeout: float | None,
    as_json: bool,
    state_dir: str | None,
) -> None:
    """Wait until machines have the whole content; ends with 0, or 6 when the time is over.

    Without a name they must have each content that the running node serves.
    With --all it ends with 6 too when all are done but machines that are lost, failed or paused.
    In a public swarm anybody can pretend to be done: there --names tells more than --nodes.
    """
    output = Output(as_json)
    if (nodes is not None) + (names is not None) + everybody != 1:
        raise click.UsageError("say who has to be done: --nodes N, --names FILE or --all")
    goal = Goal(nodes, None if names is None else read_names(names))
    remote = Remote(state_dir)
    began = now()
    with output.progress("machines", lambda count: f"{count:.0f} machines") as meter:
        while True:
            found = [Standing.of(fleet, goal) for fleet in fleets(remote, content)]
            late = [one for one in found if one.missing]
            if not late:
                break
            named = [f"{one.name}: {one.told()}" if len(found) > 1 else one.told() for one in late]
            wanted = nodes or (len(goal.names) if goal.names else len(late[0].hosts))
            first = explained(late[0].missing, late[0].hosts)[0]
            meter.update(late[0].done, wanted, f"waits for {first}")
            hopeless = all(goal.hopeless(one.hosts) for one in late)
            if hopeless or (timeout is not None and now() - began >= timeout):
                tell(output, found)
                if hopeless:
                    raise Stragglers(
                        f"all others are done, but not {'; '.join(named)}; let these go on, "
                        "and wait"
                    )
                raise Stragglers(
                    f"not done after {timeout:g} s: {'; '.join(named)}; p2pdist why says more, "
                    "and wait goes on waiting"
                )
            pause(ASK_S)
    tell(output, found)
    for one in found:
        of = f"{one.name}: " if len(found) > 1 else ""
        output.line(f"{of}{one.done} machines are done")


def tell(output: Output, found: list[Standing]) -> None:
    """Print a line of JSON for each content, if that is asked for."""
    for one in found:
        output.result({"name": one.name, "done": one.done, "missing": one.missing})


def read_names(file: str) -> frozenset[str]:
    """Return the names in a file, one a line; empty lines and ``#`` comments do not count.

    Raises:
        ConfigurationError: it names nobody, or cannot be read.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--names {printable(file)!a}: {error}") from error
    names = {line.split("#")[0].strip() for line in lines} - {""}
    if not names:
        raise ConfigurationError(f"--names {printable(file)!a}: names nobody")
    return frozenset(names)
