"""Bounds of what goes over UDP: addresses, datagrams, calls, tables, lookups, the LAN."""

from __future__ import annotations

from typing import Final

from p2pdist.limits.units import KIB

# --- addresses ---
DEFAULT_PORT: Final = 7667
ADDRESS_CACHE: Final = 2048
"""Parsed addresses each lru_cache keeps, so a flood of addresses only costs parsing again. Both
routing tables (640) and the peers of a few topics are what one datagram may look through."""

# --- datagrams (decision 7) ---
DATAGRAM_BYTES: Final = 1232
"""Largest datagram, envelope included: IPv6's minimum MTU of 1280 less 48 bytes of headers."""
ENVELOPE_BYTES: Final = 46
"""30 bytes of header and 16 of AES-GCM tag."""
PAYLOAD_BYTES: Final = DATAGRAM_BYTES - ENVELOPE_BYTES
PING_BYTES: Final = 110
"""Every ping, so that a pong (never larger) can carry token and observed address (decision 8)."""
OFFER_BYTES: Final = 200
"""Largest offer, and what one reply unit pays for."""
GET_PEERS_BYTES: Final = 720
GET_PEERS_UNITS: Final = 3
"""720 >= 3 * 200: what a first walk may cause at most."""
GET_PEERS_WIDE_BYTES: Final = 1232
GET_PEERS_WIDE_UNITS: Final = 5
"""1232 >= 5 * 200: hedges and retries."""
OFFER_PEERS_V4: Final = 13
OFFER_PEERS_V6: Final = 4
REPLY_PEERS_V4: Final = 100
REPLY_PEERS_V6: Final = 46
REPLY_NODES: Final = 8
"""Nodes in a find or accept reply (Kademlia's k in BEP 5)."""
MSGPACK_ARRAY: Final = 16
"""Elements of a message array; without a limit 1.4 kB of nested headers costs 5 MiB to unpack."""
UDP_READ_DATAGRAMS: Final = 32
"""Read per turn of the reactor, so that junk cannot starve timers and TCP. Twisted counts bytes
(256 KiB), of which an empty datagram has none. Source: ``benchmarks/junk.py``."""

# --- envelope ---
ENVELOPE_CIPHERS: Final = 192
"""Senders whose cipher is kept: 2.5 KiB of OpenSSL's to save the 3 us it takes to make."""
ENVELOPE_SENDERS: Final = 1024
"""Senders whose datagrams are remembered, in private networks: more than both routing tables hold,
and what is replayed of an older one is a request done twice, which handlers bear (decision 6)."""
ENVELOPE_TAKEN: Final = 1 << 17
"""Datagrams remembered in all, two bytes each; then the sender not heard for longest is forgotten.
At the two a second that a node gets in a network with churn that is 18 hours of them."""
COUNTER_MAX: Final = 1 << 16
"""Datagrams under one boot_id; then a new boot_id. So few that a receiver in a private network can
remember the number of each one it took in two bytes (decision 6)."""
CLOCK_JUMP_S: Final = 5.0
"""A clock that jumps further may mean a restored snapshot: take a new boot_id."""

# --- tokens and cookies (decision 5) ---
TOKEN_BYTES: Final = 8
COOKIE_BYTES: Final = 12
TOKEN_EPOCH_S: Final = 300.0
"""Secret turns over; this and the previous epoch are accepted (BEP 5)."""
TOKEN_CACHE: Final = 256
"""Tokens at hand, of as many addresses as a table of a network of 10,000 has: about 50 KiB."""
TOKEN_REFRESH_S: Final = 240.0
"""Ping a contact again before our token for it expires."""

# --- RPC ---
RTO_MIN_S: Final = 0.03
"""A first hop's silence is noticed so soon at best: 50 ms cost lookups on a bad network 5 %."""
RTO_MAX_S: Final = 3.0
RTO_STRANGER_S: Final = 0.5
"""First timeout towards an address never measured; RFC 6298's 1 s is slow for one datagram."""
RTO_VARIANCE_FLOOR_S: Final = 0.01
"""How much longer than usual an answer may take at least: with 20 ms, lookups with 20 % loss and
30 % dead entries took 7 % longer in the median."""
RTO_JITTER: Final = 0.2
"""Back-off times are spread by +-20 %."""
TRIES: Final = 3
CALLS_OUTSTANDING: Final = 1024
CALLS_PER_ADDRESS: Final = 8
ALARM_SPARE: Final = 512
"""Timeouts of calls answered long ago that may stay in line: with 64 calls at a time, 30,000 a
second, they are swept every 450 calls."""
RTT_ENTRIES: Final = 2048
"""Addresses whose RTT, token and miss count are kept: thrice what both routing tables hold."""
REPLY_CACHE: Final = 512
REPLY_CACHE_S: Final = 10.0
"""Replies kept to answer a retried request without doing its work twice."""
CHALLENGES_PER_CALL: Final = 2

# --- first contact (decision 8) ---
FIRST_CONTACT_TRIES: Final = 3
FIRST_CONTACT_WINDOW_S: Final = 2.0
CONTACT_RETRY_S: Final = 5.0
CONTACT_RETRY_MAX_S: Final = 60.0
CONTACT_RETRY_ONE_S: Final = 20.0
"""The longest pause where the descriptor names one node, twice that with two, CONTACT_RETRY_MAX_S
with more: all together get three pings a minute, so that those that are back answer within a minute
although one ping in ten is lost. Source: ``benchmarks/reliability.py --row bootstraps-back``."""
DNS_TIMEOUT_S: Final = 10.0
DNS_ADDRESSES: Final = 8
"""Addresses of one name that are used."""

# --- routing table ---
BUCKET_SIZES: Final = (64, 32, 16)
"""First buckets; every later one has the last size. Source: lookup simulation, wide buckets."""
NEIGHBOURS: Final = 320
"""Entries per address family."""
REPLACEMENTS: Final = 8
SUBNET_PER_BUCKET: Final = 2
SUBNET_PER_TABLE: Final = 10
MISSES_DEAD: Final = 3
"""Unanswered calls in a row until an entry is replaced; one makes it suspect."""
NEIGHBOUR_PING_S: Final = 240.0
BUCKET_REFRESH_S: Final = 900.0
BUCKET_GROW_S: Final = 10.0
"""A bucket with free places is looked through again so soon while that fills some, and after four
times as long each time it does not, up to BUCKET_REFRESH_S. Source: ``benchmarks/joining.py``; with
BUCKET_REFRESH_S alone, tables of a new network had 3 % of what they have in the long run."""
ENTRY_CHECK_S: Final = 50.0
ENTRIES_CHECKED: Final = 4
"""A node of the descriptor that answered is asked again so soon, where there are no more of them
than that; else so much later that as many a minute are. One that was restarted knows no swarm any
more and is told of ours again, which must not take longer than finding it does."""
ENTRY_RETURN_S: Final = 12.0
"""One that answered once and is silent now is asked again so soon, two pings at a time: it is no
victim, and often the only way to the other side of a partition."""
SMALL_TABLE: Final = 64
"""Up to this many entries, asking everybody is cheaper than being clever."""

# --- NAT (RFC 4787, RFC 5780) ---
NAT_BINDING_S: Final = 60.0
"""A node behind a NAT that wrote so lately can be called. RFC 4787 (REQ-5) asks NATs for 120 s, and
many give less."""
NAT_KEEPALIVE_S: Final = 25.0
"""+-RTO_JITTER and up to UPKEEP_EVERY_S later: 35 s at most, so NAT_BINDING_S bears a late one.
Source: py-ipv8."""
NAT_PINNED: Final = 16
"""Neighbours towards whom a node behind a NAT keeps its binding open: a walk needs few ways in."""
NAT_PER_TABLE: Final = 64
"""Neighbours behind NATs, each family: a fifth, since most of them cannot be called at any time."""
OBSERVERS: Final = 32
"""Subnets whose view of our address is remembered, each family."""
OBSERVERS_AGREEING: Final = 2
"""Subnets (/24, /48) that must see the same foreign host: one liar decides nothing."""
OBSERVATION_S: Final = 600.0
"""A view older than that says nothing: twice NEIGHBOUR_PING_S, and some."""
REACHED_S: Final = 86_400.0
"""A stranger's ping that came in proves a forwarded port so long, for the same outside address.
Long, because nothing repeats the proof where all know each other, and a wrong guess costs pings."""
SENT_SUBNETS: Final = 1024
"""Subnets remembered as sent to, each family: more than 60 s of lookups reach."""

# --- PeerTable ---
TOPICS: Final = 1024
PEERS_PER_TOPIC: Final = 256
PEERS_PER_OWN_TOPIC: Final = 512
PEERS_TOTAL: Final = 8192
"""Every peer announces to STORERS nodes, so nodes of 341 contents each fill this on average."""
PORTS_PER_HOST: Final = 8
"""Peers of one topic on one global host."""
PEER_TTL_S: Final = 1800
SEQUENCE_HOLD_S: Final = 60.0
"""Longer than any datagram is late; then a lower sequence number is a restarted machine's."""
ANNOUNCE_EVERY_S: Final = 900.0
ANNOUNCE_JITTER: Final = 0.2
STORERS: Final = 24
"""Nodes closest to the topic that are told of us. With 16, a lookup among 10,000 took 75 ms and
16.1 packets, with 24 it took 71 and 14.9 (while tuning; see ``benchmarks/choices.py``)."""

# --- lookup ---
WALKS: Final = 2
PAIR_WALKS: Final = 1
"""First walks of a lookup that ask for two storers at their end: 65.6 ms and 15.8 datagrams with 1,
68.1 and 14.7 with none, 64.2 and 19.7 if all do (``docs/overlay.md``, what was tried)."""
LOSSES_ROUGH: Final = 3
"""Lost first hops of one lookup from which on two walks replace each: with 20 % loss and 30 % dead
entries, this and RTO_MIN_S took p99 from 631 to 379 ms; with 5 % and 10 % it is rare."""
HEDGE_RTTS: Final = (1.7, 2.8)
"""Third and fourth walk, after so many median round trips without an offer, clamped to ..."""
HEDGE_1_S: Final = (0.06, 0.25)
HEDGE_2_S: Final = (0.12, 0.5)
"""... these ranges."""
BROADCAST_AFTER_S: Final = 0.25
ITERATE_AFTER_S: Final = 0.5
ATTEMPT_3_S: Final = 1.5
LOOKUP_S: Final = 10.0
LOOKUP_RETRY_S: Final = (5.0, 300.0)
"""First and longest pause between failed lookups, doubling, +-20 %."""
STALL_SEARCH_S: Final = (5.0, 10.0)
"""The same while pieces are missing and none comes from the peers there are: the others may be
behind a partition that has just ended."""
LOOKUPS: Final = 4
"""At once; fewer than CALLS_PER_ADDRESS, for all of them may begin at one neighbour."""
LOOKUP_CANDIDATES: Final = 16
"""Peers whose addresses one lookup pings; walks stop there."""
LOOKUP_FINDERS: Final = 4
"""Finders from whom the longer list is pulled."""
WALK_HOP_COST: Final = 0.25
"""Of the typical round trip, for the hop a walk must still take after one that stores nothing."""
WALK_BIT_COST: Final = 0.085
"""Of the typical round trip, for each bit of distance still to go."""
WALK_STORER_BITS: Final = (-1.0, 0.2)
"""Bits beyond the distance where STORERS nodes live: up to the first a node surely is a storer,
from the second on surely none."""
ENTRY_NODES: Final = 8
"""Nodes of the descriptor that are told of us and asked for peers whatever their ids are: ids next
to a topic can be made at will, the descriptor cannot."""
ENTRY_PEERS: Final = 8
"""Addresses each of them may have tried beyond LOOKUP_CANDIDATES, which liars can use up."""
AROUND_S: Final = (1.5, 2.5)
AROUND: Final = 32
"""Neighbours asked for their own tables at each of these times, the farthest from the topic first:
nobody who wants to own a topic gains by being there."""
AROUND_PEERS: Final = 1
"""Addresses each of them may have tried beyond LOOKUP_CANDIDATES: itself, if it is a member."""
DOUBT_WALKS: Final = 3
"""Walks in a row through one first hop that bring nothing, in lookups that found somebody: then it
is doubted. One or two are no sign: an honest one may have black holes behind it."""
DOUBT_AFTER_S: Final = 2.0
"""A lookup younger than this is not judged: its walks may still be under way."""
DOUBT_S: Final = 900.0
DOUBTS: Final = 512
"""First hops whose last walk brought nothing."""
WALK_CANDIDATES: Final = 4
"""Next hops a forwarder tries."""
HOPS: Final = 12
ALPHA: Final = 3
ITERATE_SLOT_S: Final = 0.3
ITERATE_NODES: Final = 64
"""Candidates an iterative lookup keeps."""
QUERY_CACHE: Final = 2048
"""RATE_RELAY_BYTES lets 91 queries of 720 bytes a second be carried, and 364 at once: these are
1730 in QUERY_CACHE_S."""
QUERY_CACHE_S: Final = 15.0
OFFER_REPEAT_S: Final = 0.25
"""When a node with a small table offers once more: there few others would, and offers get lost."""
NEGATIVE_CACHE_S: Final = 600.0
NEGATIVE_CACHE: Final = 2048
"""Offered addresses that did not answer."""
LONELY_RETRY_S: Final = 60.0
"""So soon one of them that is offered again gets another ping, where we know no peer of the content
at all, or only such as give nothing: it was our own line that failed, perhaps, and we may be in the
cache of all others, too."""
SILENT_PORTS: Final = 4
"""With so many of them at one global host (IPv6: /64), no other port there is tried."""

# --- rate limits: (per second, burst) ---
RATE_KEYS: Final = 1024
"""Buckets each limit keeps, the longest unused forgotten: to be forgotten between two pings at
RATE_PING, a sender needs 20,000 others a second in between, more than a core can open."""
RATE_FIRST_HOP: Final = (2.0, 20.0)
RATE_FORWARD: Final = (20.0, 100.0)
RATE_SOURCE: Final = (2.0, 10.0)
RATE_OFFER: Final = (1.0, 6.0)
RATE_OFFER_SUBNET: Final = (10.0, 30.0)
RATE_RELAY_BYTES: Final = (64.0 * KIB, 256.0 * KIB)
"""Bytes sent for others: forwards, offers, relayed offers."""
RATE_CHALLENGE: Final = (2.0, 10.0)
RATE_CHALLENGE_ALL: Final = (200.0, 200.0)
RATE_PING: Final = (20.0, 40.0)
RATE_REQUEST: Final = (50.0, 200.0)
RATE_ANNOUNCE: Final = (10.0 / 60.0, 30.0)
"""A limit on foreign topics an address registers; the same topic again is a refresh."""
RATE_CHORES: Final = (10.0, 50.0)
"""Joins and announces of our own, all contents together: what a node gets to hear of each stays
within the RATE_REQUEST that it answers."""

# --- membership ---
COMPANIONS: Final = 4
"""Joined peers of other contents that one whose search has to wait tries first."""
JOINED_PEERS: Final = 32
"""Peers a node keeps joined at once (16 to 32 neighbours are enough up to N = 1000)."""
PING_PARALLEL: Final = 16
STATUS_PEERS: Final = 64
TIMER_GRAIN_S: Final = 0.001
"""No timer is shorter: due times are sums of floats, and now may stay just short of one."""
UPKEEP_EVERY_S: Final = 5.0
BOOTSTRAP_ENTRIES: Final = 1024
"""Entry points kept for all descriptors of one process."""
SAVED_NEIGHBOURS: Final = 64
SAVED_PEERS: Final = 64
SAVE_EVERY_S: Final = 600.0
SAVED_FILE_BYTES: Final = 64 * KIB
NETWORKS: Final = 16
SOCKETS: Final = 16
"""Listening addresses of one node."""
SOCKET_MEMORY: Final = 1024
"""Addresses whose socket (the one they were last heard on) is remembered: replies go out at once,
and calls to those of both routing tables (640)."""

# --- LAN discovery (BEP 14 style) ---
LAN_GROUP: Final = "239.192.76.67"
LAN_PORT: Final = 7668
"""Not DEFAULT_PORT: every node of a machine shares this one."""
LAN_FIRST_S: Final = (0.0, 1.0, 4.0)
LAN_SOON_S: Final = 0.5
LAN_EVERY_S: Final = 300.0
LAN_ANSWER_S: Final = 0.2
LAN_PER_SOURCE_S: Final = 60.0
LAN_SOURCES: Final = 1024
LAN_TOPICS: Final = 16
"""Topics announced in one multicast datagram."""
