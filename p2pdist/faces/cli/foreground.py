"""A node in the foreground: what ``get`` and ``seed`` have in common.

Job: options of a node, a service that runs one descriptor, a progress line every second, an end.
Tests: ``test_foreground``, ``test_e2e``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click
from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import HostPort
from p2pdist.config import Config, parse_listen, parse_rate
from p2pdist.descriptor import URI_SCHEME, Descriptor, DescriptorParser
from p2pdist.errors import ConfigurationError, NoPeersFound, P2PDistError
from p2pdist.faces.cli.make import parse_node
from p2pdist.faces.cli.output import Meter, Output
from p2pdist.faces.process import asked_signers
from p2pdist.machine import Machine
from p2pdist.overlay.bootstrap import ANSWERED
from p2pdist.secretfile import read_secret_file
from p2pdist.service import P2PDistService
from p2pdist.session import Session
from p2pdist.stages import Stage
from p2pdist.standing import SessionStatus
from p2pdist.swarm.throttle import RateLimits


class TimedOut(P2PDistError):
    """The time given with ``--timeout`` is over and the content is not complete."""

    exit_code = 6


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a node to a command."""
    for option in reversed(
        (
            click.option(
                "--directory",
                "-d",
                type=click.Path(exists=True, file_okay=False),
                default=".",
                show_default=True,
                help="Folder of the content.",
            ),
            click.option(
                "--port",
                type=click.IntRange(0, 65535),
                default=0,
                help="UDP and TCP port.  [default: any free one]",
            ),
            click.option(
                "--listen",
                multiple=True,
                metavar="ADDRESS",
                help="IP address to listen on; may be repeated.  [default: all]",
            ),
            click.option(
                "--node",
                "nodes",
                type=parse_node,
                multiple=True,
                metavar="HOST:PORT",
                help="A node to ask first, besides those of the descriptor; may be repeated.",
            ),
            click.option(
                "--state-dir",
                type=click.Path(file_okay=False),
                help="Folder for the node's key and records.  [default: keep none]",
            ),
            click.option("--no-lan", is_flag=True, help="Do not look on the local network."),
            click.option(
                "--secret-file",
                type=click.Path(dir_okay=False),
                help="The content is in the private network of this file's secret; for links and "
                "descriptors that name none.",
            ),
            click.option(
                "--upload-limit",
                metavar="RATE",
                default="none",
                help="Upload at most so much per second, such as 10MB or 1.5MiB.  "
                "[default: unlimited]",
            ),
            click.option(
                "--download-limit",
                metavar="RATE",
                default="none",
                help="Download at most so much per second.  [default: unlimited]",
            ),
        )
    ):
        command = option(command)
    return command


def make_config(
    *,
    directory: str,
    port: int,
    listen: tuple[str, ...],
    nodes: tuple[HostPort, ...],
    state_dir: str | None,
    no_lan: bool,
    upload_limit: str = "none",
    download_limit: str = "none",
) -> Config:
    """Build the settings from the options of :func:`node_options`."""
    return Config(
        directory=directory,
        port=port,
        listen=tuple(dict.fromkeys(parse_listen(text) for text in listen)),
        state_dir=None if state_dir is None else os.path.abspath(state_dir),  # noqa: PTH100
        nodes=nodes,
        lan=not no_lan,
        rates=RateLimits(
            upload=parse_rate(upload_limit, "--upload-limit"),
            download=parse_rate(download_limit, "--download-limit"),
        ),
    )


def signer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say whose descriptors are accepted, as :func:`read_descriptor` takes."""
    path = click.Path(dir_okay=False)
    for option in (
        click.option(
            "--revoked-keys",
            type=path,
            metavar="FILE",
            help="Refuse these public keys, one a line, whatever --allowed-signers says.",
        ),
        click.option(
            "--allowed-signers",
            type=path,
            metavar="FILE",
            help="Refuse a descriptor that none of these signed; a file as of ssh-keygen -Y "
            "verify.  [default: signatures are not looked at]",
        ),
    ):
        command = option(command)
    return command


def read_descriptor(
    what: str,
    allowed_signers: str | None = None,
    revoked_keys: str | None = None,
    secret_file: str | None = None,
) -> Descriptor:
    """Read a descriptor file, or a ``p2pdist:`` link; ``secret_file`` makes either private.

    Raises:
        DescriptorError: it cannot be used, or ``allowed_signers`` refuse it.
        ConfigurationError: one of the other files cannot be used.
    """
    parser = DescriptorParser(asked_signers(allowed_signers, revoked_keys))
    is_link = what.startswith(URI_SCHEME)
    descriptor = parser.parse_uri(what) if is_link else parser.parse_file(what)
    if secret_file is not None:
        if descriptor.private:
            raise ConfigurationError(f"--secret-file: {what} has a secret of its own already")
        descriptor = evolve(descriptor, secrets=read_secret_file(secret_file))
    if descriptor.signed_by is not None:
        Output().note(f"{what}: signed by {descriptor.signed_by}")
    return descriptor


@define(eq=False)
class Foreground:
    """Runs one session until it is complete, and further if asked to.

    Args:
        machine: seams.
        config: settings.
        meter: shows progress.
        start: adds the session to the service.
        stay: called once with the status when complete; the node then goes on until interrupted.
            ``None`` ends it there.
        timeout_s: give up after so long.
    """

    machine: Machine
    config: Config
    meter: Meter
    start: Callable[[P2PDistService], Session]
    stay: Callable[[SessionStatus, int], None] | None = None
    timeout_s: float | None = None
    _service: P2PDistService = field(init=False)
    _session: Session = field(init=False)
    _loop: LoopingCall = field(init=False)
    _deadline: IDelayedCall | None = field(init=False, default=None)
    _done: Deferred[SessionStatus] = field(init=False)
    _result: SessionStatus | Failure | None = field(init=False, default=None)

    def run(self) -> Deferred[SessionStatus]:
        """Go.

        Returns:
            Fires with the last status after a clean stop; fails with what broke the session,
            :class:`TimedOut` or NoPeersFound, or a ConfigurationError at once.
        """
        reactor = self.machine.reactor
        self._done = Deferred()
        self._service = P2PDistService(self.config, self.machine)
        self._session = self.start(self._service)
        self._session.complete.addCallbacks(self._cb_complete, self._end)
        self._loop = LoopingCall(self._show)
        self._loop.clock = reactor
        self._service.privilegedStartService()
        self._service.startService()
        self._loop.start(limits.PROGRESS_EVERY_S)
        if self.timeout_s is not None:
            self._deadline = reactor.callLater(self.timeout_s, self._late)
        reactor.addSystemEventTrigger("before", "shutdown", self._interrupted)
        return self._done

    def _show(self) -> None:
        status = self._session.status()
        if status.stage is Stage.SEEDING:
            return
        if status.checked is not None:
            self.meter.update(*status.checked, "checking what is on disk")
            return
        progress = status.progress
        note = f"{progress.peers} peer{'' if progress.peers == 1 else 's'}"
        if status.waiting_for:
            note += f", waiting for {status.waiting_for}"
        self.meter.update(progress.have_bytes, progress.length or 0, note)

    def _cb_complete(self, _path: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        status = self._session.status()
        length = status.progress.length or 0
        self.meter.update(length, length, "complete and verified")
        if self.stay is None:
            self._end(status)
        else:
            self.stay(status, self._service.port)

    def _late(self) -> None:
        self._deadline = None
        status = self._session.status()
        assert self.timeout_s is not None
        error: P2PDistError = TimedOut(
            f"{status.name} is not complete after {self.timeout_s:g} s; what is there is kept"
        )
        if not status.progress.have_pieces and not status.joined:
            error = NoPeersFound(
                asked=len(status.nodes),
                answered=sum(report.state in ANSWERED for report in status.nodes),
                elapsed_s=self.timeout_s,
                told="; ".join(str(report) for report in status.nodes),
            )
        self._end(Failure(error))

    def _end(self, result: SessionStatus | Failure) -> None:
        """Stop cleanly, then fire."""
        if self._result is not None:
            return
        self._result = result
        self._stop().addCallback(lambda _: self._done.callback(result))

    def _stop(self) -> Deferred[None]:
        if self._loop.running:
            self._loop.stop()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return self._service.stopService()

    def _interrupted(self) -> Deferred[None]:
        """The process is told to end: files are synced and closed before it does."""
        if self._result is None:
            self._result = Failure(CancelledError())
        return self._stop()
