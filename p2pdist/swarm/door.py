"""A caller who has not said yet what he wants: the first bytes decide.

    waiting -> handed over   the listener made a protocol for him, which gets all bytes
    waiting -> gone          not within ``limits.HANDSHAKE_S``, or what came fits nothing: a reset,
                             without a byte before it, and always the same

Job: keep the bytes until they tell. Does NOT know what they mean (``listener``, ``knock``).
Threat: callers who say nothing, nonsense, or that drop by drop. Tests: ``test_private_tcp``.
"""

from __future__ import annotations

from typing import Any, cast
from typing import Protocol as Structural

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.errors import RemoteProtocolError
from p2pdist.logs import new_logger


class DoorOwner(Structural):
    """Who decides."""

    def recognise(self, door: Door, data: bytes, left_s: float) -> tuple[Protocol, int] | None:
        """Return the protocol for a caller who began with ``data``; ``None`` if it does not tell.

        With it, how many of these bytes are not for it.

        Args:
            door: where he stands.
            data: everything he said, one byte at least.
            left_s: seconds until he must have proved himself.

        Raises:
            RemoteProtocolError: he is none of ours.
        """

    def door_closed(self, door: Door) -> None:
        """He is gone, and was not handed over."""


class Door(Protocol):
    """See the module.

    Args:
        clock: time.
        owner: decides.
        address: where he calls from.

    Attributes:
        useful_at: since when he stands there (:class:`~p2pdist.swarm.admission.Admitted`).
    """

    log = new_logger()

    def __init__(self, clock: IReactorTime, owner: DoorOwner, address: Address) -> None:
        self.address = address
        self.useful_at = clock.seconds()
        self._clock = clock
        self._owner = owner
        self._heard = b""
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Wait for bytes, not for long."""
        self._deadline = self._clock.callLater(limits.HANDSHAKE_S, self.shed)

    def dataReceived(self, data: bytes) -> None:
        """Ask what to make of him."""
        if self._deadline is None:
            return
        self._heard += data
        # A process that stood still may read before it looks at its timers.
        left_s = max(0.0, self._deadline.getTime() - self._clock.seconds())
        try:
            found = self._owner.recognise(self, self._heard, left_s)
        except RemoteProtocolError as error:
            self.log.debug("a caller broke rule {rule}: {error}", rule=error.rule, error=error)
            self.shed()
            return
        if found is not None:
            protocol, taken = found
            self._stop_waiting()
            transport: Any = self.transport
            transport.protocol = protocol
            protocol.makeConnection(transport)
            protocol.dataReceived(self._heard[taken:])

    def _stop_waiting(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def shed(self) -> None:
        """Close; again is fine."""
        self._stop_waiting()
        cast("ITCPTransport", self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """He is gone."""
        del reason
        self._stop_waiting()
        self._owner.door_closed(self)
