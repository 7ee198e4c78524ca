"""``p2pdist id``: who the node of a state directory is. Tests: ``test_cli_main``."""

from __future__ import annotations

import os

import click

from p2pdist.config import default_state_dir
from p2pdist.faces.cli.output import Output, reports_errors
from p2pdist.storage.realdisk import RealDisk
from p2pdist.storage.statedir import read_machine_id, saved_node_key


@click.command(name="id")
@click.option(
    "--state-dir",
    "-s",
    type=click.Path(file_okay=False),
    help="The node's folder.  [default: $STATE_DIRECTORY, or ~/.local/state/p2pdist]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reports_errors
def id(state_dir: str | None, *, as_json: bool) -> None:  # noqa: A001 -- named as the command is
    """Print the node id and the public key of the node that keeps its state in a folder.

    The node makes its key when it first starts; it may run meanwhile. Nothing is changed.
    """
    output = Output(as_json)
    path = os.path.abspath(state_dir or default_state_dir(dict(os.environ)))  # noqa: PTH100
    key = saved_node_key(RealDisk(), path, read_machine_id())
    output.line(f"node id     {key.node_id.hex()}")
    output.line(f"public key  {key.public.hex()}")
    output.result({"node_id": key.node_id.hex(), "public_key": key.public.hex(), "state_dir": path})
