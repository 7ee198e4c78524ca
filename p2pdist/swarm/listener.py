"""Who calls us: the factory behind the TCP port of the process.

Public and private contents share the port. A caller stands at the ``door`` until his first bytes
tell: a public connection begins with ``P``, everything else must be a knock of a private network
that has contents here. A process that is in private networks only takes nothing else; one that is
in both answers as if it were in the public one alone, but for who knocks.
Job: let a caller in or not, find the transfer he asks for. Does NOT exchange pieces.
Threat: floods of callers (``admission``), and of handshakes, which cost more; strangers who would
like to know what is here. Tests: ``test_admission``,
``test_private_tcp``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol

from p2pdist import limits
from p2pdist.addresses import Address, limit_key
from p2pdist.errors import AuthenticationFailed
from p2pdist.ids import HashKey, Topic
from p2pdist.keys import NetworkKeys, topic_of
from p2pdist.logs import new_logger
from p2pdist.overlay.guard import RateLimit
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.binding import PrivateAcceptor
from p2pdist.swarm.connection import PeerConnection, address_of
from p2pdist.swarm.door import Door
from p2pdist.swarm.handshake import Acceptor, Handshake
from p2pdist.swarm.knock import KNOCK_BYTES, Doorkeeper, is_public, knock_size
from p2pdist.swarm.messages import ByeReason
from p2pdist.swarm.peerwire import NONCE_BYTES
from p2pdist.swarm.swarms import Swarms
from p2pdist.swarm.transfer import Transfer
from p2pdist.swarm.transport import Transports


class PeerListener(Factory):
    """Builds connections for callers and hands each, once proved, to its transfer.

    Args:
        transports: our key, and what we show in TLS.
        clock: time.
        swarms: what callers may ask for.
        public: tells whether we are in the public network.
        admission: the process-wide count, shared with every transfer.
    """

    log = new_logger()
    noisy = False

    def __init__(
        self,
        *,
        transports: Transports,
        clock: IReactorTime,
        swarms: Swarms,
        public: Callable[[], bool],
        admission: Admission,
    ) -> None:
        self._transports = transports
        self._clock = clock
        self._swarms = swarms
        self._public = public
        self._admission = admission
        self._doorkeeper = Doorkeeper(transports.node_key.node_id)
        self._of_all: RateLimit[bytes] = RateLimit(limits.RATE_TLS_HANDSHAKES)
        self._of_host: RateLimit[bytes] = RateLimit(limits.RATE_TLS_OF_HOST)
        self._doors: dict[Door, int] = {}
        self._callers: dict[PeerConnection, int] = {}
        self._networks: dict[PeerConnection, NetworkKeys] = {}
        self._stopped = False

    def buildProtocol(self, addr: IAddress | None) -> Door | None:
        """Let a caller come to the door, or return ``None``: then Twisted closes the socket."""
        address: Address = address_of(addr)
        if self._stopped:  # who was in the kernel's queue when the port closed
            return None
        ticket = self._admission.enter(address, outgoing=False, now=self._clock.seconds())
        if ticket is None:
            self.log.debug("no room for {peer}", peer=address)
            return None
        door = Door(self._clock, self, address)
        self._doors[door] = ticket
        self._admission.hold(ticket, door)
        return door

    # --- the door (DoorOwner) ---

    def recognise(self, door: Door, data: bytes, left_s: float) -> tuple[Protocol, int] | None:
        """See :class:`~p2pdist.swarm.door.DoorOwner`."""
        if is_public(data) and self._public():
            nonce = self._transports.entropy(NONCE_BYTES)
            acceptor = Acceptor(self._transports.node_key, nonce, self._find_hash_key)
            return self._let_in(door, acceptor, left_s), 0
        size = knock_size(data)
        if size is None:
            return None
        keys = self._doorkeeper.check(data[:size], self._swarms.networks())
        self._admission.knocked(self._doors[door])
        now = self._clock.seconds()
        if not (self._of_host.allow(limit_key(door.address), now) and self._of_all.allow(b"", now)):
            raise AuthenticationFailed("handshake-rate")
        return self._let_in_privately(door, keys, left_s), KNOCK_BYTES

    def _let_in_privately(self, door: Door, keys: NetworkKeys, left_s: float) -> Protocol:
        from p2pdist.swarm.tlsline import TLSLine

        acceptor = PrivateAcceptor(partial(self._swarms.contents, keys))
        caller = self._let_in(door, acceptor, left_s)
        self._networks[caller] = keys
        return TLSLine(caller, self._transports.credentials.accept())

    def _let_in(self, door: Door, handshake: Handshake, left_s: float) -> PeerConnection:
        caller = PeerConnection(
            clock=self._clock,
            handshake=handshake,
            watcher=self,
            outgoing=False,
            handshake_s=left_s,
        )
        ticket = self._callers[caller] = self._doors.pop(door)
        self._admission.hold(ticket, caller)
        return caller

    def door_closed(self, door: Door) -> None:
        """See :class:`~p2pdist.swarm.door.DoorOwner`."""
        self._admission.leave(self._doors.pop(door))

    # --- those let in (ConnectionWatcher) ---

    def _find_hash_key(self, topic: Topic) -> HashKey | None:
        transfer = self._swarms.public(topic)
        return None if transfer is None else transfer.hash_key

    def _find_transfer(self, peer: PeerConnection) -> Transfer | None:
        """Return what a proved caller asked for, in the network he came by."""
        assert isinstance(peer.handshake, (Acceptor, PrivateAcceptor)), "he called"
        content, keys = peer.handshake.content, self._networks.get(peer)
        assert content is not None, "he proved that he knows it"
        if keys is None:
            return self._swarms.public(topic_of(content))
        return self._swarms.private(keys, content)

    def connection_proved(self, peer: PeerConnection) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionWatcher`."""
        transfer = self._find_transfer(peer)
        content = None if transfer is None else transfer.hash_key
        self._admission.prove(self._callers[peer], content)
        if transfer is None:
            peer.close(ByeReason.UNKNOWN_TOPIC)  # it ended during the handshake
        else:
            transfer.accept(peer)

    def connection_ended(self, peer: PeerConnection, reason: str) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionWatcher`."""
        del reason
        self._networks.pop(peer, None)
        self._admission.leave(self._callers.pop(peer))

    def stop(self) -> None:
        """Drop callers that belong to no transfer yet, and let nobody in any more."""
        self._stopped = True
        for door in list(self._doors):
            door.shed()
        for caller in list(self._callers):
            if not caller.is_open:
                caller.abort("stopping")
