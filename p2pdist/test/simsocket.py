"""What all simulated sockets share: readiness, and the turns of Twisted's own transports.

Job: the seam between the simulated kernel and production Twisted. Not Twisted's transports are
imitated but the sockets beneath them: real ``udp.Port``, ``tcp.Client`` and ``tcp.Server`` run on
top, with their buffers, producers and errors. Does NOT move bytes (``simudp``, ``simtcp``).
Tests: ``test_simudp``, ``test_simtcp``.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure

from p2pdist.simulation.timeline import Boot
from p2pdist.test.simwires import Machine, SocketAddress, shown

_log = Logger()


def take_turn(selectable: Any, *, reading: bool) -> None:
    """Let a Twisted transport read or write, and close it for what it answers, as reactors do."""
    try:
        why = selectable.doRead() if reading else selectable.doWrite()
    except Exception:  # noqa: BLE001 -- as the real reactor: log it and drop the connection
        why = sys.exc_info()[1]
        _log.failure("unhandled error in a transport")
    if not why:
        return
    reactor = selectable.reactor
    reactor.removeReader(selectable)
    done = isinstance(why, error.ConnectionDone)
    if reading and done and IHalfCloseableDescriptor.providedBy(selectable):
        selectable.readConnectionLost(Failure(why))
    else:
        reactor.removeWriter(selectable)
        selectable.connectionLost(Failure(why))


class Socket:
    """A socket of one process on one machine.

    Attributes:
        machine: where it is.
        boot: whose it is.
        ipv6: its family.
        ip: local address; a wildcard, or before it is bound likewise.
        port: local port, 0 before it is bound.
        reader: transport that wants to hear when it is readable, set by the reactor.
        writer: transport that wants to hear when it is writable.
        closed: whether the process closed it.
    """

    def __init__(self, machine: Machine, family: int) -> None:
        self.machine = machine
        self.boot: Boot = machine.boot
        self.ipv6 = family == socket.AF_INET6
        self.ip = "::" if self.ipv6 else "0.0.0.0"
        self.port = 0
        self.reader: Any = None
        self.writer: Any = None
        self.closed = False
        self.options: dict[tuple[int, int], Any] = {}
        self._read_turn = False
        self._write_turn = False

    # --- readiness ---

    def readable(self) -> bool:
        """Tell whether a read would not block."""
        raise NotImplementedError

    def writable(self) -> bool:
        """Tell whether a write would not block."""
        raise NotImplementedError

    def wake(self) -> None:
        """Give waiting transports their turns now; called by the kernel when something changed."""
        if self.boot.halted:
            self.poll()
            return
        if self.reader is not None and not self._read_turn and self.readable():
            self._read_turn = True
            self._read()
        if self.writer is not None and not self._write_turn and self.writable():
            self._write_turn = True
            self._write()

    def poll(self) -> None:
        """Give waiting transports turns of their own; called by the process itself."""
        wires = self.machine.wires
        if self.reader is not None and not self._read_turn and self.readable():
            self._read_turn = True
            wires.at(wires.now, self.boot, self._read)
        if self.writer is not None and not self._write_turn and self.writable():
            self._write_turn = True
            wires.at(wires.now, self.boot, self._write)

    def _read(self) -> None:
        self._read_turn = False
        if self.reader is not None and self.readable():
            take_turn(self.reader, reading=True)
            self.poll()

    def _write(self) -> None:
        self._write_turn = False
        if self.writer is not None and self.writable():
            take_turn(self.writer, reading=False)
            self.poll()

    # --- what Twisted calls on any socket ---

    def name_of(self, ip: str, port: int) -> tuple[Any, ...]:
        """Return an address as this family's system calls give it."""
        return (shown(ip, ipv6=True), port, 0, 0) if self.ipv6 else (ip, port)

    @property
    def address(self) -> SocketAddress:
        """Own ``(ip, port)`` as packets carry it."""
        return self.ip, self.port

    def getsockname(self) -> tuple[Any, ...]:
        """See :meth:`socket.socket.getsockname`."""
        return self.name_of(self.ip, self.port)

    def setblocking(self, flag: bool) -> None:
        """See :meth:`socket.socket.setblocking`; no simulated socket ever blocks."""

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Keep an option; most change nothing."""
        self.options[level, option] = value

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        """Return an option set before, 0 otherwise; a structure is asked for by size: none here."""
        return self.options.get((level, option), b"" if size else 0)
