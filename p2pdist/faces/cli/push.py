"""``p2pdist push``: a file onto many machines, with nothing but ssh. Tests: ``test_push``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from p2pdist.config import Config, parse_rate
from p2pdist.content import default_piece_length
from p2pdist.descriptor import Descriptor
from p2pdist.errors import P2PDistError
from p2pdist.faces.cli.output import Output, format_duration, reports_errors, timeout_option
from p2pdist.faces.process import run_until_done
from p2pdist.faces.pushing import Order, Outcome, Push, read_hosts
from p2pdist.ids import format_hash_key
from p2pdist.machine import Machine
from p2pdist.source import build_metadata, scan
from p2pdist.swarm.throttle import RateLimits


class PushFailed(P2PDistError):
    """Some machines do not have the content; what was said of each is on the lines above."""


class PushLate(PushFailed):
    """Some machines were not done when the time was over."""

    exit_code = 6


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.option(
    "--hosts",
    "-H",
    required=True,
    metavar="FILE[:DIR]",
    help="Hosts for ssh, one a line, and the folder on each.  [default DIR: where ssh begins]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Our port.  [default: any]")
@click.option(
    "--node",
    default="",
    metavar="HOST:PORT",
    help="How the hosts reach us.  [default: the address that ssh comes from]",
)
@click.option("--python", default="python3", show_default=True, help="Their Python.")
@click.option(
    "--upload-limit", metavar="RATE", default="none", help="Of this machine, each second."
)
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print how it ended as JSON.")
@reports_errors
def push(
    path: str,
    *,
    hosts: str,
    port: int,
    node: str,
    python: str,
    upload_limit: str,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Bring a file or folder onto many machines over ssh, with nothing installed on them.

    Each gets a temporary node that goes again when all are done; they pass pieces on to each other,
    encrypted with a secret made for this push. They need the same Python as this machine.
    Ends with 0 when all have it, 6 when the time is over, 1 if it failed on some.
    """
    output = Output(as_json)
    names, directory = read_hosts(hosts)
    descriptor = describe(path, output)
    order = Order(
        path=os.path.abspath(path),  # noqa: PTH100 -- keeps links
        descriptor=descriptor,
        hosts=names,
        directory=directory,
        node=node,
        python=python,
        timeout_s=timeout,
    )
    config = Config(
        directory=str(Path(order.path).parent),
        port=port,
        lan=False,
        rates=RateLimits(upload=parse_rate(upload_limit, "--upload-limit")),
    )
    began = output.now()
    with output.progress("machines", lambda count: f"{count:.0f} machines") as meter:

        def work(machine: Machine) -> Any:
            return Push(machine, order, meter.update).run(config)

        try:
            outcome: Outcome = run_until_done(work)
        except KeyboardInterrupt:
            output.note("stopped; the machines tidy up by themselves")
            raise click.exceptions.Exit(1) from None
    tell(output, order, outcome, output.now() - began)


def describe(path: str, output: Output) -> Descriptor:
    """Hash the content, and return its descriptor."""
    source = scan(path)
    with output.progress(f"hashing {source.name}") as meter:
        metadata = build_metadata(
            source,
            default_piece_length(source.length),
            progress=meter.update,
            threads=os.cpu_count() or 1,
        )
    return Descriptor(
        hash_key=metadata.hash_key(),
        name=metadata.name,
        length=metadata.length,
        piece_length=metadata.piece_length,
    )


def tell(output: Output, order: Order, outcome: Outcome, seconds: float) -> None:
    """Print how it went.

    Raises:
        PushFailed: not all have it.
    """
    output.result(
        {
            "name": order.descriptor.name,
            "hash_key": format_hash_key(order.descriptor.hash_key),
            "length": order.descriptor.length,
            "done": list(outcome.done),
            "failed": outcome.failed,
            "late": list(outcome.late),
            "seconds": round(seconds, 3),
        }
    )
    for host, text in outcome.failed.items():
        output.note(f"{host}: {text}")
    missing = len(order.hosts) - len(outcome.done)
    if outcome.late:
        late = ", ".join(outcome.late)
        raise PushLate(
            f"{missing} of {len(order.hosts)} are not done: {late}; push again, and it goes on"
        )
    if missing:
        raise PushFailed(
            f"{missing} of {len(order.hosts)} machines do not have it; mend what is said above, "
            "and push again"
        )
    took = format_duration(seconds)
    output.line(f"{len(outcome.done)} machines have {order.descriptor.name} after {took}")
