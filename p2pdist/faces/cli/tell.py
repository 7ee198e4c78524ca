"""Commands to a running node: ``add``, ``remove``, ``pause``, ``resume``, ``limit``.

Tests: ``test_cli_remote``.
"""

from __future__ import annotations

import os
from typing import Any

import click

from p2pdist.descriptor import URI_SCHEME
from p2pdist.faces.cli.output import Output, format_rate, printable, reports_errors
from p2pdist.faces.cli.remote import Remote, state_option

_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


def absolute(path: str) -> str:
    """Return a path that means the same to the node, whose folder is another."""
    return os.path.abspath(path)  # noqa: PTH100 -- keeps links


@click.command()
@click.argument("what", metavar="FILE.desc|p2pdist:LINK")
@click.option("--path", type=click.Path(exists=True), help="The file or folder, if it is there.")
@_json
@state_option
@reports_errors
def add(what: str, *, path: str | None, as_json: bool, state_dir: str | None) -> None:
    """Have the running node fetch and seed another content."""
    descriptor = what if what.startswith(URI_SCHEME) else absolute(what)
    given = None if path is None else absolute(path)
    answer = Remote(state_dir).ask("add", descriptor=descriptor, path=given)
    output = Output(as_json)
    output.result(answer)
    output.line(f"added {printable(answer['name'])}")
    output.line(f"elsewhere: {answer['receive']}")


def _simple(name: str, text: str, done: str) -> click.Command:
    """Return a command that names a content and nothing else."""

    @click.command(name, help=text)
    @click.argument("content", required=False, metavar="[NAME|b3:KEY]")
    @_json
    @state_option
    @reports_errors
    def command(content: str | None, *, as_json: bool, state_dir: str | None) -> None:
        answer = Remote(state_dir).ask(name, content=content)
        output = Output(as_json)
        output.result(answer)
        output.line(f"{done} {printable(content or 'the content')}")

    return command


remove = _simple("remove", "Have the running node drop a content; its files stay.", "removed")
pause = _simple("pause", "Have the running node leave a content's swarm for now.", "paused")
resume = _simple("resume", "Have the running node go on with a paused content.", "resumed")


@click.command()
@click.argument("content", required=False, metavar="[NAME|b3:KEY]")
@click.option("--upload", metavar="RATE", help="Most to send per second, such as 10MB; 0: all.")
@click.option("--download", metavar="RATE", help="Most to receive per second; 0: all.")
@_json
@state_option
@reports_errors
def limit(
    content: str | None,
    *,
    upload: str | None,
    download: str | None,
    as_json: bool,
    state_dir: str | None,
) -> None:
    """Change the speed limits of the running node, or of one content, from now on."""
    if upload is None and download is None:
        raise click.UsageError("say what to limit: --upload RATE, --download RATE, or both")
    answer = Remote(state_dir).ask("limit", content=content, upload=upload, download=download)
    output = Output(as_json)
    output.result(answer)
    rates: dict[str, Any] = answer["limits"]
    words = [
        f"{way} {format_rate(rate) if rate else 'unlimited'}"
        for way, rate in (("upload", rates["upload"]), ("download", rates["download"]))
    ]
    output.line(", ".join(words))
