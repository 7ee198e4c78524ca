"""Every bound and timeout, with unit, reason and source.

Nothing in p2pdist grows without a name here. Units stand in the name (``_S`` seconds, ``_BYTES``)
or in the comment. Sources: BEPs, RFCs, papers, or the table in ``docs/protocol.md`` that the
simulations and measurements behind the design gave. Each name is reached by a test
(``test_tidy`` looks for it).
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB

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
ENVELOPE_CIPHERS: Final = 256
"""Senders whose cipher is kept: 2.5 KiB of OpenSSL's to save the 3 us it takes to make."""
ENVELOPE_SENDERS: Final = 1024
"""Senders whose datagrams are remembered, in private networks: more than both routing tables hold,
and what is replayed of an older one is a request done twice, which handlers bear (decision 6)."""
COUNTER_MAX: Final = 1 << 16
"""Datagrams under one boot_id; then a new boot_id. So few that a receiver in a private network can
remember each one it took: a bit each, 8 KiB a sender (decision 6)."""
CLOCK_JUMP_S: Final = 5.0
"""A clock that jumps further may mean a restored snapshot: take a new boot_id."""

# --- tokens and cookies (decision 5) ---
TOKEN_BYTES: Final = 8
COOKIE_BYTES: Final = 12
TOKEN_EPOCH_S: Final = 300.0
"""Secret turns over; this and the previous epoch are accepted (BEP 5)."""
TOKEN_REFRESH_S: Final = 240.0
"""Ping a contact again before our token for it expires."""

# --- RPC ---
RTO_MIN_S: Final = 0.03
"""A first hop's silence is noticed so soon at best: 50 ms cost lookups on a bad network 5 %."""
RTO_MAX_S: Final = 3.0
RTO_STRANGER_S: Final = 0.5
"""First timeout towards an address never measured; RFC 6298's 1 s is slow for one datagram."""
RTO_VARIANCE_FLOOR_S: Final = 0.02
RTO_JITTER: Final = 0.2
"""Back-off times are spread by +-20 %."""
TRIES: Final = 3
CALLS_OUTSTANDING: Final = 1024
CALLS_PER_ADDRESS: Final = 8
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
"""Nodes closest to the topic that are told of us. With 16, a lookup among 10,000 takes 5 % longer
and 0.8 packets more (``docs/overlay.md``)."""

# --- lookup ---
WALKS: Final = 2
LOSSES_ROUGH: Final = 3
"""Lost first hops of one lookup from which on two walks replace each: with 20 % loss and 30 % dead
entries p99 goes from 575 to 380 ms, while with 5 % and 10 % it hardly ever happens."""
HEDGE_RTTS: Final = (1.3, 2.6)
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
LOOKUPS: Final = 4
"""At once; fewer than CALLS_PER_ADDRESS, for all of them may begin at one neighbour."""
LOOKUP_CANDIDATES: Final = 16
"""Peers whose addresses one lookup pings; walks stop there."""
LOOKUP_FINDERS: Final = 4
"""Finders from whom the longer list is pulled."""
WALK_HOP_COST: Final = 0.25
"""Of the typical round trip, for the hop a walk must still take after one that stores nothing."""
WALK_BIT_COST: Final = 0.065
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
is doubted. With 25 % black holes a walk through an honest one fails one time in three."""
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

# --- descriptor (decisions 18 and 23) ---
DESCRIPTOR_BYTES: Final = 64 * KIB
DESCRIPTOR_NODES: Final = 64
DESCRIPTOR_WORD: Final = 64
"""Characters of a number or key; tomllib has its trouble with numbers of 5000 digits."""
SECRETS: Final = 8
"""Of one descriptor or secret file: the present one, and those it replaces."""
SECRET_FILE_BYTES: Final = 4 * KIB
NAME_BYTES: Final = 255
PATH_BYTES: Final = 4096
PATH_DEPTH: Final = 64

# --- signatures of descriptors ---
SIGNATURE_BYTES: Final = 8 * KIB
"""Of a .sig file. The largest, of an RSA key of 16384 bits, has 5.7 KiB."""
SIGNING_KEY_BYTES: Final = 64 * KIB
"""Of a private key's file."""
SIGNERS_BYTES: Final = 1 * MIB
"""Of an allowed-signers file, or of a list of revoked keys."""
SIGNERS: Final = 4096
"""Lines in it that hold a key."""
SIGNER_LINE_BYTES: Final = 8 * KIB
SIGNER_RSA_BITS_MIN: Final = 2048
SIGNER_RSA_BITS_MAX: Final = 16384
"""OpenSSL's own bound."""

# --- content ---
PIECE_LENGTH_MIN: Final = 64 * KIB
PIECE_LENGTH_MAX: Final = 16 * MIB
PIECES_MAX: Final = 1 << 19
LENGTH_MAX: Final = 8 * TIB
PIECES_WANTED: Final = 2048
"""Default piece length: the smallest with at most this many pieces ..."""
PIECE_LENGTH_USUAL: Final = 4 * MIB
"""... but not longer than this up to PIECE_LENGTH_USUAL_TO."""
PIECE_LENGTH_USUAL_TO: Final = 512 * GIB
METADATA_BYTES: Final = 32 * MIB
FILES_MAX: Final = 250_000
COMPONENTS_MAX: Final = 2_000_000
"""Path components of all files together: each is checked, which takes time."""
NAME_CACHE: Final = 8192
"""Checked file names kept; an lru_cache, so many names only cost checking again."""
ZERO_HASHES: Final = 64
"""Hashes of zeros kept: one per piece length, and one per odd last piece."""
HASH_READ_BYTES: Final = 1 * MIB
"""Read and hashed at once by each thread; stays in the core's cache."""

# --- storage ---
SYNC_BYTES: Final = 64 * MIB
SYNC_EVERY_S: Final = 5.0
"""Data is synced, then its bits: so much work at most is done again after a crash."""
DISK_THREADS: Final = 4
DISK_RETRY_S: Final = 30.0
"""A full disk is tried again this often."""
OPEN_FILES: Final = 64
"""File handles one store keeps open."""
STATE_ALIGN_BYTES: Final = 4096
"""A state file's slots start at multiples of this, so that a torn write hurts one of them only."""
PART_NAME_BYTES: Final = 180
"""Bytes of the name inside a part's name: with HASH8 and suffix it stays below NAME_BYTES."""
RECORD_BYTES: Final = METADATA_BYTES + 40 * FILES_MAX + 64 * KIB
"""Largest record of a complete content: its metadata, 40 bytes per file and two paths."""

# --- TCP framing (BEP 3 style lengths) ---
BLOCK_BYTES: Final = 256 * KIB
"""Framing unit of a piece; a piece itself is granted, verified and blamed whole (decision 18)."""
CONTROL_FRAME_BYTES: Final = 64 * KIB + 64
"""A bitfield of PIECES_MAX bits and its header."""
HAVE_BATCH: Final = 1024
"""Indices in one have frame."""
HAVE_EVERY_S: Final = 0.05
"""The first have goes out at once, those of the next so many seconds together."""
HANDSHAKE_FRAME_BYTES: Final = 256
"""Largest frame of a peer that has proved nothing yet; a hello takes 96."""
BLOCK_MIN_BYTES: Final = 4 * KIB
BLOCK_S: Final = 0.02
"""On a slow link blocks shrink to what takes so long, because control frames wait for one."""

# --- connections ---
CONNECTIONS: Final = 200
CONNECTIONS_PER_HOST: Final = 8
"""Per global host; loopback and private hosts are counted by ip and port (decision 15)."""
CONNECTIONS_UNPROVED: Final = 20
HANDSHAKE_S: Final = 10.0
IDLE_S: Final = 120.0
KEEPALIVE_S: Final = 45.0
CONNECT_S: Final = 5.0
DIAL_RETRY_S: Final = (2.0, 60.0)
DIAL_WAIT_S: Final = 3.0
"""The joined side dials too when the joiner's connection has not come by then."""
DIALS: Final = 16
"""Connections one transfer is dialling at the same time."""
CLOSE_S: Final = 2.0
"""A polite close is cut short after that."""
TICK_S: Final = 1.0
"""Deadlines of a transfer are looked at so often ..."""
REST_TICK_S: Final = 10.0
REST_AFTER_S: Final = 30.0
"""... and so seldom, so long after the last event, when nobody is connected or to be called."""
SEND_BUFFER_BYTES: Final = 1 * MIB
"""Bytes of one piece read ahead of the socket."""
NOTSENT_BYTES: Final = (4 * KIB, 128 * KIB)
"""TCP_NOTSENT_LOWAT, by the size of blocks: what waits in the kernel cannot be overtaken by a
control frame."""
READ_BYTES: Final = 64 * KIB
"""Read from one connection at once (Twisted's own bound); less where a rate limit has less room."""
READ_BEYOND_BYTES: Final = 4 * KIB
"""Read at once behind the end of a block: the next header, and some control frames."""
RATE_LIMIT_MIN: Final = 16 * KIB
"""Bytes per second, the lowest limit: ten times what PIECE_PROGRESS_S and PIECE_PROGRESS_BYTES ask
of one connection, so that a few can share it and none takes another for stalled."""
QUANTUM_BYTES: Final = (4 * KIB, 1 * MIB)
"""Least and most bytes of one turn under a rate limit; in between, what takes BLOCK_S."""
BURST_S: Final = 0.2
"""What a rate limit may save up, in seconds of its rate: 2 % of what goes in 10 s, and enough to
make good what a late timer missed."""
ASKED_S: Final = 5.0
"""Under a download limit no more is asked for than comes in so long, but for one piece: then each
sender is read fast enough to see progress within PIECE_PROGRESS_S."""
TURNS_S: Final = 0.005
"""No more often than that turns are given under a rate limit; each time, all that are due."""
BAN_S: Final = 600.0
BANS: Final = 4096
CORRUPT_PIECES_MAX: Final = 2
"""Bad pieces from one node: the first closes and bans for BAN_S, the second until restart."""

# --- the circle: whom one content is exchanged with (decision 32) ---
CIRCLE_WANTED: Final = 16
CIRCLE_MOST: Final = 32
"""Peers we call for, and peers at most, each content."""
CIRCLE_OWN: Final = 8
"""Of these for peers we called: strangers must not be all we are connected to."""
CIRCLE_SPARE: Final = 8
"""Peers known beyond CIRCLE_WANTED, for the places that become free."""
CIRCLE_SWAP_S: Final = 5.0
"""A full circle makes room for one caller in so long."""
CIRCLE_USELESS_S: Final = 120.0
CIRCLE_REPLACE_S: Final = 30.0

DONE_PEERS: Final = 4
"""Connections between complete nodes that stay, for the census."""
DONE_LINGER_S: Final = 20.0
"""The others stay so long, for the last news."""

# --- peer exchange (BEP 11, decision 33) ---
PEX_PEERS: Final = 50
"""Peers one frame adds at most, and as many that left."""
PEX_EVERY_S: Final = (2.0, 60.0)
"""First pause between two frames to one peer, doubling, and the longest."""
RATE_PEX: Final = (0.04, 8.0)
"""Frames taken from one peer, per second and at once: what PEX_EVERY_S needs, and some."""
PEX_KEPT: Final = 64
PEX_TELLERS: Final = 64
"""Addresses remembered of what one peer told, and such peers, the last met."""
PEX_VAIN: Final = 8
"""Tries of what one peer told that brought nobody; then it is believed no more."""
PEX_FREE: Final = 2
"""Such tries before it has paid for any: its connection cost it as many bytes."""
PEX_TRY_BYTES: Final = FIRST_CONTACT_TRIES * PING_BYTES
PEX_TRY_S: Final = 10.0
"""What a try in vain costs us, and so its teller; when it is one."""

# --- uploading and picking (uploader-scheduled swarm) ---
UPLOAD_SLOTS: Final = 3
"""Pieces on the wire side by side, to begin with ..."""
UPLOAD_SLOTS_RANGE: Final = (2, 4)
"""... and how far that adapts: one TCP flow does not fill an uplink, many only share it."""
UPLINK_SPAN_S: Final = 0.1
"""The uplink's rate is looked at so often."""
GRANTS_AHEAD: Final = 1
"""Pieces negotiated while the current one is on the wire ..."""
GRANTS_AHEAD_MAX: Final = 5
"""... and at most so many, beyond those that pass while a grant and its answer are under way."""
POOREST_OF: Final = 3
"""Eligible peers sampled; the one that holds least is served."""
ASSEMBLY_BYTES: Final = 32 * MIB
"""Pieces in assembly in one process."""
PIECES_IN_FLIGHT: Final = 6
"""Places of one receiver, beyond what passes during the shortest delay. A piece of a slow peer
takes a part of one. Fewer spread a swarm of equals better, more cover gaps; never fewer than
UPLOAD_SLOTS, where the swarm collapses."""
PROMISES_MAX: Final = 256
"""Pieces promised to one receiver, whatever their peers' speed."""
REQUESTS_MAX: Final = 32
"""Pieces asked for on one connection and not settled."""
PIECE_PROGRESS_S: Final = 10.0
"""Without a byte of a promised piece for so long it is given to somebody else."""
PIECE_PROGRESS_BYTES: Final = 16 * KIB
"""What counts as progress: less in PIECE_PROGRESS_S is a stall, so that drips gain nothing."""
ENDGAME_COPIES: Final = 2
ENDGAME_FACTOR: Final = 2.0
"""With nothing else to fetch, a piece that took so many usual times is fetched twice."""
SLOW_FACTOR: Final = 10.0
"""A piece that took so many usual times loses its place to others that wait for one."""
SLOW_S: Final = 30.0
"""The same before any piece has come and shown what is usual; doubled at every theft."""
STRIKES: Final = 3
"""Pieces refused or stalled in a row, without one delivered, until a peer is let go."""
AHEAD_S: Final = 1.0
"""The next piece is negotiated when the current one ends this soon: decisions stay late."""
DRAIN_S: Final = 0.05
"""Sent pieces that arrive this soon, or within twice the shortest time, were in no queue."""
GRANT_ANSWER_S: Final = 5.0
"""A grant unanswered for so long holds no slot any more; a late answer still counts."""
METADATA_PROGRESS_S: Final = 10.0
DESCRIPTORS: Final = 1024
"""Transfers in one process."""
STATE_DIR_MODE: Final = 0o700

# --- service ---
STOP_S: Final = 10.0
"""A clean stop that takes longer is cut short."""
PROGRESS_EVERY_S: Final = 1.0
RATE_WINDOW_S: Final = 5.0
QUIET_S: Final = 10.0
"""A session logs what it waits for once it has waited so long, and not oftener than that."""
LOG_PER_KIND: Final = 10
"""Lines a minute for one kind of remote trouble; the rest is counted."""

# --- terminal ---
PRINTED_CHARACTERS: Final = 200
"""Of a name or address from outside on a line for people; the middle is cut out."""
PROGRESS_LINE_S: Final = 5.0
"""Between plain progress lines when there is no terminal."""

# --- control ---
CONTROL_LINE_BYTES: Final = 64 * KIB
"""One request of a command to a running node."""
CONTROL_CLIENTS: Final = 32
"""Commands connected to it at a time."""

# --- census ---
CENSUS_NAME_BYTES: Final = 64
CENSUS_VERSION_BYTES: Final = 24
CENSUS_RECORD_BYTES: Final = 256
"""The signed part of one node's record."""
CENSUS_RECORDS: Final = 5000
"""Nodes of one swarm that are counted; about 1 KiB each."""
CENSUS_FANOUT: Final = 4
"""Neighbours told of each new record, twice as many of a complete node's; the summaries find the
one in fifty that misses it."""
CENSUS_DIGEST: Final = 256
"""Records named in one frame."""
CENSUS_FRAME_BYTES: Final = 16 * 1024
"""Of records in one frame."""
CENSUS_OVERHEAD_BYTES: Final = 60
"""Of frame, TCP and IP headers, counted with every frame."""
CENSUS_TICK_S: Final = 0.25
CENSUS_SUMMARY_S: Final = (1.0, 30.0)
"""Between two summaries, from the last news on: the first, a third more each, and the longest."""
CENSUS_ASK_AGAIN_S: Final = 1.0
CENSUS_REPORT_S: Final = 2.0
"""How often progress is told in a small fleet, ..."""
CENSUS_REPORT_S_PER_NODE: Final = 0.25
"""... and how much more rarely for each node that makes any."""
CENSUS_REFRESH_S: Final = 60.0
"""How often a node says that it is still there, in a small fleet."""
CENSUS_SILENT_ROUNDS: Final = 3
"""Refreshes without a word after which a node counts as silent, ..."""
CENSUS_FORGET_ROUNDS: Final = 30
"""... and after which it is forgotten."""
RATE_CENSUS: Final = (3_500.0, 800_000.0)
"""Bytes a second one node sends in the long run, and in all when everybody finishes at once."""
RATE_CENSUS_BURST: Final = (45_000.0, 15_000.0)
"""Bytes of any one second."""
RATE_CENSUS_CHECKS: Final = (100.0, 600.0)
"""Signatures checked for one neighbour: 120 us each."""
