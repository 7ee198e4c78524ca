"""One node's progress as it tells everybody: fields, bytes, signature. Pure.

A record travels as ``[age, body, signature]``; the body is one canonical msgpack array::

    [1, public_key 32, sequence, name, state, reason, have, pieces, down, up, disk_free, version]

and the signature is Ed25519 over ``"p2pdist/1 census" || topic || body`` by that key. Ages, not
wall times: clocks differ (decision 26). Last writer wins: of two records of one node the one with
the higher sequence.

Job: make, check. It does NOT keep records (``gossip``). Threat: records come through anybody; one
that is not signed by its node is refused, as is every field out of range. In a public swarm anybody
may make nodes by the thousand, and that is visible only to who knows the names to expect.
Tests: ``test_census``.
"""

from __future__ import annotations

import enum
from typing import Any, Final, TypeVar

import msgpack
from attrs import field, frozen

from p2pdist import limits
from p2pdist.errors import MalformedMessage
from p2pdist.ids import NodeID, Topic
from p2pdist.keys import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    NodeKey,
    node_id_of,
    signature_ok,
)

FORMAT: Final = 1
CONTEXT: Final = b"p2pdist/1 census"
TAG_BYTES: Final = 8
"""Of a node id: names a record in digests."""


class NodeState(enum.IntEnum):
    """What a node does for the content."""

    STARTING = 0
    DOWNLOADING = 1
    CHECKING = 2
    SEEDING = 3
    PAUSED = 4
    FAILED = 5
    LEFT = 6


class Reason(enum.IntEnum):
    """What limits a node now. Codes not known here are legal and shown as :attr:`UNKNOWN`."""

    UNKNOWN = 0
    DONE = 1
    FINDING_PEERS = 2
    NO_PEER_HAS_PIECES = 3
    WAITING_FOR_SLOTS = 4
    REMOTE_UPLOAD = 5
    OWN_LIMIT = 6
    DISK = 7
    HASHING = 8
    DISK_FULL = 9
    PAUSED = 10
    FAILED = 11


E = TypeVar("E", bound=enum.IntEnum)


@frozen(kw_only=True)
class Report:
    """What a node says of itself.

    Attributes:
        name: host name or what ``--name`` says, at most ``limits.CENSUS_NAME_BYTES`` of UTF-8.
        state: what it does.
        reason: what limits it.
        have: verified pieces.
        pieces: of the content, 0 before the metadata is there.
        down: bytes per second it receives.
        up: bytes per second it sends.
        disk_free: bytes free where it writes, 0 if it does not say; a full disk has 1.
        version: of the software.
    """

    name: str
    state: NodeState = NodeState.STARTING
    reason: Reason = Reason.UNKNOWN
    have: int = 0
    pieces: int = 0
    down: int = 0
    up: int = 0
    disk_free: int = 0
    version: str = ""

    @property
    def complete(self) -> bool:
        """Whether it has everything under its final name, also if it left since then.

        All pieces verified is less: the last sync, the descriptor's sha256 or the final name may
        still be wanting, for good if they fail.
        """
        over = self.state is NodeState.SEEDING
        over = over or (self.state is NodeState.LEFT and self.reason is Reason.DONE)
        return over and 0 < self.pieces == self.have

    @property
    def under_way(self) -> bool:
        """Whether it is there and has yet to get something, and tries to."""
        over = {NodeState.FAILED, NodeState.PAUSED, NodeState.LEFT}
        return not self.complete and self.state not in over


@frozen
class Record:
    """A signed report.

    Attributes:
        node_id: whose.
        sequence: counts its reports.
        report: what it says.
        body: its bytes.
        signature: over them.
        tag: names it in digests.
    """

    node_id: NodeID
    sequence: int
    report: Report
    body: bytes
    signature: bytes
    tag: bytes = field(init=False)

    @tag.default
    def _tag(self) -> bytes:
        return self.node_id[:TAG_BYTES]

    @property
    def size(self) -> int:
        """Bytes on the wire, about."""
        return len(self.body) + len(self.signature) + 10


def sign(report: Report, sequence: int, key: NodeKey, topic: Topic) -> Record:
    """Return the signed record.

    Args:
        report: what to say; a longer name or version is cut.
        sequence: higher than any before, below ``2**32``.
        key: the node's.
        topic: of the content, so that no record counts elsewhere.
    """
    body: bytes = msgpack.packb(
        [
            FORMAT,
            key.public,
            sequence,
            _cut(report.name, limits.CENSUS_NAME_BYTES),
            int(report.state),
            int(report.reason),
            report.have,
            report.pieces,
            min(report.down, 2**40),
            min(report.up, 2**40),
            min(report.disk_free, 2**62),
            _cut(report.version, limits.CENSUS_VERSION_BYTES),
        ]
    )
    return Record(key.node_id, sequence, report, body, key.sign(CONTEXT, topic, body))


def check(body: Any, signature: Any, topic: Topic) -> Record:
    """Return the record these bytes are.

    Raises:
        MalformedMessage: a field is out of range, or the signature is not its node's.
    """
    if not isinstance(body, bytes) or len(body) > limits.CENSUS_RECORD_BYTES:
        raise MalformedMessage("census-record", f"at most {limits.CENSUS_RECORD_BYTES} bytes")
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise MalformedMessage("census-record", f"a signature has {SIGNATURE_BYTES} bytes")
    try:
        fields = msgpack.unpackb(
            body,
            use_list=True,
            max_array_len=16,
            max_bin_len=PUBLIC_KEY_BYTES,
            max_str_len=limits.CENSUS_RECORD_BYTES,
            max_map_len=0,
            max_ext_len=0,
        )
        record = _record(fields, body, signature)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise MalformedMessage("census-record", str(error) or "not a record") from error
    if not signature_ok(fields[1], signature, CONTEXT, topic, body):
        raise MalformedMessage("census-signature", "not signed by the node it speaks of")
    return record


def _record(fields: Any, body: bytes, signature: bytes) -> Record:
    if not isinstance(fields, list) or len(fields) < 12 or fields[0] != FORMAT:
        raise ValueError("not a record of this version")
    key = fields[1]
    if not isinstance(key, bytes) or len(key) != PUBLIC_KEY_BYTES:
        raise ValueError(f"a public key has {PUBLIC_KEY_BYTES} bytes")
    have, pieces = _number(fields[6], limits.PIECES_MAX), _number(fields[7], limits.PIECES_MAX)
    if have > pieces:
        raise ValueError("more pieces than there are")
    report = Report(
        name=_text(fields[3], limits.CENSUS_NAME_BYTES),
        state=NodeState(_number(fields[4], max(NodeState))),
        reason=_known(Reason, fields[5]),
        have=have,
        pieces=pieces,
        down=_number(fields[8], 2**40),
        up=_number(fields[9], 2**40),
        disk_free=_number(fields[10], 2**62),
        version=_text(fields[11], limits.CENSUS_VERSION_BYTES),
    )
    sequence = _number(fields[2], 2**32 - 1)
    return Record(node_id_of(key), sequence, report, body, signature)


def _known(kind: type[E], value: Any) -> E:
    number = _number(value, 255)
    return kind(number) if number in kind._value2member_map_ else kind(0)


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"expected a number up to {most}")
    return value


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str) or len(value.encode()) > most or not value.isprintable():
        raise ValueError(f"expected at most {most} bytes of printable text")
    return value


def _cut(text: str, most: int) -> str:
    """Return as much of ``text`` as fits, without what cannot be printed."""
    shown = "".join(c for c in text if c.isprintable())
    return shown.encode(errors="replace")[:most].decode(errors="ignore")
