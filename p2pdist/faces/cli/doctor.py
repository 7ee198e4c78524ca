"""``p2pdist doctor``: what keeps a node on this machine from working.

Tests: ``test_cli_doctor``.
"""

from __future__ import annotations

import os
import time
from typing import Any

import click
from attrs import asdict

from p2pdist.config import Config, default_state_dir, parse_listen
from p2pdist.descriptor import Descriptor
from p2pdist.errors import P2PDistError
from p2pdist.faces.checks import (
    BAD,
    Finding,
    check_clock,
    check_files,
    check_folder,
    check_mtu,
    check_port,
    check_state,
)
from p2pdist.faces.cli.foreground import read_descriptor
from p2pdist.faces.cli.output import Output, reports_errors
from p2pdist.faces.cli.remote import Remote
from p2pdist.faces.process import run_until_done
from p2pdist.faces.reaching import Reached, rank, reach
from p2pdist.limits import DEFAULT_PORT
from p2pdist.machine import Machine

MARKS = {"ok": "ok  ", "hint": "hint", "bad": "BAD "}


def look_around(
    port: int,
    listen: tuple[str, ...],
    directory: str,
    state_dir: str,
    descriptors: list[Descriptor],
) -> list[Finding]:
    """Return what this machine says."""
    missing = sum(
        descriptor.length or 0
        for descriptor in descriptors
        if not os.path.exists(os.path.join(directory, descriptor.name or ""))  # noqa: PTH110, PTH118
    )
    return [
        check_port(port, listen or ("::",), ours=running_port(state_dir) == port),
        check_folder(directory, missing),
        check_state(state_dir),
        check_clock(time.time()),  # noqa: TID251 -- the time of day is what is looked at
        check_files(),
    ]


def running_port(state_dir: str) -> int | None:
    """Return the port of the node that runs with a state directory, if one does."""
    try:
        port: int = Remote(state_dir).ask("status")["port"]
    except P2PDistError:
        return None
    return port


@click.command()
@click.argument("what", nargs=-1, metavar="[FILE.desc|p2pdist:LINK]...")
@click.option(
    "--directory",
    "-d",
    type=click.Path(),
    default=".",
    show_default=True,
    help="Folder for downloads.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="UDP and TCP port of the node.",
)
@click.option(
    "--listen", multiple=True, metavar="ADDRESS", help="IP address it listens on.  [default: all]"
)
@click.option(
    "--state-dir",
    "-s",
    type=click.Path(file_okay=False),
    help="Its folder.  [default: $STATE_DIRECTORY, or ~/.local/state/p2pdist]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@reports_errors
def doctor(
    what: tuple[str, ...],
    *,
    directory: str,
    port: int,
    listen: tuple[str, ...],
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Look at ports, folders, clock and limits of this machine, and try the nodes of descriptors.

    Exits with 0 if nothing is bad, with 4 for this machine, 3 if no node answers, 1 for the rest,
    such as TCP that is blocked. Changes nothing; run it as the user the node runs as.
    """
    output = Output(as_json)
    descriptors = [read_descriptor(one) for one in what]
    hosts = tuple(dict.fromkeys(parse_listen(text) for text in listen))
    state = os.path.abspath(state_dir or default_state_dir(dict(os.environ)))  # noqa: PTH100
    findings = look_around(port, hosts, os.path.abspath(directory), state, descriptors)  # noqa: PTH100
    if any(descriptor.nodes for descriptor in descriptors):
        findings += ask_nodes(hosts, descriptors, output)
    for one in findings:
        remedy = f" -- {one.remedy}" if one.remedy and one.verdict != "ok" else ""
        output.line(f"{MARKS[one.verdict]}  {one.subject}: {one.text}{remedy}")
    bad = [one for one in findings if one.verdict == BAD]
    code = max((one.exit_code for one in bad), default=0)
    output.result({"findings": [asdict(one, filter=_shown) for one in findings], "exit_code": code})
    if bad:
        raise click.exceptions.Exit(code)


def _shown(attribute: Any, _value: Any) -> bool:
    return bool(attribute.name != "exit_code")


def ask_nodes(
    hosts: tuple[str, ...], descriptors: list[Descriptor], output: Output
) -> list[Finding]:
    """Return how the nodes of descriptors are reached, and the ways to their addresses."""
    output.note("asking the nodes; some seconds")
    config = Config(port=0, listen=hosts, lan=False)

    def work(machine: Machine) -> Any:
        return reach(machine, config, descriptors)

    reached: list[Reached] = run_until_done(work)
    ways = dict.fromkeys(address.host for one in reached for address in one.addresses)
    first = {a.host: a for one in reached for a in one.addresses}
    return [*rank(reached), *(check_mtu(first[host]) for host in ways)]
