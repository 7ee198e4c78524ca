"""``p2pdist verify``: compare what is on disk with a descriptor.

Tests: ``test_cli_main``, ``test_e2e``.
"""

from __future__ import annotations

import click

from p2pdist.errors import StorageError
from p2pdist.faces.cli.foreground import read_descriptor, signer_options
from p2pdist.faces.cli.output import Output, reports_errors
from p2pdist.faces.process import run_until_done
from p2pdist.ids import format_hash_key
from p2pdist.machine import Machine
from p2pdist.storage.place import Place
from p2pdist.storage.verify import VerifyResult
from p2pdist.storage.verify import verify as verify_content

FILES_SHOWN = 20


@click.command()
@click.argument("what", metavar="FILE.desc|p2pdist:LINK")
@click.option(
    "--directory",
    "-d",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    show_default=True,
    help="Folder of the content.",
)
@click.option("--path", type=click.Path(exists=True), help="The file or folder itself.")
@signer_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reports_errors
def verify(
    what: str,
    *,
    directory: str,
    path: str | None,
    as_json: bool,
    allowed_signers: str | None,
    revoked_keys: str | None,
) -> None:
    """Hash the file or folder of a descriptor and say whether every byte is right.

    Exits with 0 if it is, with 1 if anything differs, with 4 if it cannot be read.
    """
    output = Output(as_json)
    descriptor = read_descriptor(what, allowed_signers, revoked_keys)
    if path is None and descriptor.name is None:
        raise StorageError("the descriptor names no file; say which with --path")
    with output.progress(descriptor.name or "content") as meter:

        def work(machine: Machine):  # type: ignore[no-untyped-def] # noqa: ANN202
            place = Place(
                disk=machine.disk,
                workers=machine.workers,
                clock=machine.reactor,
                directory=directory,
                path=path,
            )
            return verify_content(place, descriptor, meter.update)

        result: VerifyResult = run_until_done(work)
    output.result(
        {
            "path": result.path,
            "hash_key": format_hash_key(descriptor.hash_key),
            "ok": result.ok,
            "pieces": result.count,
            "bad_pieces": list(result.bad_pieces),
            "bad_files": list(result.bad_files),
        }
    )
    if result.ok:
        output.line(f"{result.path}: every byte is right")
        return
    _tell(output, result)
    raise click.exceptions.Exit(1)


def _tell(output: Output, result: VerifyResult) -> None:
    """Say what differs."""
    if result.count is None:
        output.line(f"{result.path}: differs from the descriptor")
        return
    output.line(f"{result.path}: {len(result.bad_pieces)} of {result.count} pieces are bad")
    for name in result.bad_files[:FILES_SHOWN]:
        output.line(f"  {name}")
    if len(result.bad_files) > FILES_SHOWN:
        output.line(f"  and {len(result.bad_files) - FILES_SHOWN} more")
