"""``p2pdist push``: temporary nodes on many machines, started over ssh, until all have everything.

Job: start an errand (:mod:`~p2pdist.faces.errand`) on each machine, seed the content, watch the
census until every machine that still runs is done, end the errands by closing their input, say how
it went. Who has the secret that is made for this one push takes part, nobody else.
It does NOT install anything, nor know passwords: ssh has to work without asking (``BatchMode``).
Threat: the file of hosts could hold options for ssh: a name that begins with a dash is refused,
and ``--`` stands before all. Tests: ``test_push``.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.config import Config
from p2pdist.descriptor import Descriptor
from p2pdist.errors import ConfigurationError
from p2pdist.faces import bundle
from p2pdist.faces.errand import COMMAND, SAYS, head
from p2pdist.machine import Machine
from p2pdist.secret import Secret
from p2pdist.service import P2PDistService
from p2pdist.session import Session

LOOK_S: Final = 0.5
_HOST: Final = re.compile(r"[A-Za-z0-9_\[][\w.@:%\[\]-]{0,254}", re.ASCII)


@frozen
class Order:
    """What is to be done.

    Attributes:
        path: of the file or folder.
        descriptor: of it, without nodes and secret.
        hosts: as ssh knows them.
        directory: on each of them.
        node: ``HOST:PORT`` under which they reach us; ``""`` for the address ssh comes from.
        python: the command of their Python.
        options: further options of their nodes.
        timeout_s: give up after so long.
    """

    path: str
    descriptor: Descriptor
    hosts: tuple[str, ...]
    directory: str
    node: str = ""
    python: str = "python3"
    options: tuple[str, ...] = ()
    timeout_s: float | None = None


@frozen
class Outcome:
    """How it went.

    Attributes:
        done: machines that have everything.
        failed: what went wrong, by machine.
        late: machines that were not done when the time was over.
    """

    done: tuple[str, ...]
    failed: dict[str, str]
    late: tuple[str, ...] = ()


def read_hosts(argument: str) -> tuple[tuple[str, ...], str]:
    """Return the machines, and the folder on each, of ``FILE[:DIR]``.

    Raises:
        ConfigurationError: the file cannot be read, names nobody, too many, or what is no host.
    """
    file, _, directory = argument.partition(":")
    if Path(argument).exists():  # a colon in its name
        file, directory = argument, ""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise ConfigurationError(
            f"--hosts {file!a}: {reason}; name a file with a host on each line"
        ) from error
    hosts = []
    for number, line in enumerate(lines, 1):
        name = line.partition("#")[0].strip()
        if name and not _HOST.fullmatch(name):
            raise ConfigurationError(
                f"{file}:{number}: {name[:80]!a} is no host; write one a line, as for ssh"
            )
        hosts += [name] if name else []
    if not hosts:
        raise ConfigurationError(f"{file}: names no host; write one a line")
    if len(set(hosts)) > limits.PUSH_HOSTS:
        raise ConfigurationError(f"{file}: more than {limits.PUSH_HOSTS} hosts; use several pushes")
    return tuple(dict.fromkeys(hosts)), directory or "."


class Errand(ProcessProtocol):
    """One ssh.

    Args:
        host: where to.
        told: what goes before the archive.
        archive: path of it.

    Attributes:
        ended: fires with what went wrong, ``""`` for nothing.
        over: whether it was told to end.
    """

    def __init__(self, host: str, told: bytes, archive: str) -> None:
        self.host = host
        self.ended: Deferred[str] = Deferred()
        self.over = False
        self._told = told
        self._archive = archive
        self._file: IO[bytes] | None = None
        self._said = ""

    def connectionMade(self) -> None:
        """Send program, facts and archive."""
        assert self.transport is not None
        self.transport.write(self._told)
        self._file = Path(self._archive).open("rb")  # noqa: SIM115 -- _sent closes it
        pipe = self.transport.pipes[0]  # type: ignore[attr-defined]
        FileSender().beginFileTransfer(self._file, pipe).addBoth(self._sent)

    def _sent(self, _result: object) -> None:
        """Close the archive; if ssh went away meanwhile, its end says why."""
        if self._file is not None:
            self._file.close()

    def outReceived(self, data: bytes) -> None:
        """Keep the end of what it says."""
        self._said = (self._said + data.decode(errors="replace"))[-limits.HOOK_OUTPUT_BYTES :]

    errReceived = outReceived

    def end(self) -> None:
        """Let it stop its node and tidy up."""
        self.over = True
        if self.transport is not None and not self.ended.called:
            self.transport.closeStdin()

    def kill(self) -> None:
        """End ssh; the machine notices that its input ended."""
        if self.transport is not None and not self.ended.called:
            try:
                self.transport.signalProcess("KILL")
            except ProcessExitedAlready:
                return

    def processEnded(self, reason: Failure) -> None:
        """Tell how it went."""
        code = getattr(reason.value, "exitCode", None)
        lines = [line for line in self._said.splitlines() if line.strip()]
        own = [line[len(SAYS) :] for line in lines if line.startswith(SAYS)]
        last = (own or lines or ["nothing was said"])[-1]
        fine = self.over and code == 0
        self.ended.callback("" if fine else f"ended with {code}: {last}")


@define(eq=False)
class Push:
    """One push.

    Args:
        machine: seams.
        order: what is to be done.
        show: told how many are done, of how many, and who is waited for.
    """

    machine: Machine
    order: Order
    show: Callable[[int, int, str], None] = lambda _done, _all, _note: None
    _errands: dict[str, Errand] = field(init=False, factory=dict)
    _failed: dict[str, str] = field(init=False, factory=dict)

    def run(self, config: Config) -> Deferred[Outcome]:
        """Go; fires when no ssh and no node of ours is left.

        Fails with ConfigurationError, StorageError or NotPacked before anything is started.
        """
        return Deferred.fromCoroutine(self._run(config))

    async def _run(self, config: Config) -> Outcome:
        order = self.order
        secret = Secret.new(self.machine.entropy)
        descriptor = evolve(order.descriptor, secrets=(secret,), nodes=())
        handle, archive = tempfile.mkstemp(prefix="p2pdist-push-")
        service = P2PDistService(config, self.machine)
        session = service.add(descriptor, path=order.path, seed_only=True)

        async def leave() -> None:
            await self._stop()
            await service.stopService()

        interrupt = self.machine.reactor.addSystemEventTrigger(
            "before", "shutdown", lambda: Deferred.fromCoroutine(leave())
        )
        try:
            with os.fdopen(handle, "wb") as file:
                size = await self.machine.workers.run(lambda: bundle.pack(file))
            service.privilegedStartService()
            service.startService()
            await session.complete
            for host in order.hosts:
                self._start(host, descriptor, service.port, archive, size)
            late = await self._watch(session)
            await self._stop()
            return self._outcome(session, late)
        finally:
            with suppress(ValueError):  # it was an interrupt
                self.machine.reactor.removeSystemEventTrigger(interrupt)
            await leave()
            os.unlink(archive)  # noqa: PTH108 -- text

    def _start(self, host: str, descriptor: Descriptor, port: int, archive: str, size: int) -> None:
        order = self.order
        told = {
            "kind": list(bundle.kind()),
            "bytes": size,
            "descriptor": descriptor.to_toml(),
            "directory": order.directory,
            "node": order.node,
            "port": port,
            "options": ["--name", host, "--no-lan", "--port", "0", *order.options],
        }
        errand = self._errands[host] = Errand(host, head(told), archive)
        errand.ended.addCallback(self._ended, host)
        command = f"{order.python} -c {shlex.quote(COMMAND)}"
        argv = ["ssh", "-o", "BatchMode=yes", "--", host, command]
        self.machine.reactor.spawnProcess(errand, "ssh", argv, dict(os.environ))

    def _ended(self, trouble: str, host: str) -> None:
        if trouble:
            self._failed[host] = trouble

    async def _watch(self, session: Session) -> tuple[str, ...]:
        """Wait until every machine is done or failed; return who is late."""
        reactor = self.machine.reactor
        began = reactor.seconds()
        while True:
            done = self._done(session)
            left = [host for host in self.order.hosts if host not in done | self._failed.keys()]
            if not left:
                return ()
            self.show(len(done), len(self.order.hosts), f"waits for {left[0]}")
            if (
                self.order.timeout_s is not None
                and reactor.seconds() - began > self.order.timeout_s
            ):
                return tuple(left)
            await deferLater(reactor, LOOK_S, lambda: None)

    def _done(self, session: Session) -> set[str]:
        """Return the machines that have everything, by the names we gave them."""
        return {
            host.record.report.name for host in session.fleet.hosts() if host.record.report.complete
        }.intersection(self.order.hosts)

    def _outcome(self, session: Session, late: Sequence[str]) -> Outcome:
        done = self._done(session)
        order = self.order.hosts
        failed = {host: text for host, text in self._failed.items() if host not in done}
        return Outcome(
            tuple(host for host in order if host in done),
            failed,
            tuple(host for host in late if host not in failed),
        )

    def _stop(self) -> Deferred[Any]:
        """End every errand; fires when all have ended, killed if they must be."""
        running = [errand for errand in self._errands.values() if not errand.ended.called]
        return gatherResults([self._end(errand) for errand in running])

    def _end(self, errand: Errand) -> Deferred[None]:
        """End one; fires when it has ended."""
        timer = self.machine.reactor.callLater(limits.PUSH_END_S, errand.kill)
        gone: Deferred[None] = Deferred()

        def over(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            gone.callback(None)
            return result

        errand.ended.addCallback(over)
        errand.end()
        return gone
