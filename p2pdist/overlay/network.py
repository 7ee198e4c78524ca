"""One network: its keys, tables, guard, calls and searches, and what it does with each message.

Job: open and sort what ``Node`` hands over, give searches and memberships what they need. It does
NOT own sockets, and knows neither descriptors nor files. The way of a datagram: ``node`` reads the
header, ``Network`` opens and decodes it, a reply goes to ``rpc``, a request is proved by its token
and served by the method its type names (``serve``), an offer goes to its search or its initiator.

Threat: everything; nothing that comes in raises out of :meth:`Network.datagram_received`.
Tests: ``test_overlay``, ``test_sim_discovery``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, scope, usable
from p2pdist.errors import NodeStopped, RemoteProtocolError, RequestTimedOut, RPCError
from p2pdist.ids import ID_BYTES, NodeID, Topic, distance
from p2pdist.keys import NetworkKeys, equal
from p2pdist.overlay.agenda import Agenda
from p2pdist.overlay.bindings import Bindings
from p2pdist.overlay.carry import Carrier
from p2pdist.overlay.chores import Chores, Companions
from p2pdist.overlay.doubts import Doubts
from p2pdist.overlay.envelope import Envelope, Header
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.guard import Guard
from p2pdist.overlay.lookup import QUERY_BYTES, Candidate
from p2pdist.overlay.messages import (
    NO_TOKEN,
    Accept,
    Challenge,
    Message,
    Offer,
    Ping,
    Pong,
    Reply,
    Request,
)
from p2pdist.overlay.peertable import PeerTable
from p2pdist.overlay.reach import LocalAddress, Reach, nowhere
from p2pdist.overlay.routing import Neighbourhood
from p2pdist.overlay.rpc import RPC, ReplyCache
from p2pdist.overlay.search import Convergence, few_per_subnet
from p2pdist.overlay.serve import JoinServer, Serve, Server, StatusListener
from p2pdist.overlay.wire import decode, encode

NEIGHBOUR_PINGS = 8
"""Neighbours pinged per upkeep step at most."""
OWN_ADDRESSES = 16


@define(eq=False)
class Network:
    """Everything this node is in one network.

    Args:
        keys: of the network.
        node_id: of this node.
        clock: schedules timeouts.
        rng: decides what need not be secret.
        entropy: returns that many unpredictable bytes.
        transmit: puts a datagram on the wire.
        local_address: returns the IP a datagram to an address leaves from, or ``None``.

    Attributes:
        reach: whether strangers can call this node.
        bindings: keeps a way in open where they cannot.
        dropped: how many datagrams were dropped, by the rule they broke.
        agenda: this node's own searches.
        chores: small jobs of its contents, spread.
        companions: who is joined in any of them.
        doubts: which first hops take their walks and bring nothing.
        neighbour_found: called with each node that newly came into the routing table.
        no_route_from: called with each first hop that answered but knows nobody to ask.
        offer_from: called with the source of each offer to a search of ours.
        wrong_network: called with each address that told us it does not serve this network.
    """

    keys: NetworkKeys
    node_id: NodeID
    clock: IReactorTime
    rng: random.Random
    entropy: Callable[[int], bytes]
    transmit: Callable[[bytes, Address], None]
    local_address: LocalAddress = nowhere
    envelope: Envelope = field(init=False)
    guard: Guard = field(init=False)
    rpc: RPC = field(init=False)
    neighbours: Neighbourhood = field(init=False)
    reach: Reach = field(init=False)
    bindings: Bindings = field(init=False)
    peers: PeerTable = field(init=False)
    dropped: Counter[str] = field(init=False, factory=Counter)
    neighbour_found: list[Callable[[Address], None]] = field(init=False, factory=list)
    no_route_from: list[Callable[[Address], None]] = field(init=False, factory=list)
    offer_from: list[Callable[[Address], None]] = field(init=False, factory=list)
    wrong_network: list[Callable[[Address], None]] = field(init=False, factory=list)
    join_servers: dict[Topic, JoinServer] = field(init=False, factory=dict)
    status_listeners: dict[Topic, StatusListener] = field(init=False, factory=dict)
    own_addresses: dict[Address, None] = field(init=False, factory=dict)
    agenda: Agenda = field(init=False, factory=Agenda)
    chores: Chores = field(init=False)
    companions: Companions = field(init=False, factory=Companions)
    doubts: Doubts = field(init=False, factory=Doubts)
    _carrier: Carrier = field(init=False)
    _replies: ReplyCache = field(init=False, factory=ReplyCache)
    methods: dict[type[Message], Serve] = field(init=False)
    _crawls: dict[int, Convergence] = field(init=False, factory=dict)
    _stopped: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.envelope = Envelope(self.keys, self.entropy)
        self.chores = Chores(self.clock)
        self.guard = Guard(self.entropy)
        self.neighbours = Neighbourhood(self.node_id)
        self.peers = PeerTable(self.node_id, self.rng)
        self.reach = Reach(self.local_address)
        self.bindings = Bindings(self)
        self.rpc = RPC(
            clock=self.clock,
            rng=self.rng,
            entropy=self.entropy,
            node_id=self.node_id,
            send=self.send,
            heard=self._heard,
            reborn=self._reborn,
            missed=self.neighbours.missed,
            says=self.bindings.says,
        )
        self._carrier = Carrier(self)
        self.methods = Server(self, self._carrier).methods

    # --- datagrams ---

    def send(self, address: Address, message: Message) -> None:
        """Seal and transmit ``message``."""
        if not isinstance(message, Reply):
            self.reach.sent(address)
        self.transmit(self.envelope.seal(encode(message)), address)

    def datagram_received(self, datagram: bytes, header: Header, source: Address) -> None:
        """Take a datagram that names this network. Never raises for what strangers send."""
        if self._stopped:
            return
        try:
            if header.boot_id == self.envelope.boot_id:
                self._came_back(source, decode(self.envelope.open_own(datagram)))
                return
            message = decode(self.envelope.open(datagram, header))
            if isinstance(message, Reply):
                self.rpc.reply_received(source, message, header.boot_id)
            else:
                self._receive(source, message)
        except RemoteProtocolError as error:
            self.dropped[error.rule] += 1

    def _came_back(self, source: Address, message: Message) -> None:
        """Take a datagram of our own: we called ourselves, and learn an address of ours."""
        if isinstance(message, Request) and self.rpc.came_back(source, message.rid):
            self._own_address(source)
        else:
            self.dropped["own-datagram"] += 1

    def _receive(self, source: Address, message: Message) -> None:
        now = self.clock.seconds()
        if isinstance(message, Offer):
            self._offer(source, message, now)
        elif isinstance(message, Ping):
            self._ping(source, message, now)
        elif isinstance(message, Request):
            self._request(source, message, now)

    def _ping(self, source: Address, ping: Ping, now: float) -> None:
        """Answer anybody: a pong is never larger than its ping."""
        if not self.guard.ping(source, now):
            self.dropped["ping-rate"] += 1
            return
        token = self.guard.mint.token(source, now)
        if equal(ping.token, token) or self.guard.mint.token_ok(source, ping.token, now):
            self._proved_by_token(ping, source, now)
        elif ping.token == NO_TOKEN and self.reach.called(source, now):
            self.bindings.changed()
        pong = Pong(
            rid=ping.rid,
            attempt=ping.attempt,
            node_id=self.node_id,
            token=token,
            observed=source,
            flags=self.bindings.says(source),
        )
        self.send(source, pong)

    def _request(self, source: Address, request: Request, now: float) -> None:
        """Serve a request whose token (or cookie) proves its source; challenge any other."""
        if not self._proved(source, request, now):
            if self.guard.challenge(source, now):
                token = self.guard.mint.token(source, now)
                self.send(source, Challenge(rid=request.rid, attempt=request.attempt, token=token))
            return
        if not self.guard.request(source, now):
            self.dropped["request-rate"] += 1
            return
        self._proved_by_token(request, source, now)
        reply = self._replies.get(source, request, now)
        if reply is None:
            reply = self.methods[type(request)](source, request, now)
            if reply is None:
                return
            self._replies.put(source, reply, now)
        self.send(source, reply)

    def _proved(self, source: Address, request: Request, now: float) -> bool:
        mint = self.guard.mint
        if mint.token_ok(source, request.token, now):
            return True
        return (
            isinstance(request, Accept)
            and len(request.cookie) == limits.COOKIE_BYTES
            and mint.cookie_ok(source, request.qid, request.cookie, now)
        )

    # --- offers ---

    def _offer(self, source: Address, offer: Offer, now: float) -> None:
        search = self.agenda.get(offer.qid[:QUERY_BYTES])
        if search is None:
            self._carrier.relay_offer(source, offer, now)
        elif offer.finder is None or (
            # only who walks for us relays, and a stranger on the Internet names nobody on our LAN
            search.lookup.walked(source) and scope(offer.finder) >= scope(source)
        ):
            for told in list(self.offer_from):
                told(source)
            search.offered(offer, offer.finder or source)
        else:
            self.dropped["offer-relay"] += 1

    # --- what is known of other nodes ---

    def _heard(self, address: Address, pong: Pong) -> None:
        now = self.clock.seconds()
        changed = self.reach.observed(address, pong.observed, now)
        self._verified(pong, address, now)
        self.bindings.tell(address)
        if changed:
            self.bindings.changed()

    def _proved_by_token(self, request: Request, source: Address, now: float) -> None:
        """As :meth:`_verified`; who answers us has proved himself to ``rpc`` already."""
        self.rpc.paths[source].proved = True
        self._verified(request, source, now)

    def _verified(self, message: Pong | Request, address: Address, now: float) -> None:
        """Note that whoever sent ``message`` from ``address`` receives what is sent there."""
        node_id, nat = message.node_id, message.nat
        self.guard.silent.discard(address)
        known = self.neighbours.get(address)
        if known is not None and known.node_id == node_id and (nat is None or nat == known.nat):
            known.seen_at, known.misses = now, 0  # nearly always: spare the tables
        elif self.neighbours.verified(node_id, address, now, nat) and known is None:
            self.own_addresses.pop(address, None)  # a NAT gave it to somebody else
            self._new_at(address)

    def _reborn(self, address: Address) -> None:
        """Treat a neighbour that was restarted as new: it has forgotten what it was told."""
        if self.neighbours.get(address) is not None:
            self._new_at(address)

    def _new_at(self, address: Address) -> None:
        for found in list(self.neighbour_found):
            found(address)
        for search in self.agenda:
            search.poke()

    def _own_address(self, observed: Address) -> None:
        self.own_addresses.pop(observed, None)
        self.own_addresses[observed] = None
        if len(self.own_addresses) > OWN_ADDRESSES:
            del self.own_addresses[next(iter(self.own_addresses))]

    def contact(self, address: Address) -> Deferred[Reply]:
        """Ping ``address`` (3 tries in 2 s); a node that answers becomes a neighbour if it fits.

        One that was silent lately gets a single try.

        Returns:
            Fires with the :class:`Pong`, fails as :meth:`RPC.call` does. An address that never
            answered is then left alone for a while; one that did is wanted after a partition.
        """

        def silent(failure: Failure) -> Failure:
            if failure.check(RequestTimedOut):
                self.unanswered(address)
            return failure

        again = self.guard.silent.holds(address, self.clock.seconds())
        tries = 1 if again else limits.FIRST_CONTACT_TRIES
        return self.rpc.ping(address, tries).addErrback(silent)

    def approachable(self, address: Address, *, lonely: bool = False) -> bool:
        """Tell whether an address somebody told us may be pinged, ``lonely`` for want of others."""
        return (
            usable(address)
            and address not in self.own_addresses
            and not self.guard.silent.holds(address, self.clock.seconds(), lonely=lonely)
        )

    def nodes_told(self, entries: tuple[NodeEntry, ...]) -> None:
        """Contact nodes that a finder named, while the tables are small."""
        for entry in self.worth_asking(entries):
            if len(self.neighbours) > limits.SMALL_TABLE:
                return
            if self.neighbours.get(entry.address) is None:
                self.contact(entry.address).addErrback(_quietly)

    def worth_asking(self, entries: tuple[NodeEntry, ...]) -> list[NodeEntry]:
        """Return those of the nodes one answer named that may be asked: few, none known silent."""
        fit = [e for e in entries if e.node_id != self.node_id and self.approachable(e.address)]
        return few_per_subnet(fit, lambda address: self.neighbours.get(address) is None)

    def unanswered(self, address: Address) -> None:
        """Note that a call to ``address`` timed out: a stranger is left alone for a while."""
        if not self.rpc.paths[address].proved:
            self.guard.silent.add(address, self.clock.seconds())

    # --- what searches need (see search.Surroundings) ---

    def walk_candidates(
        self, family: Address | None = None, nearer_to: bytes | None = None
    ) -> list[Candidate]:
        """Return neighbours that a walk can reach, doubted ones only if there are no others.

        Args:
            family: only those of this address's family.
            nearer_to: only those nearer to this key than we are.
        """
        now = self.clock.seconds()
        target, own = 0, 1 << 8 * ID_BYTES
        if nearer_to is not None:
            target = int.from_bytes(nearer_to, "big")
            own = distance(self.node_id, nearer_to)
        peek = self.rpc.paths.peek
        candidates = []
        for entry in self.neighbours if family is None else self.neighbours.table(family):
            away = entry.number ^ target
            if away < own and not entry.misses and entry.callable_at(now):
                path = peek(entry.address)
                srtt = path.srtt_s if path is not None else None
                candidates.append(Candidate(entry.node_id, entry.address, srtt, entry.number))
        doubted = self.doubts.doubted(now)
        if doubted:
            return [c for c in candidates if c.address not in doubted] or candidates
        return candidates

    def log2_reach(self) -> float:
        """See :meth:`RoutingTable.log2_reach`; of the larger table."""
        ipv4, ipv6 = self.neighbours.ipv4, self.neighbours.ipv6
        return (ipv4 if len(ipv4) >= len(ipv6) else ipv6).log2_reach()

    def table_size(self) -> int:
        """Return how many neighbours there are."""
        return len(self.neighbours)

    def nearest(self, target: bytes, count: int) -> list[NodeEntry]:
        """Return known neighbours near ``target``, of both families, none behind a NAT."""
        return [
            NodeEntry(entry.node_id, entry.address)
            for table in (self.neighbours.ipv4, self.neighbours.ipv6)
            for entry in table.closest(target, count, lambda e: not e.suspect and not e.nat)
        ]

    def no_route(self, address: Address) -> None:
        """Tell whoever watches that ``address`` answered but knows nobody."""
        for told in list(self.no_route_from):
            told(address)

    def converge(
        self,
        target: bytes,
        wanted: int,
        told: Callable[[list[NodeEntry]], None] = lambda _entries: None,
    ) -> Deferred[list[NodeEntry]]:
        """Find the ``wanted`` nodes nearest to ``target``; ``told`` is called with all named.

        Returns:
            Fires with those that answered, nearest first; fails with :class:`NodeStopped` only.
        """
        crawl = Convergence(self, target, wanted, told=told)
        self._crawls[id(crawl)] = crawl

        def over(result: list[NodeEntry] | Failure) -> list[NodeEntry] | Failure:
            self._crawls.pop(id(crawl), None)
            return result

        return crawl.start().addBoth(over)

    # --- upkeep ---

    def upkeep(self) -> None:
        """Do what is due: ping silent neighbours, refresh a bucket, forget expired peers."""
        now = self.clock.seconds()
        self.peers.expire(now)
        self.bindings.upkeep()
        due = [
            entry.address
            for entry in self.neighbours
            if now - entry.seen_at > limits.NEIGHBOUR_PING_S or entry.suspect
        ]
        for address in due[:NEIGHBOUR_PINGS]:
            self.contact(address).addErrback(_quietly)
        for table in (self.neighbours.ipv4, self.neighbours.ipv6):
            for depth in table.stale_buckets(now)[:1]:
                table.refreshed(depth, now)
                crawl = self.converge(self._id_in_bucket(depth), limits.REPLY_NODES, self._fill)
                crawl.addErrback(_quietly)

    def _fill(self, entries: list[NodeEntry]) -> None:
        """Contact nodes that were named and for which there is a place."""
        for entry in entries:
            if self.neighbours.table(entry.address).wants(entry):
                self.contact(entry.address).addErrback(_quietly)

    def _id_in_bucket(self, depth: int) -> bytes:
        """Return a random id that shares exactly ``depth`` leading bits with ours."""
        own = int.from_bytes(self.node_id, "big")
        below = ID_BYTES * 8 - depth - 1
        flipped = (own >> below ^ 1) << below
        return (flipped | self.rng.getrandbits(below) if below else flipped).to_bytes(
            ID_BYTES, "big"
        )

    def stop(self) -> None:
        """End every call, search and timer; what is pending fails with :class:`NodeStopped`."""
        self._stopped = True
        for crawl in list(self._crawls.values()):
            crawl.stop()
        self.agenda.stop()
        self.chores.stop()
        self._carrier.stop()
        self.rpc.stop()


def _quietly(failure: Failure) -> None:
    """Let a call fail that nobody waits for."""
    failure.trap(RPCError, NodeStopped)
