"""Telling the service manager how it goes: systemd's datagrams, without any library.

Job: ``READY`` when the ports are open, one line of ``STATUS``, ``RELOADING``, ``STOPPING``, and the
watchdog's sign of life. A sign is sent from the reactor, and only if a worker has looked at the
download folder since the last one: a reactor that hangs and a disk that hangs both fall silent, and
the supervisor ends the process. It does NOT decide what the supervisor does then.
Threat: none from outside; ``NOTIFY_SOCKET`` comes from whoever started the process.
Source: sd_notify(3), sd_watchdog_enabled(3). Tests: ``test_notify``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from p2pdist import limits
from p2pdist.contents import TransferService
from p2pdist.logs import new_logger
from p2pdist.machine import Machine
from p2pdist.session import Session
from p2pdist.stages import Stage

SIGNS: Final = 3
"""Signs of life within the time the watchdog allows."""


@frozen
class Supervisor:
    """Whoever started the process and wants to hear of it.

    Attributes:
        address: of its socket, a path or an abstract name with ``@``.
        watchdog_s: how long it bears silence; ``None`` if it does not watch.
    """

    address: str
    watchdog_s: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Supervisor | None:
        """Return what the environment says; ``None`` if nobody wants to hear."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        text = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        watched = meant and text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0
        return cls(address, int(text) / 1e6 if watched else None)

    def tell(self, *lines: str) -> bool:
        """Send; never waits. Returns whether it was sent."""
        address = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.setblocking(False)
            way.sendto("\n".join(lines).encode(), address)
            return True
        return False


def status_text(sessions: Sequence[Session], paused: int = 0) -> str:
    """Return one line: how much of everything is here, and how far the slowest fleet is."""
    if not sessions:
        return f"{paused} contents, all paused" if paused else "no content, for others to ask"
    words = []
    if len(sessions) + paused > 1:
        words.append(f"{len(sessions)} contents" + (f", {paused} paused" if paused else ""))
    failed = sum(session.stage is Stage.FAILED for session in sessions)
    if failed:
        words.append(f"{failed} failed, see the log")
    progress = [session.transfer.progress() for session in sessions]
    length = sum(one.length or 0 for one in progress)
    have = sum(one.have_bytes for one in progress)
    done = all(session.stage is Stage.SEEDING for session in sessions)
    words.append("complete" if done else f"{min(99, 100 * have // length) if length else 0} %")
    some, everybody = min(
        (_fleet(session) for session in sessions[: limits.STATUS_FLEETS]),
        key=lambda fleet: fleet[0] / fleet[1],
    )
    words.append(f"{some}/{everybody} hosts done")
    return ", ".join(words)


def _fleet(session: Session) -> tuple[int, int]:
    """Return who is done, and everybody; alone until others are known."""
    hosts = session.fleet.hosts()
    done = sum(host.record.report.complete for host in hosts)
    return done, max(1, sum(host.counts for host in hosts))


@define(eq=False)
class Notifying(Service):
    """Tells the supervisor.

    Args:
        supervisor: who is told.
        contents: of which it is told.
        machine: time, workers and the disk that is looked at.
    """

    supervisor: Supervisor
    contents: TransferService
    machine: Machine
    _loop: LoopingCall | None = field(init=False, default=None)
    _watch: LoopingCall | None = field(init=False, default=None)
    _begin: IDelayedCall | None = field(init=False, default=None)
    _looking: bool = field(init=False, default=False)
    _told: str = field(init=False, default="")
    _log = new_logger()

    def startService(self) -> None:
        """Tell that the node is ready, once the reactor runs."""
        super().startService()
        self._begin = self.machine.reactor.callLater(0, self._ready)

    def _ready(self) -> None:
        self._begin = None
        if not self.supervisor.tell("READY=1"):
            self._log.warn("{path}: cannot be told how it goes", path=self.supervisor.address)
        self._loop = self._every(limits.STATUS_EVERY_S, self._status)
        if self.supervisor.watchdog_s is not None:
            self._look()
            self._watch = self._every(self.supervisor.watchdog_s / SIGNS, self._sign)

    def _every(self, seconds: float, act: Callable[[], None]) -> LoopingCall:
        loop = LoopingCall(act)
        loop.clock = self.machine.reactor
        loop.start(seconds)
        return loop

    def stopService(self) -> None:
        """Tell that it ends."""
        super().stopService()
        if self._begin is not None:
            self._begin.cancel()
            self._begin = None
        for loop in (self._loop, self._watch):
            if loop is not None and loop.running:
                loop.stop()
        self.supervisor.tell("STOPPING=1", "STATUS=stopping")

    def reloading(self, reload: Callable[[], Deferred[None]]) -> Deferred[None]:
        """Reload, and tell when it begins and ends."""
        self.supervisor.tell("RELOADING=1")
        self._told = ""
        return reload().addCallback(lambda _: self._reloaded())

    def _reloaded(self) -> None:
        self.supervisor.tell("READY=1")

    def _status(self) -> None:
        text = status_text(list(self.contents.sessions.values()), len(self.contents.paused))
        if text != self._told and self.supervisor.tell(f"STATUS={text}"):
            self._told = text

    # --- the watchdog ---

    def _sign(self) -> None:
        """Give a sign of life, if the disk gave one."""
        if not self._looking:
            self.supervisor.tell("WATCHDOG=1")
            self._look()

    def _look(self) -> None:
        """Have a worker look at the download folder."""
        self._looking = True

        def looked(_answer: object) -> None:
            self._looking = False

        self.machine.workers.run(self._open).addBoth(looked)

    def _open(self) -> None:
        """Block, if the disk does; what it says does not matter."""
        disk = self.machine.disk
        with suppress(OSError):
            handle = disk.open_root(self.contents.config.directory)
            try:
                disk.facts(handle)
            finally:
                disk.close(handle)


def supervisor_of_process() -> Supervisor | None:
    """Return who started this process and wants to hear of it, if anybody does."""
    return Supervisor.of(os.environ, os.getpid())
