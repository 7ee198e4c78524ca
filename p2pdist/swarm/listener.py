"""Who calls us: the factory behind the TCP port of the process.

Job: let a caller in or not, find the transfer it asks for. Does NOT exchange pieces.
Threat: floods of callers (``admission``). Tests: ``test_admission``.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from p2pdist.ids import HashKey, Topic
from p2pdist.keys import NodeKey
from p2pdist.logs import new_logger
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.connection import PeerConnection, address_of
from p2pdist.swarm.handshake import Acceptor
from p2pdist.swarm.messages import ByeReason
from p2pdist.swarm.peerwire import NONCE_BYTES
from p2pdist.swarm.transfer import Transfer


class PeerListener(Factory):
    """Builds connections for callers and hands each, once proved, to its transfer.

    Args:
        node_key: our key.
        clock: time.
        entropy: secret random bytes.
        find_transfer: who answers for a topic, or ``None``.
        admission: the process-wide count, shared with every transfer.
    """

    log = new_logger()
    noisy = False

    def __init__(
        self,
        *,
        node_key: NodeKey,
        clock: IReactorTime,
        entropy: Callable[[int], bytes],
        find_transfer: Callable[[Topic], Transfer | None],
        admission: Admission,
    ) -> None:
        self._node_key = node_key
        self._clock = clock
        self._entropy = entropy
        self._find_transfer = find_transfer
        self._admission = admission
        self._callers: dict[PeerConnection, int] = {}

    def buildProtocol(self, addr: IAddress | None) -> PeerConnection | None:
        """Let a caller in, or return ``None``: then Twisted closes the socket."""
        address = address_of(addr)
        ticket = self._admission.enter(address, outgoing=False, now=self._clock.seconds())
        if ticket is None:
            self.log.debug("no room for {peer}", peer=address)
            return None
        handshake = Acceptor(self._node_key, self._entropy(NONCE_BYTES), self._find_hash_key)
        caller = PeerConnection(
            clock=self._clock, handshake=handshake, watcher=self, outgoing=False
        )
        caller.factory = self
        self._callers[caller] = ticket
        self._admission.hold(ticket, caller)
        return caller

    def _find_hash_key(self, topic: Topic) -> HashKey | None:
        transfer = self._find_transfer(topic)
        return None if transfer is None else transfer.hash_key

    def connection_proved(self, peer: PeerConnection) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionWatcher`."""
        assert isinstance(peer.handshake, Acceptor)
        topic = peer.handshake.topic
        transfer = None if topic is None else self._find_transfer(topic)
        content = None if transfer is None else transfer.hash_key
        self._admission.prove(self._callers[peer], content)
        if transfer is None:
            peer.close(ByeReason.UNKNOWN_TOPIC)  # it ended during the handshake
        else:
            transfer.accept(peer)

    def connection_ended(self, peer: PeerConnection, reason: str) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionWatcher`."""
        del reason
        self._admission.leave(self._callers.pop(peer))

    def stop(self) -> None:
        """Drop callers that belong to no transfer yet; call after the port stopped listening."""
        for caller in list(self._callers):
            if not caller.is_open:
                caller.abort("stopping")
