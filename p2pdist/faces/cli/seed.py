"""``p2pdist seed``: serve a complete content in the foreground. Tests: ``test_e2e``."""

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
from p2pdist.faces.cli.output import Output, reports_errors
from p2pdist.faces.process import run_until_done
from p2pdist.handout import receiver_command
from p2pdist.machine import Machine, own_addresses
from p2pdist.standing import SessionStatus


@click.command()
@click.argument("what", metavar="FILE.desc|p2pdist:LINK")
@click.option(
    "--path",
    type=click.Path(exists=True),
    help="The file or folder, under whatever name.  [default: NAME in --directory]",
)
@node_options
@signer_options
@click.option("--json", "as_json", is_flag=True, help="Print what is seeded as JSON.")
@reports_errors
def seed(
    what: str,
    *,
    path: str | None,
    as_json: bool,
    allowed_signers: str | None,
    revoked_keys: str | None,
    **node: Any,
) -> None:
    """Check a complete file or folder against its descriptor and serve it until interrupted.

    Nothing is written beside the content; without --state-dir it is hashed anew at each start.
    """
    output = Output(as_json)
    secret_file = node.pop("secret_file")
    descriptor = read_descriptor(what, allowed_signers, revoked_keys, secret_file)
    config = make_config(**node)

    def seeding(status: SessionStatus, port: int) -> None:
        output.line(f"seeding {status.path} on port {port}; interrupt to stop")
        command = receiver_command(
            what, descriptor, port, config.listen, own_addresses(), secret_file
        )
        output.line(f"elsewhere: {command}")
        output.result(
            {
                "path": status.path,
                "hash_key": status.hash_key,
                "port": port,
                "uri": descriptor.to_uri(),
                "receive": command,
            }
        )

    with output.progress(descriptor.name or "content") as meter:

        def work(machine: Machine) -> Any:
            return Foreground(
                machine,
                config,
                meter,
                lambda service: service.add(descriptor, path=path, seed_only=True),
                seeding,
            ).run()

        try:
            run_until_done(work)
        except KeyboardInterrupt:
            output.note("stopped seeding")
