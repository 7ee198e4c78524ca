"""``--on-complete``: a command of the operator's, run once for every content that is complete.

Job: see who is complete, run the command with the facts in its environment, remember for whom it
was run, say how it went. There is no shell: words are split as a shell would, and that is all.
Environment, besides the node's own::

    P2PDIST_NAME        the content's name        P2PDIST_PATH      where it is, absolute
    P2PDIST_HASH_KEY    b3:...                    P2PDIST_LENGTH    bytes
    P2PDIST_DESCRIPTOR  the descriptor's file

Once means: the state directory remembers for which contents the command has ended, whatever its
exit code; one that was cut short, by a crash of the node or its end, is run again at the next
start. Without a state directory once is once for each process.

Threat: names come from outside; they are values in the environment, never words of a command line.
A command that hangs is ended after ``limits.HOOK_S``. Tests: ``test_hooks``.
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.contents import TransferService
from p2pdist.errors import ConfigurationError, P2PDistError
from p2pdist.logs import new_logger
from p2pdist.machine import Machine
from p2pdist.session import Session
from p2pdist.stages import Stage
from p2pdist.storage.statedir import StateDirectory

KEPT_BACK: Final = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"),
)
"""Of the environment, what is between the service manager and the node."""


def parse_command(text: str) -> tuple[str, ...]:
    """Return the words of a command.

    Raises:
        ConfigurationError: there is none, or a quotation mark has no end.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigurationError(f"--on-complete {text[:80]!a}: {error}") from error
    if not words or "\0" in text:
        raise ConfigurationError(f"--on-complete {text[:80]!a}: expected a command")
    return words


class Command(ProcessProtocol):
    """One run of the command.

    Attributes:
        ended: fires with the exit code, minus the signal that ended it, or ``None`` if it never
            ran.
        gone: fires after that.
        output: the end of what it printed.
    """

    def __init__(self, reactor: Any) -> None:
        self.ended: Deferred[int | None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.output = b""
        self._reactor = reactor
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Nothing comes to its input; its time begins."""
        assert self.transport is not None
        self.transport.closeStdin()
        self._timer = self._reactor.callLater(limits.HOOK_S, self.stop)

    def outReceived(self, data: bytes) -> None:
        """Keep the end."""
        self.output = (self.output + data)[-limits.HOOK_OUTPUT_BYTES :]

    errReceived = outReceived

    def stop(self) -> None:
        """End it, politely first."""
        self._signal("TERM")
        self._cancel()
        self._timer = self._reactor.callLater(limits.HOOK_KILL_S, self._signal, "KILL")

    def _signal(self, name: str) -> None:
        assert self.transport is not None
        try:
            self.transport.signalProcess(name)
        except ProcessExitedAlready:
            return

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def processEnded(self, reason: Failure) -> None:
        """Tell."""
        self._cancel()
        by = getattr(reason.value, "signal", None)
        self.ended.callback(-by if by else getattr(reason.value, "exitCode", None))
        self.gone.callback(None)


@define(eq=False)
class Hooks(Service):
    """Runs the command for whoever is complete.

    Args:
        words: of the command.
        contents: that are looked at every second.
        machine: starts processes, and has the time.
        state: remembers for whom it ran, if there is one.
        environment: of the node.

    Attributes:
        failures: runs that did not end with 0.
    """

    words: tuple[str, ...]
    contents: TransferService
    machine: Machine
    state: StateDirectory | None = None
    environment: Mapping[str, str] = field(factory=lambda: dict(os.environ), repr=False)
    failures: int = field(init=False, default=0)
    _done: dict[str, None] = field(init=False, factory=dict)
    _waiting: deque[tuple[str, dict[str, str]]] = field(init=False, factory=deque)
    _running: dict[str, Command] = field(init=False, factory=dict)
    _loop: LoopingCall | None = field(init=False, default=None)
    _saving: DeferredLock = field(init=False, factory=DeferredLock)
    _log = new_logger()

    def startService(self) -> None:
        """Look every second; a bad memory is an empty one."""
        super().startService()
        if self.state is not None:
            known = self.state.load_hooked().decode(errors="replace").splitlines()
            self._done = dict.fromkeys(known[-limits.HOOKED :])
        self._loop = LoopingCall(self._look)
        self._loop.clock = self.machine.reactor
        self._loop.start(limits.PROGRESS_EVERY_S)

    def stopService(self) -> Deferred[None]:
        """Begin nothing more; what runs is told to end, and is run again another time.

        Fires when all have ended.
        """
        super().stopService()
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        self._waiting.clear()
        over: list[Deferred[None]] = [self._saving.run(lambda: None)]
        for command in self._running.values():
            over.append(command.gone)
            command.stop()
        return gatherResults(over).addCallback(lambda _: None)

    @property
    def idle(self) -> bool:
        """Whether the command has ended for everybody who is complete."""
        self._look()
        return not self._waiting and not self._running

    def _look(self) -> None:
        """Note who is complete and was not before."""
        waiting = {key for key, _ in self._waiting}
        for session in self.contents.sessions.values():
            if session.stage is not Stage.SEEDING:
                continue
            facts = facts_of(session)
            key = facts["P2PDIST_HASH_KEY"]
            if key not in self._done and key not in self._running and key not in waiting:
                self._waiting.append((key, facts))
        while self.running and self._waiting and len(self._running) < limits.HOOKS:
            self._run(*self._waiting.popleft())

    def _run(self, key: str, facts: dict[str, str]) -> None:
        own = {name: text for name, text in self.environment.items() if name not in KEPT_BACK}
        command = self._running[key] = Command(self.machine.reactor)
        command.ended.addCallback(partial(self._ended, key, facts["P2PDIST_NAME"], command))
        self._log.info("{name}: runs {command}", name=facts["P2PDIST_NAME"], command=self.words[0])
        try:
            self.machine.reactor.spawnProcess(
                command, self.words[0], self.words, {**own, **facts}, path=None
            )
        except (OSError, ValueError) as error:
            command.output = str(error).encode()
            command.ended.callback(None)

    def _ended(self, key: str, name: str, command: Command, code: int | None) -> None:
        del self._running[key]
        if code != 0:
            self.failures += 1
            how = "could not be started" if code is None else f"ended with {code}"
            self._log.error(
                "{name}: {command} {how}: {output}",
                name=name,
                command=self.words[0],
                how=how,
                output=command.output.decode(errors="replace").strip(),
            )
        if self.running:
            self._done[key] = None
            self._save()
            self._look()

    def _save(self) -> None:
        if self.state is None:
            return
        data = "".join(f"{key}\n" for key in list(self._done)[-limits.HOOKED :]).encode()
        saved = self._saving.run(self.machine.workers.run, partial(self.state.save_hooked, data))

        def failed(failure: Failure) -> None:
            failure.trap(P2PDistError)
            self._log.warn("not remembered: {reason}", reason=str(failure.value))

        saved.addErrback(failed)


def facts_of(session: Session) -> dict[str, str]:
    """Return what the command is told of a complete content."""
    status = session.status()
    return {
        "P2PDIST_NAME": status.name,
        "P2PDIST_PATH": status.path or "",
        "P2PDIST_HASH_KEY": status.hash_key,
        "P2PDIST_LENGTH": str(status.progress.length or 0),
        "P2PDIST_DESCRIPTOR": session.descriptor.source,
    }
