"""Bounds of what goes over TCP: frames, connections, peers, pieces on their way, the census."""

from __future__ import annotations

from typing import Final

from p2pdist.limits.overlay import FIRST_CONTACT_TRIES, PING_BYTES
from p2pdist.limits.units import KIB, MIB

# --- TCP framing (BEP 3 style lengths) ---
BLOCK_BYTES: Final = 256 * KIB
"""Framing unit of a piece; a piece itself is granted, verified and blamed whole (decision 18)."""
CONTROL_FRAME_BYTES: Final = 64 * KIB + 64
"""A bitfield of PIECES_MAX bits and its header."""
HAVE_BATCH: Final = 1024
"""Indices in one have frame."""
HAVE_TOGETHER: Final = 8
"""Pieces that are told together. On lines of 1 Gbit/s 8 leechers need 0.93 of the time for 256 MiB
that they need when only HAVE_EVERY_S counts, and 0.6 for 32 MiB (`benchmarks/strategy.py`)."""
HAVE_EVERY_S: Final = 0.4
"""The first have goes out at once, fewer than HAVE_TOGETHER behind it so much later; a grant tells
of its piece sooner. With 0.05 a leecher of `benchmarks/swarm.py --scenario 8x16` spent 13 % more
CPU than with 0.2; with 0.4 the last of 8 leechers is done 1 % sooner than with 0.2
(`benchmarks/strategy.py`)."""
HANDSHAKE_FRAME_BYTES: Final = 256
"""Largest frame of a peer that has proved nothing yet; a hello takes 96."""
BLOCK_MIN_BYTES: Final = 4 * KIB
BLOCK_S: Final = 0.02
"""On a slow link blocks shrink to what takes so long, because control frames wait for one."""

# --- connections ---
CONNECTIONS: Final = 200
CONNECTIONS_LEAST: Final = 8
"""Even where a process may have hardly any files open ..."""
FILES_KEPT: Final = 96
"""... of which so many are for contents, ports, name look-ups and the control socket."""
CONNECTIONS_PER_HOST: Final = 8
"""Per global host; loopback and private hosts are counted by ip and port (decision 15)."""
HOST_IDLE_S: Final = 2.0
"""A connection that was of no use for so long gives its place to another content of its host: two
nodes may have a thousand contents in common (`benchmarks/large.py`)."""
CONNECTIONS_UNPROVED: Final = 20
CONNECTIONS_UNPROVED_PER_NET: Final = CONNECTIONS_PER_HOST
"""Of these of one global /24 or /48: many hosts of one owner gain nothing over one."""
RATE_ACCEPTS: Final = (1000.0, 200.0)
"""Callers accepted per second and at once, each port: 60 us each, so 6 % of a core. The others wait
in the kernel."""
ACCEPT_PAUSE_S: Final = 0.02
"""Nobody is accepted for so long when they were too many."""
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

# --- TLS of private swarms (decision 39) ---
CLIENT_HELLO_BYTES: Final = 4 * KIB
"""TLS record a caller may begin with; OpenSSL's has 1.6 KiB with a post-quantum key share."""
TLS_HANDSHAKE_BYTES: Final = 16 * KIB
"""Taken from one side before its part of the TLS handshake is over; it needs 1.5 KiB."""
TLS_RECORD_BYTES: Final = 16 * KIB
"""Of plain text in one record (RFC 8446, 5.1)."""
KNOCKS: Final = 4096
"""Knocks remembered, so that a recorded one gets no second answer."""
RATE_TLS_HANDSHAKES: Final = (50.0, 150.0)
"""Handshakes begun for callers, per second and at once: about 3 ms each, so 15 % of a core. Only
who has the secret gets so far."""
RATE_TLS_OF_HOST: Final = (2.0, 16.0)
"""Of one global host; an honest one needs one for each content we share, and its retries."""

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
PEX_SOON_S: Final = 0.15
"""A new peer is told of others, and they of it, so soon: who comes in the same moment is in it."""
PEX_EVERY_S: Final = (1.0, 60.0)
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
UPLOAD_SLOTS_MOST: Final = 16
"""... but one more at each look where the way is long and shows no queue (``roundtrips``)."""
UPLINK_SPAN_S: Final = 0.1
"""The uplink's rate and its connections' round trips are looked at so often."""
LONG_WAY_S: Final = 0.01
"""Round trip from which a few connections may not fill a line."""
QUEUE_SHARE: Final = 0.25
"""A smoothed round trip so much beyond the shortest, as a share of it, shows a queue."""
IN_USE_S: Final = 0.3
"""A connection counts as in use so long after bytes of a piece."""
GRANTS_AHEAD: Final = 1
"""Pieces negotiated while the current one is on the wire ..."""
GRANTS_AHEAD_MAX: Final = 5
"""... and at most so many, beyond those that pass while a grant and its answer are under way."""
POOREST_OF: Final = 3
"""Eligible peers sampled; the one that holds least is served."""
ASSEMBLY_BYTES: Final = 32 * MIB
"""Pieces in assembly in one process."""
PIECES_IN_FLIGHT: Final = 8
"""Places of one receiver, beyond what passes during the shortest delay. A piece of a slow peer
takes a part of one. Fewer spread a swarm of equals better, more cover gaps and refuse fewer grants;
never fewer than UPLOAD_SLOTS, where the swarm collapses. On 10 Mbit/s links (benchmarks/swarm.py,
8x16) 6 and 8 take the same time and 12 takes 4 % more; with 8 a node takes less CPU than with 6."""
READY_S: Final = 0.1
"""Who was told that we are ready has a place kept for so long. In `benchmarks/strategy.py` with 32
leechers this saves a quarter of all control frames against telling everybody, and 1 % of time."""
PIECES_IN_FLIGHT_MOST: Final = 16
"""Places on long ways without a queue, as UPLOAD_SLOTS_MOST."""
PROMISES_MAX: Final = 256
"""Pieces promised to one receiver, whatever their peers' speed."""
DOUBTED_PIECES: Final = 8
"""Pieces sent last to a peer that are read again if it bans us; a liar must have got them first."""
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
CENSUS_ALIVE_S: Final = 15.0
"""The same of a node that is on its way, while few are: one that crashed is to be seen soon."""
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
