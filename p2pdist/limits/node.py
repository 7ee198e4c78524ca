"""Bounds of one process and its disk: descriptors, contents, storage, terminal, control."""

from __future__ import annotations

from typing import Final

from p2pdist.limits.units import GIB, KIB, MIB, TIB

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
PIECES_WANTED: Final = 1024
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
RESUME_HASH_BYTES: Final = 4 * SYNC_BYTES
"""Hashed at a start to find pieces that were written and not yet recorded: a fifth of a second."""
SCRUB_BYTES_PER_S: Final = 4 * MIB
"""What is complete is read again so fast, all contents together: 0.2 % of a core, 340 GiB a day."""
SCRUB_BUSY_SHARE: Final = 0.1
"""Of that, while pieces move."""
SCRUB_FIRST_S: Final = 3600.0
"""A content is read again so long after it was opened ..."""
SCRUB_EVERY_S: Final = 7 * 86400.0
"""... and again so long after it was read."""
DISK_THREADS: Final = 4
FREE_SPACE_EVERY_S: Final = 30.0
"""How often the fleet's record of free disk space is looked at, at most."""
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

# --- service ---
FILES_WANTED: Final = 4096
"""Files and sockets a process asks to have open: 200 connections, and 64 files for each content."""
STOP_S: Final = 10.0
"""A clean stop that takes longer is cut short."""
PROGRESS_EVERY_S: Final = 1.0
RATE_WINDOW_S: Final = 5.0
QUIET_S: Final = 10.0
"""A session logs what it waits for once it has waited so long, and not oftener than that."""
LOG_PER_KIND: Final = 10
"""Lines a minute for one kind of remote trouble; the rest is counted."""

# --- a process of its machine ---
KEPT_LIMITS: Final = 1024
"""Contents whose rate limits, set at run time, outlive the process: as many as one serves."""
KEPT_LIMITS_BYTES: Final = 256 * KIB
"""Of their file: each has at most 200 bytes."""
ADDED_BYTES: Final = 512 * KIB
"""Of one record in ``added/``: descriptor, signature and two paths, each byte written as six."""
CONFIG_BYTES: Final = 64 * KIB
"""Of the file of --config."""
WATCH_EVERY_S: Final = 2.0
"""How often a folder of descriptors is looked at; a file is taken at the second look."""
WATCH_FILES: Final = 1024
"""Descriptors followed in one folder: as many as one process serves."""
HOOKS: Final = 4
"""Commands of --on-complete at a time; the others wait."""
HOOK_S: Final = 3600.0
"""A command that takes longer is ended ..."""
HOOK_KILL_S: Final = 10.0
"""... and killed, if it is still there so long after."""
HOOK_OUTPUT_BYTES: Final = 4 * KIB
"""Of its output, the end, that is kept for the log."""
HOOKED: Final = 4096
"""Contents remembered for which it was run."""
RATIO_MAX: Final = 1e6
"""Of --exit-when seeded:RATIO."""
PUSH_HOSTS: Final = 256
"""Machines of one push: each has an ssh of its own."""
PUSH_END_S: Final = 20.0
"""A machine's ssh is killed, if it is still there so long after it was told to end."""
STATUS_EVERY_S: Final = 2.0
"""How often the service manager is told how it goes, at most."""
STATUS_FLEETS: Final = 16
"""Contents whose fleets that line looks at."""
FLEET_DONE_S: Final = 10.0
"""A node stays so long when its fleet is done, so that word of it reaches everybody."""
FLEET_LOST_S: Final = 300.0
"""And so long for those lost, failed or paused that may come again, when all others are done."""

# --- terminal ---
OWN_ADDRESSES_TOLD: Final = 3
"""Of this machine, in the command for receivers."""
PRINTED_CHARACTERS: Final = 200
"""Of a name or address from outside on a line for people; the middle is cut out."""
PROGRESS_LINE_S: Final = 5.0
"""Between plain progress lines when there is no terminal."""

# --- control ---
CONTROL_LINE_BYTES: Final = 64 * KIB
"""One request of a command to a running node."""
CONTROL_CLIENTS: Final = 32
"""Commands connected to it at a time."""

# --- page (the rules of docs/page.md) ---
WEB_CONNECTIONS: Final = 16
"""At a time. A browser opens 6; more are refused."""
WEB_READERS: Final = 8
"""Open pages: each is one stream of events."""
WEB_BACKLOG_BYTES: Final = 1 * MIB
"""Events that wait for a reader; one that lags further is dropped and may come again."""
WEB_BODY_BYTES: Final = 64 * KIB
WEB_IDLE_S: Final = 10.0
"""A connection that sends nothing is closed; streams are not."""
WEB_KEY_FAILURES: Final = 10
"""Wrong keys in a minute before each further answer takes WEB_KEY_DELAY_S."""
WEB_KEY_DELAY_S: Final = 1.0
WEB_EVERY_S: Final = 1.0
"""Between updates of a page ..."""
WEB_SHARE: Final = 0.05
"""... or longer, so that making them takes at most this share of the time."""
WEB_SAMPLE_S: Final = 5.0
"""Between points of the rates over time, while no page looks."""
WEB_SAMPLES: Final = 720
WEB_LOG_LINES: Final = 500
WEB_LOG_CHARACTERS: Final = 400
"""Of one line."""
WEB_METRIC_CONTENTS: Final = 64
"""Contents with metrics of their own; those of the others are added up."""
