"""The TCP protocol between two peers: bytes in, messages out, and back. Sans-I/O.

A connection is one preface each way and then frames. Big-endian throughout::

    preface   50 32 50 44 49 53 54 01          "P2PDIST", version 1
    frame     length u32 | type u8 | body      length counts type and body

Type space: 0x01-0x0f handshake, 0x10-0x1f pieces, 0x20-0x7f free, 0x80-0xff optional. A peer that
does not know a type of 0x80 and above skips the frame; any other unknown type closes.
Control bodies are one msgpack array; the two data frames are raw.

    ====  ================  ============================================  =======================
    type  name              body                                          who, when
    ====  ================  ============================================  =======================
    0x01  hello             [topic 20, nonce 32, public key 32]           dialler, first
    0x02  hello_reply       [nonce 32, public key 32, signature 64]       acceptor, answer
    0x03  proof             [signature 64]                                dialler, answer
    0x04  bye               [reason]                                      last, at any time
    0x05  keepalive         []                                            after KEEPALIVE_S idle
    0x06  binding           [mac 32]                                      private: dialler, first,
                                                                          and the answer
    0x10  bitfield          [bits]                                        once, as soon as the
                                                                          sender has the metadata
    0x11  have              [indices, u32 each]                           after bitfield
    0x12  metadata_request  []                                            to who sent bitfield
    0x13  metadata          raw: total u32, offset u32, data              the answer, in order
    0x14  interest          [wanted]                                      "you have what I lack"
    0x15  grant             [index]                                       uploader: "this one?"
    0x16  request           [index]                                       yes, this or another
    0x17  decline           [reason]                                      no: nothing, or busy
    0x18  ready             []                                            the decline is over
    0x19  piece             raw: index u32, offset u32, data              the answer, in order
    0x1a  received          [index]                                       all bytes are here
    0x1b  cancel            [index]                                       not wanted any more
    0x1c  reject            [index, reason]                               the rest will not come
    0x80  peers             [room, added4, added6, left4, left6]; of 6    at any time, PEX_EVERY_S
                            or 18 bytes each, and one of flags if added
    0x90  digest            [tag 8 and sequence 4, of each record]        of what is new here
    0x91  want              [tag 8, of each record]                       of what is newer there
    0x92  records           [[age, body, signature 64], ...]              the answer
    0x93  summary           [64 hashes of 4 bytes]                        while nothing is new
    ====  ================  ============================================  =======================

Every grant is answered by exactly one request or decline, every request by all bytes of the piece,
which one received confirms, or by one reject, which says that no byte is on its way any more. So
a cancel is answered by a reject, unless all bytes are out already.

Does NOT decide when a message may come, beyond handshake before everything else.
Threat: anybody may send any bytes, one at a time or for ever. A control frame is collected by the
bytes that came, never by its declared length; data frames are not collected at all but handed on
part by part. Tests: ``test_peerwire``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgpack
from attrs import fields

from p2pdist import limits
from p2pdist.addresses import Address, pack, unpack, unpack_list
from p2pdist.census import wire as census
from p2pdist.census.gossip import Digest, Records, Summary, Want
from p2pdist.errors import (
    LocalProtocolError,
    MalformedMessage,
    OversizedMessage,
    RemoteProtocolError,
    UnexpectedMessage,
)
from p2pdist.ids import ID_BYTES, PieceIndex
from p2pdist.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from p2pdist.swarm.messages import (
    Binding,
    Bitfield,
    Block,
    Bye,
    ByeReason,
    Cancel,
    Decline,
    DeclineReason,
    Grant,
    Have,
    Hello,
    HelloReply,
    Interest,
    KeepAlive,
    Message,
    MetadataPart,
    MetadataRequest,
    PeerFlag,
    PeerNote,
    Peers,
    Proof,
    Ready,
    Received,
    Reject,
    RejectReason,
    Request,
)

PREFACE: Final = b"P2PDIST\x01"
NONCE_BYTES: Final = 32
MAC_BYTES: Final = 32
OPTIONAL: Final = 0x80
"""A type with this bit is skipped by who does not know it."""
_HEADER: Final = struct.Struct(">IB")
_RAW: Final = struct.Struct(">II")
_RAW_FRAME: Final = struct.Struct(">IBII")


Check = Callable[[Any], Any]
"""Turns a msgpack value into a field, or raises ValueError."""


def _octets(size: int) -> Check:
    def check(value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) != size:
            raise ValueError(f"expected {size} bytes")
        return value

    return check


def _bits(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) > limits.PIECES_MAX // 8:
        raise ValueError("expected the bits of a bitfield")
    return value


def _number(end: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value < end:
            raise ValueError(f"expected a number below {end}")
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004 -- one kind for all checks
    return value


def _packed_indices(value: Any) -> tuple[PieceIndex, ...]:
    if not isinstance(value, bytes) or not 0 < len(value) <= 4 * limits.HAVE_BATCH:
        raise ValueError(f"expected 1 to {limits.HAVE_BATCH} indices")
    count, rest = divmod(len(value), 4)
    if rest:
        raise ValueError("cut index")
    unpacked = struct.unpack(f">{count}I", value)
    if max(unpacked) >= limits.PIECES_MAX:
        raise ValueError("index out of range")
    return tuple(map(PieceIndex, unpacked))


def _packed_addresses(size: int) -> Check:
    def check(value: Any) -> tuple[Address, ...]:
        if not isinstance(value, bytes) or len(value) > size * limits.PEX_PEERS:
            raise ValueError(f"expected up to {limits.PEX_PEERS} addresses of {size} bytes")
        return unpack_list(value, size)

    return check


def _packed_notes(size: int) -> Check:
    """Each is a packed address and one byte of flags."""

    def check(value: Any) -> tuple[PeerNote, ...]:
        if not isinstance(value, bytes) or len(value) > (size + 1) * limits.PEX_PEERS:
            raise ValueError(f"expected up to {limits.PEX_PEERS} notes of {size + 1} bytes")
        starts = range(0, len(value), size + 1)
        parts = [value[start : start + size + 1] for start in starts]
        if parts and len(parts[-1]) <= size:
            raise ValueError("cut note")
        return tuple(PeerNote(unpack(part[:-1]), PeerFlag(part[-1] & 1)) for part in parts)

    return check


def _pack_peers(peers: Peers) -> tuple[Any, ...]:
    added = (
        b"".join(pack(note.address) + bytes([note.flags]) for note in notes)
        for notes in (peers.added4, peers.added6)
    )
    left = (b"".join(map(pack, addresses)) for addresses in (peers.left4, peers.left6))
    return (peers.room, *added, *left)


_index = _number(limits.PIECES_MAX)
_CONTROL: Final[Mapping[int, tuple[type[Any], tuple[Check, ...]]]] = {
    0x01: (Hello, (_octets(ID_BYTES), _octets(NONCE_BYTES), _octets(PUBLIC_KEY_BYTES))),
    0x02: (
        HelloReply,
        (_octets(NONCE_BYTES), _octets(PUBLIC_KEY_BYTES), _octets(SIGNATURE_BYTES)),
    ),
    0x03: (Proof, (_octets(SIGNATURE_BYTES),)),
    0x04: (Bye, (_number(256),)),
    0x05: (KeepAlive, ()),
    0x06: (Binding, (_octets(MAC_BYTES),)),
    0x10: (Bitfield, (_bits,)),
    0x11: (Have, (_packed_indices,)),
    0x12: (MetadataRequest, ()),
    0x14: (Interest, (_flag,)),
    0x15: (Grant, (_index,)),
    0x16: (Request, (_index,)),
    0x17: (Decline, (DeclineReason,)),
    0x18: (Ready, ()),
    0x1A: (Received, (_index,)),
    0x1B: (Cancel, (_index,)),
    0x1C: (Reject, (_index, RejectReason)),
    0x80: (
        Peers,
        (_flag, _packed_notes(6), _packed_notes(18), _packed_addresses(6), _packed_addresses(18)),
    ),
    **census.FRAMES,
}
_CODES: Final[Mapping[type[Any], int]] = {kind: code for code, (kind, _) in _CONTROL.items()}


def _fields(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what gives the values of a message, without attrs' looking them up each time."""
    names = [attribute.name for attribute in fields(kind)]
    return lambda message: tuple([getattr(message, name) for name in names])


def _pack_have(have: Have) -> tuple[bytes]:
    return (struct.pack(f">{len(have.indices)}I", *have.indices),)


_VALUES: Final[Mapping[type[Any], Callable[[Any], tuple[Any, ...]]]] = {
    **{kind: _fields(kind) for kind in _CODES},
    Have: _pack_have,
    Peers: _pack_peers,
    **dict.fromkeys((Digest, Want, Records, Summary), census.pack),
}
"""What stands in the body of a message's frame."""
_METADATA: Final = 0x13
_PIECE: Final = 0x19
_RAW_CODES: Final = (_METADATA, _PIECE)
_UNPROVED: Final = (0x01, 0x02, 0x03, 0x04, 0x06)
"""What may come before the handshake is over."""
_PROVED_ONCE: Final = (0x01, 0x02, 0x03, 0x06)
"""What may not come after it."""


def encode(message: Message) -> bytes:
    """Return the frame of a message.

    Raises:
        LocalProtocolError: the message breaks a bound; a bug of ours.
    """
    if isinstance(message, Block):
        size = len(message.data)
        return block_header(message.index, message.offset, size) + bytes(message.data)
    if isinstance(message, MetadataPart):
        size = len(message.data)
        return metadata_header(message.total, message.offset, size) + bytes(message.data)
    body: bytes = msgpack.packb(_VALUES[type(message)](message))
    if _HEADER.size + len(body) > limits.CONTROL_FRAME_BYTES:
        raise LocalProtocolError(f"{type(message).__name__} of {len(body)} bytes")
    return _HEADER.pack(1 + len(body), _CODES[type(message)]) + body


def block_header(index: int, offset: int, size: int) -> bytes:
    """Return what stands before ``size`` bytes of a piece (13 bytes)."""
    return _raw_header(_PIECE, index, offset, size)


def metadata_header(total: int, offset: int, size: int) -> bytes:
    """Return what stands before ``size`` bytes of metadata (13 bytes)."""
    return _raw_header(_METADATA, total, offset, size)


def _raw_header(code: int, first: int, offset: int, size: int) -> bytes:
    if not 0 < size <= limits.BLOCK_BYTES:
        raise LocalProtocolError(f"block of {size} bytes")
    return _RAW_FRAME.pack(1 + _RAW.size + size, code, first, offset)


class PeerWire:
    """What one connection receives, as messages.

    Attributes:
        proved: set by the owner when the handshake is over; until then only handshake frames of
            at most ``limits.HANDSHAKE_FRAME_BYTES`` may come, afterwards none of them.
    """

    def __init__(self) -> None:
        self.proved = False
        self._unit = bytearray()
        self._need = len(PREFACE)
        self._stage: Callable[[bytes], Message | None] = self._preface
        self._code = 0
        self._left = 0
        self._raw_size = 0
        self._first = 0
        self._offset = 0

    def receive_data(self, data: bytes) -> Iterator[Message]:
        """Iterate over the messages that ``data`` completes.

        Lazy, because what a message changes (``proved``) counts for the next one. Data of a block
        comes as memoryviews of ``data``, in as many parts as it arrived in. After an error, or
        when the iterator is given up, the wire must not be used any more.

        Raises:
            RemoteProtocolError: a rule is broken.
        """
        view = memoryview(data)
        while view:
            if self._left:
                part, view = view[: self._left], view[self._left :]
                message = self._part(part)
            else:
                wanted = self._need - len(self._unit)
                self._unit += view[:wanted]
                view = view[wanted:]
                if len(self._unit) < self._need:
                    return
                unit, self._unit = bytes(self._unit), bytearray()
                message = self._stage(unit)
            if message is not None:
                yield message

    @property
    def coming(self) -> tuple[PieceIndex, int, int] | None:
        """Index, offset and size of what is still to come of a piece frame under way."""
        if self._left and self._code == _PIECE:
            return PieceIndex(self._first), self._offset, self._left
        return None

    def came(self, size: int) -> None:
        """So many bytes of :attr:`coming` were read past :meth:`receive_data`."""
        self._left -= size
        self._offset += size

    def _preface(self, unit: bytes) -> None:
        if unit != PREFACE:
            rule = "version" if unit[:-1] == PREFACE[:-1] else "preface"
            raise MalformedMessage(rule, unit.hex())
        self._expect(self._header, _HEADER.size)

    def _expect(self, stage: Callable[[bytes], Message | None], size: int) -> None:
        self._stage = stage
        self._need = size

    def _header(self, unit: bytes) -> None:
        length, self._code = _HEADER.unpack(unit)
        size = length - 1
        if size < 0:
            raise MalformedMessage("frame-length", "0")
        self._check_phase()
        if self._code in _RAW_CODES:
            self._check_size(size, _RAW.size + 1, _RAW.size + limits.BLOCK_BYTES)
            self._expect(self._raw_head, _RAW.size)
            self._raw_size = size - _RAW.size
            return
        frame = limits.CONTROL_FRAME_BYTES if self.proved else limits.HANDSHAKE_FRAME_BYTES
        known = self._code in _CONTROL
        self._check_size(size, 1 if known else 0, frame - _HEADER.size)
        if known:
            self._expect(self._body, size)
        else:
            self._left = size

    def _check_phase(self) -> None:
        code = self._code
        known = code in _CONTROL or code in _RAW_CODES
        if not known and not code & OPTIONAL:
            raise UnexpectedMessage("unknown-frame", f"type {code:#04x}")
        if code in _PROVED_ONCE if self.proved else code not in _UNPROVED:
            raise UnexpectedMessage("handshake-order", f"type {code:#04x}")

    def _check_size(self, size: int, smallest: int, largest: int) -> None:
        if size < smallest:
            raise MalformedMessage("frame-length", f"{size} bytes of type {self._code:#04x}")
        if size > largest:
            raise OversizedMessage("frame-length", f"{size} bytes of type {self._code:#04x}")

    def _body(self, unit: bytes) -> Message:
        self._expect(self._header, _HEADER.size)
        kind, checks = _CONTROL[self._code]
        try:
            values = msgpack.unpackb(
                unit,
                use_list=False,
                max_array_len=limits.CENSUS_DIGEST if kind is Records else len(checks),
                max_bin_len=limits.CONTROL_FRAME_BYTES,
                max_str_len=0,
                max_map_len=0,
                max_ext_len=0,
            )
            if not isinstance(values, tuple) or len(values) != len(checks):
                raise ValueError(f"expected an array of {len(checks)}")  # noqa: TRY301
            message: Message = kind(
                *(check(value) for check, value in zip(checks, values, strict=True))
            )
        except (ValueError, msgpack.UnpackException) as error:
            raise MalformedMessage(f"{kind.__name__}-body", str(error)[:100]) from None
        return message

    def _raw_head(self, unit: bytes) -> None:
        self._expect(self._header, _HEADER.size)
        self._first, self._offset = _RAW.unpack(unit)
        end = self._offset + self._raw_size
        if self._code == _PIECE:
            good = self._first < limits.PIECES_MAX and end <= limits.PIECE_LENGTH_MAX
        else:
            good = end <= self._first <= limits.METADATA_BYTES
        if not good:
            raise MalformedMessage("block-range", f"{self._first}, {self._offset} to {end}")
        self._left = self._raw_size

    def _part(self, data: memoryview) -> Message | None:
        self._left -= len(data)
        offset = self._offset
        self._offset += len(data)
        if self._code == _PIECE:
            return Block(PieceIndex(self._first), offset, data)
        if self._code == _METADATA:
            return MetadataPart(self._first, offset, data)
        return None


def bye_reason(error: RemoteProtocolError) -> ByeReason:
    """Return the close code that tells the other side which rule it broke."""
    return _BYE_REASONS.get(error.rule, ByeReason.PROTOCOL)


_BYE_REASONS: Final[Mapping[str, ByeReason]] = {
    "version": ByeReason.VERSION,
    "unknown-topic": ByeReason.UNKNOWN_TOPIC,
    "self-connection": ByeReason.SELF,
}
