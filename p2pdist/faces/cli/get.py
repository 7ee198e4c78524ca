"""``p2pdist get``: fetch one content in the foreground.

Tests: ``test_foreground``, ``test_e2e``.
"""

from __future__ import annotations

from typing import Any

import click

from p2pdist.faces.cli.foreground import (
    Foreground,
    make_config,
    node_options,
    read_descriptor,
    signer_options,
)
from p2pdist.faces.cli.output import (
    Output,
    check_timeout,
    format_bytes,
    format_duration,
    reports_errors,
)
from p2pdist.faces.process import run_until_done
from p2pdist.handout import receiver_command
from p2pdist.machine import Machine, own_addresses
from p2pdist.standing import SessionStatus


def report(output: Output, status: SessionStatus, seconds: float, **more: Any) -> None:
    """Print that the content is complete: where, how much, how fast; ``more`` goes into JSON."""
    progress = status.progress
    took = f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)
    output.line(
        f"{status.path}: {format_bytes(progress.length or 0)}, complete and verified after {took}"
    )
    output.result(
        {
            "path": status.path,
            "hash_key": status.hash_key,
            "length": progress.length,
            "downloaded_bytes": progress.downloaded_bytes,
            "uploaded_bytes": progress.uploaded_bytes,
            "seconds": round(seconds, 3),
            **more,
        }
    )


@click.command()
@click.argument("what", metavar="FILE.desc|p2pdist:LINK")
@node_options
@click.option("--seed", "stay", is_flag=True, help="Go on seeding when complete.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    callback=check_timeout,
    metavar="SECONDS",
    help="Give up after so long.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Replace an existing file that differs; a folder is kept beside it as NAME.before-HASH8.",
)
@signer_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reports_errors
def get(
    what: str,
    *,
    stay: bool,
    timeout: float | None,
    replace: bool,
    as_json: bool,
    allowed_signers: str | None,
    revoked_keys: str | None,
    **node: Any,
) -> None:
    """Fetch the content of a descriptor file or p2pdist: link, verified piece by piece.

    An interrupted download goes on where it stopped. Without --state-dir the node's key is made
    anew for this run and forgotten.
    """
    output = Output(as_json)
    secret_file = node.pop("secret_file")
    descriptor = read_descriptor(what, allowed_signers, revoked_keys, secret_file)
    config = make_config(**node)
    started = output.now()

    def seeding(status: SessionStatus, port: int) -> None:
        command = receiver_command(
            what, descriptor, port, config.listen, own_addresses(), secret_file
        )
        report(output, status, output.now() - started, port=port, receive=command)
        output.line(f"seeding on port {port}; interrupt to stop")
        output.line(f"elsewhere: {command}")

    with output.progress(descriptor.name or "download") as meter:

        def work(machine: Machine) -> Any:
            return Foreground(
                machine,
                config,
                meter,
                lambda service: service.add(descriptor, replace=replace),
                seeding if stay else None,
                timeout,
            ).run()

        try:
            status = run_until_done(work)
        except KeyboardInterrupt:
            output.note("stopped; the same command goes on where it was")
            raise click.exceptions.Exit(0 if stay else 1) from None
    report(output, status, output.now() - started)
