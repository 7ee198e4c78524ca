"""``p2pdist make``: hash a file or folder and write its descriptor.

Job: options to ``source`` and ``descriptor``, and the words around. Does NOT start any network.
Threat: a descriptor must not overwrite anything by accident, least of all what it describes.
Tests: ``test_cli_make``.
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from attrs import evolve

from p2pdist import limits
from p2pdist.addresses import HostPort, parse_host_port
from p2pdist.content import Metadata, check_piece_length, default_piece_length
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import StorageError
from p2pdist.faces.cli.output import Output, format_bytes, parse_size, reports_errors
from p2pdist.ids import format_hash_key
from p2pdist.secret import Secret
from p2pdist.secretfile import read_secret_file, write_secret_file
from p2pdist.source import Source, build_metadata, scan, sha256_of

_STDOUT = "-"


def parse_node(text: str) -> HostPort:
    """Return the node an option names: ``host``, ``host:port`` or ``[ipv6]:port``.

    Raises:
        click.BadParameter: none of these.
    """
    try:
        return parse_host_port(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def private_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that close a swarm to everybody without its secret."""
    command = click.option(
        "--secret-file",
        type=click.Path(dir_okay=False),
        help="Keep the secret in this file and not in the descriptor; made if there is none yet.",
    )(command)
    return click.option(
        "--private", is_flag=True, help="Only who has the descriptor's secret takes part."
    )(command)


@click.command()
@click.argument("path", type=click.Path())
@click.option(
    "--node",
    "nodes",
    type=parse_node,
    metavar="HOST:PORT",
    multiple=True,
    help="A machine that will take part, for others to ask first; may be repeated. "
    "Without any, machines find each other on one local network only.",
)
@click.option(
    "--output",
    type=click.Path(),
    help="Where the descriptor goes; - is standard output.  [default: ./NAME.desc]",
)
@click.option(
    "--piece-length",
    type=parse_size,
    metavar="SIZE",
    help="Bytes of a piece, a power of two from 64KiB to 16MiB.  [default: by length]",
)
@click.option("--name", help="What to call the content.  [default: its own name]")
@click.option("--sha256", is_flag=True, help="Add the SHA-256 sum, for files only; takes longer.")
@click.option("--force", is_flag=True, help="Overwrite an existing descriptor.")
@private_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reports_errors
def make(
    path: str,
    nodes: tuple[HostPort, ...],
    output: str | None,
    piece_length: int | None,
    name: str | None,
    sha256: bool,
    force: bool,
    private: bool,
    secret_file: str | None,
    as_json: bool,
) -> None:
    """Write the descriptor of the file or folder PATH.

    Hand the descriptor, or the one line that is printed, to every machine that wants the content.
    """
    nodes = tuple(dict.fromkeys(nodes))
    if len(nodes) > limits.DESCRIPTOR_NODES:
        raise click.UsageError(f"at most {limits.DESCRIPTOR_NODES} nodes fit into a descriptor")
    if as_json and output == _STDOUT:
        raise click.UsageError("--json and --output - would both write to standard output")
    source = scan(path, name)
    if sha256 and source.is_folder:
        raise click.UsageError("--sha256 is for single files; hash_key commits to a whole folder")
    target = Path(output if output is not None else f"{source.name}.desc")
    if output != _STDOUT:
        _check_target(target, Path(path), source, force=force)
    piece_length = _checked_piece_length(piece_length, source)
    closed = _closed(target, Path(path), secret_file, private=private)

    words = Output(as_json)
    metadata, descriptor = _describe(source, piece_length, nodes, words, with_sha256=sha256)
    descriptor = evolve(descriptor, **closed)
    text = descriptor.to_toml()
    assert DescriptorParser().parse(text) == descriptor, "what we write can be read"
    if output == _STDOUT:
        click.echo(text, nl=False)
        return
    _write(target, text, force=force, secret=bool(descriptor.secrets))
    words.result(_summary(target, descriptor, metadata))
    _tell(words, target, Path(path), descriptor, metadata)


def _checked_piece_length(asked: int | None, source: Source) -> int:
    """Return the piece length asked for, or the one that suits the source.

    Raises:
        click.UsageError: what was asked for does not fit.
    """
    if asked is None:
        return default_piece_length(source.length)
    try:
        check_piece_length(asked, source.length)
    except ValueError as error:
        raise click.UsageError(f"--piece-length: {error}") from None
    return asked


def _check_target(target: Path, path: Path, source: Source, *, force: bool) -> None:
    """Refuse, before hours of hashing, to write where the descriptor may not go.

    Raises:
        StorageError: something is there, or the place is part of what is described.
    """
    place, described = target.resolve(), path.resolve()
    if place == described or (source.is_folder and place.is_relative_to(described)):
        raise StorageError(
            f"the descriptor {str(target)!r} would become part of what it describes; "
            "choose another place with --output"
        )
    try:
        if not place.parent.is_dir():
            raise StorageError(f"there is no folder {str(place.parent)!r} for the descriptor")
        if place.is_dir() or (place.exists() and not force):
            raise StorageError(
                f"{str(target)!r} exists; overwrite it with --force, "
                "or choose another place with --output"
            )
    except OSError as error:
        raise _cannot_write(target, error) from error


def _closed(
    target: Path, described: Path, secret_file: str | None, *, private: bool
) -> dict[str, Any]:
    """Return the descriptor's fields that make the swarm private, if it is to be.

    Raises:
        StorageError, ConfigurationError: the secret file cannot be written, or not be used.
    """
    if secret_file is None:
        return {"secrets": (Secret.new(secrets.token_bytes),)} if private else {}
    path = Path(secret_file).absolute()
    if path.resolve() == target.resolve() or path.resolve().is_relative_to(described.resolve()):
        raise StorageError(
            f"the secret in {str(path)!r} would be handed out with the content or lost under the "
            "descriptor; choose another place with --secret-file"
        )
    if path.exists():
        read_secret_file(str(path))
    else:
        write_secret_file(str(path), secrets.token_bytes)
    beside = path.parent.resolve() == target.absolute().parent.resolve()
    return {"secret_file": path.name if beside else str(path)}


def _describe(
    source: Source,
    piece_length: int,
    nodes: tuple[HostPort, ...],
    words: Output,
    *,
    with_sha256: bool,
) -> tuple[Metadata, Descriptor]:
    """Hash the source on all cores."""
    with words.progress(f"hashing {source.name}") as meter:
        metadata = build_metadata(
            source, piece_length, progress=meter.update, threads=os.cpu_count() or 1
        )
    digest = None
    if with_sha256:
        with words.progress(f"SHA-256 of {source.name}") as meter:
            digest = sha256_of(source, meter.update)
    descriptor = Descriptor(
        hash_key=metadata.hash_key(),
        nodes=nodes,
        name=metadata.name,
        length=metadata.length,
        piece_length=metadata.piece_length,
        sha256=digest,
    )
    return metadata, descriptor


def _write(target: Path, text: str, *, force: bool, secret: bool) -> None:
    """Write the descriptor in one step: others see all of it or nothing, of a secret nothing ever.

    Raises:
        StorageError: it cannot be written, or something has come there meanwhile.
    """
    draft = target.with_name(f".{os.getpid()}.p2pdist-draft")
    try:
        try:
            if secret:
                draft.unlink(missing_ok=True)
                draft.touch(mode=0o600, exist_ok=False)
            draft.write_text(text, encoding="utf-8")
            if not force:
                target.touch(exist_ok=False)  # ours from now on
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {str(target)!r}: {error.strerror}")


def _summary(target: Path, descriptor: Descriptor, metadata: Metadata) -> dict[str, Any]:
    return {
        "descriptor": str(target.resolve()),
        "hash_key": format_hash_key(descriptor.hash_key),
        "uri": descriptor.to_uri(),
        "name": metadata.name,
        "length": metadata.length,
        "piece_length": metadata.piece_length,
        "pieces": metadata.count,
        "files": len(metadata.files),
        "nodes": [str(node) for node in descriptor.nodes],
        "sha256": descriptor.sha256,
        "private": descriptor.private,
        "secret_file": descriptor.secret_file,
        "receive": shlex.join(["p2pdist", "get", target.name]),
    }


def _tell(
    words: Output, target: Path, path: Path, descriptor: Descriptor, metadata: Metadata
) -> None:
    """Print what was made and what to type next."""
    count = len(metadata.files)
    files = f" in {count:,} file{'' if count == 1 else 's'}" if metadata.is_folder else ""
    here = shlex.quote(str(target))
    port = f" --port {descriptor.nodes[0].port}" if descriptor.nodes else ""
    words.line(f"descriptor  {target}")
    pieces = "1 piece" if metadata.count == 1 else f"{metadata.count:,} pieces"
    words.line(
        f"content     {metadata.name}: {format_bytes(metadata.length)}{files}, "
        f"{pieces} of {format_bytes(metadata.piece_length)}"
    )
    words.line(f"hash_key    {format_hash_key(descriptor.hash_key)}")
    words.line(f"one line    {descriptor.to_uri()}")
    if descriptor.secret_file is not None:
        words.line(
            f"private     every machine needs {descriptor.secret_file}, which has the secret"
        )
    elif descriptor.private:
        words.line("private     the descriptor has the secret: guard it as you guard the content")
    words.line("")
    words.line("Serve it here:")
    words.line(f"    p2pdist seed {here} --path {shlex.quote(str(path.absolute()))}{port}")
    if not descriptor.nodes:
        words.line(
            "No --node was given, so machines find each other on one local network only. "
            "Elsewhere add this machine's address: --node HOST:PORT."
        )
    either = "" if descriptor.private else " or the one line"
    words.line(f"Fetch it on every other machine, with the descriptor{either}:")
    words.line(f"    p2pdist get {shlex.quote(target.name)}")
    if not descriptor.private:
        words.line(f"    p2pdist get {shlex.quote(descriptor.to_uri())}")
