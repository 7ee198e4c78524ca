"""Tests for :mod:`p2pdist.swarm.peerwire` and :mod:`p2pdist.swarm.messages`."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable

import msgpack
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import (
    LocalProtocolError,
    MalformedMessage,
    OversizedMessage,
    RemoteProtocolError,
    UnexpectedMessage,
)
from p2pdist.ids import PieceIndex
from p2pdist.swarm.messages import (
    Bitfield,
    Block,
    Bye,
    ByeReason,
    Cancel,
    Grant,
    Have,
    Interest,
    KeepAlive,
    Message,
    MetadataPart,
    Reject,
    RejectReason,
    Request,
)
from p2pdist.swarm.peerwire import PREFACE, PeerWire, bye_reason, encode
from p2pdist.test.strategies import (
    control_messages,
    data_messages,
    handshake_messages,
    hostile_msgpack,
    mutations,
    streams_cut_anywhere,
)
from p2pdist.test.support import TestCase, given


def open_wire() -> PeerWire:
    """Return a wire past preface and handshake."""
    wire = PeerWire()
    assert list(wire.receive_data(PREFACE)) == []
    wire.proved = True
    return wire


def received(wire: PeerWire, chunks: Iterable[bytes]) -> list[Message]:
    """Return what the chunks bring, parts of one block joined again."""
    joined: list[Message] = []
    for chunk in chunks:
        for message in wire.receive_data(chunk):
            last = joined[-1] if joined else None
            if (
                isinstance(message, Block)
                and isinstance(last, Block)
                and (last.index, last.offset + len(last.data)) == (message.index, message.offset)
            ):
                joined[-1] = Block(last.index, last.offset, bytes(last.data) + bytes(message.data))
            elif (
                isinstance(message, MetadataPart)
                and isinstance(last, MetadataPart)
                and (last.total, last.offset + len(last.data)) == (message.total, message.offset)
            ):
                data = bytes(last.data) + bytes(message.data)
                joined[-1] = MetadataPart(last.total, last.offset, data)
            else:
                joined.append(message)
    return joined


def frame(code: int, body: bytes) -> bytes:
    """Return a frame with any type and body."""
    return struct.pack(">IB", 1 + len(body), code) + body


class RoundTripTests(TestCase):
    """What one side encodes the other side reads."""

    @given(st.lists(control_messages() | data_messages(), max_size=6), st.data())
    def test_messages_survive_any_cut(self, sent: list[Message], data: st.DataObject) -> None:
        """A stream of messages is read the same however it is cut into chunks."""
        stream = b"".join(map(encode, sent))
        whole = received(open_wire(), [stream])
        chunks = data.draw(streams_cut_anywhere(stream))
        self.assertEqual(whole, received(open_wire(), chunks))

    @given(control_messages() | data_messages())
    def test_message_survives_byte_by_byte(self, message: Message) -> None:
        """Every message is read from single bytes, and not before its last one."""
        encoded = encode(message)
        wire = open_wire()
        early = received(wire, [encoded[i : i + 1] for i in range(len(encoded) - 1)])
        if not isinstance(message, Block | MetadataPart):
            self.assertEqual([], early)
        fresh = open_wire()
        chunks = [encoded[i : i + 1] for i in range(len(encoded))]
        self.assertEqual([message], received(fresh, chunks))

    @given(handshake_messages())
    def test_handshake_messages_come_before_proof(self, message: Message) -> None:
        """Handshake frames fit the small frames of unproved peers, and are refused afterwards."""
        encoded = encode(message)
        self.assertLessEqual(len(encoded), limits.HANDSHAKE_FRAME_BYTES)
        wire = PeerWire()
        self.assertEqual([message], list(wire.receive_data(PREFACE + encoded)))
        with self.assertRaises(UnexpectedMessage):
            list(open_wire().receive_data(encoded))

    def test_largest_messages_fit(self) -> None:
        """A bitfield of PIECES_MAX, HAVE_BATCH indices and a block of BLOCK_BYTES are legal."""
        index = PieceIndex(limits.PIECES_MAX - 1)
        bits = Bitfield(bytes(limits.PIECES_MAX // 8))
        have = Have((index,) * limits.HAVE_BATCH)
        block = Block(
            index, limits.PIECE_LENGTH_MAX - limits.BLOCK_BYTES, bytes(limits.BLOCK_BYTES)
        )
        for message in (bits, have, block):
            self.assertEqual([message], received(open_wire(), [encode(message)]))
        self.assertLessEqual(len(encode(bits)), limits.CONTROL_FRAME_BYTES)

    def test_our_own_excess_is_a_bug(self) -> None:
        """What breaks a bound of ours is never sent."""
        with self.assertRaises(LocalProtocolError):
            encode(Bitfield(bytes(limits.CONTROL_FRAME_BYTES)))
        with self.assertRaises(LocalProtocolError):
            encode(Block(PieceIndex(0), 0, bytes(limits.BLOCK_BYTES + 1)))

    def test_bytes_are_these(self) -> None:
        """Two frames as docs/protocol shows them."""
        self.assertEqual("00000003159107", encode(Grant(PieceIndex(7))).hex())
        self.assertEqual(
            "0000000b190000000700000100abcd",
            encode(Block(PieceIndex(7), 256, b"\xab\xcd")).hex(),
        )


class HostileTests(TestCase):
    """What strangers may send."""

    def assert_refused(self, data: bytes, kind: type[RemoteProtocolError]) -> None:
        """Fail unless an open wire refuses ``data`` with this error."""
        with self.assertRaises(kind):
            list(open_wire().receive_data(data))

    @given(st.binary(max_size=200), st.booleans())
    def test_junk_raises_nothing_else(self, junk: bytes, proved: bool) -> None:
        """Any bytes give messages or a RemoteProtocolError."""
        wire = open_wire()
        wire.proved = proved
        with contextlib.suppress(RemoteProtocolError):
            list(wire.receive_data(junk))

    @given((control_messages() | data_messages()).map(encode).flatmap(mutations))
    def test_mutated_messages_raise_nothing_else(self, data: bytes) -> None:
        """One flipped byte gives another message, a longer wait or a RemoteProtocolError."""
        with contextlib.suppress(RemoteProtocolError):
            list(open_wire().receive_data(data))

    @given(st.sampled_from([0x04, 0x10, 0x11, 0x14, 0x15, 0x17, 0x1C]), hostile_msgpack())
    def test_hostile_bodies_raise_nothing_else(self, code: int, body: bytes) -> None:
        """A body that is no such message is malformed, whatever it is instead."""
        with contextlib.suppress(RemoteProtocolError):
            list(open_wire().receive_data(frame(code, body)))

    def test_frame_lengths(self) -> None:
        """Zero, too long and gigantic lengths are refused at the header, for every type."""
        for code in range(256):
            for length in (0, limits.BLOCK_BYTES + 10, 1 << 31, (1 << 32) - 1):
                self.assert_refused(struct.pack(">IB", length, code), RemoteProtocolError)

    def test_frame_one_byte_too_long(self) -> None:
        """A control frame ends at CONTROL_FRAME_BYTES, a data frame at BLOCK_BYTES of data."""
        header = struct.pack(">IB", limits.CONTROL_FRAME_BYTES - 4 + 1, 0x10)
        self.assert_refused(header, OversizedMessage)
        header = struct.pack(">IB", 1 + 8 + limits.BLOCK_BYTES + 1, 0x19)
        self.assert_refused(header, OversizedMessage)

    def test_unproved_frames_are_small(self) -> None:
        """Before the proof a frame above HANDSHAKE_FRAME_BYTES is refused at its header."""
        wire = PeerWire()
        header = struct.pack(">IB", limits.HANDSHAKE_FRAME_BYTES - 4 + 1, 0x01)
        with self.assertRaises(OversizedMessage):
            list(wire.receive_data(PREFACE + header))

    def test_nothing_but_the_handshake_comes_first(self) -> None:
        """A grant, a block or an optional frame before the proof is refused."""
        for data in (
            encode(Grant(PieceIndex(0))),
            encode(Block(PieceIndex(0), 0, b"x")),
            b"\0\0\0\1\xff",
        ):
            with self.assertRaises(UnexpectedMessage):
                list(PeerWire().receive_data(PREFACE + data))

    def test_endless_frame_is_not_stored(self) -> None:
        """Data of a block is handed on part by part; nothing of it is kept."""
        wire = open_wire()
        header = encode(Block(PieceIndex(3), 0, bytes(limits.BLOCK_BYTES)))[:13]
        list(wire.receive_data(header))
        seen = 0
        for _ in range(16):
            for block in wire.receive_data(bytes(1000)):
                assert isinstance(block, Block)
                self.assertEqual(seen, block.offset)
                seen += len(block.data)
        self.assertEqual(16_000, seen)

    def test_declared_length_takes_no_memory(self) -> None:
        """A header that promises a large control frame is answered with patience, not memory."""
        wire = open_wire()
        list(wire.receive_data(struct.pack(">IB", limits.CONTROL_FRAME_BYTES - 4, 0x10)))
        held = [value for value in vars(wire).values() if isinstance(value, bytearray)]
        self.assertEqual([0], [len(value) for value in held])

    def test_unknown_types(self) -> None:
        """An unknown optional frame is skipped, an unknown critical one is refused."""
        stream = frame(0xF0, b"") + frame(0xFF, bytes(300)) + encode(KeepAlive())
        self.assertEqual([KeepAlive()], received(open_wire(), [stream]))
        chunks = [stream[i : i + 1] for i in range(len(stream))]
        self.assertEqual([KeepAlive()], received(open_wire(), chunks))
        self.assert_refused(frame(0x7F, b"x"), UnexpectedMessage)
        self.assert_refused(frame(0x00, b"x"), UnexpectedMessage)

    def test_indices_out_of_range(self) -> None:
        """No message names a piece beyond PIECES_MAX, a negative one or something else."""
        for bad in (limits.PIECES_MAX, -1, 1 << 63, True, None, b"\0", 1.0, [1]):
            self.assert_refused(frame(0x15, msgpack.packb([bad])), MalformedMessage)
        far = limits.PIECES_MAX.to_bytes(4, "big")
        self.assert_refused(frame(0x11, msgpack.packb([far])), MalformedMessage)
        self.assert_refused(frame(0x19, far + bytes(4) + b"x"), MalformedMessage)

    def test_have_is_bounded(self) -> None:
        """A have of no index, of half an index or of more than HAVE_BATCH is refused."""
        for size in (0, 3, 4 * limits.HAVE_BATCH + 4):
            self.assert_refused(frame(0x11, msgpack.packb([bytes(size)])), MalformedMessage)

    def test_blocks_stay_inside(self) -> None:
        """No block ends beyond PIECE_LENGTH_MAX, no metadata beyond its total or METADATA_BYTES."""
        end = limits.PIECE_LENGTH_MAX.to_bytes(4, "big")
        self.assert_refused(frame(0x19, bytes(4) + end + b"x"), MalformedMessage)
        five, total = (5).to_bytes(4, "big"), (limits.METADATA_BYTES + 1).to_bytes(4, "big")
        self.assert_refused(frame(0x13, five + five + b"x"), MalformedMessage)
        self.assert_refused(frame(0x13, total + bytes(4) + b"x"), MalformedMessage)

    def test_fields_are_checked(self) -> None:
        """Wrong counts, wrong types, unknown codes and trailing bytes are malformed."""
        bad = {
            0x05: [b"\x91\x01", b"\x90\x00", b"\xc0"],
            0x14: [b"\x91\x01", b"\x90", b"\x92\xc3\xc3", b"\x81\xc3\xc3"],
            0x17: [b"\x91\x00", b"\x91\x03", b"\x91\xa1x"],
            0x1C: [b"\x92\x00\x00", b"\x91\x00"],
            0x04: [b"\x91\xcd\x01\x00"],
            0x10: [b"\x91\xa1x", msgpack.packb([bytes(limits.PIECES_MAX // 8 + 1)])[:64]],
        }
        for code, bodies in bad.items():
            for body in bodies:
                self.assert_refused(frame(code, body), MalformedMessage)

    def test_preface(self) -> None:
        """Another protocol is malformed; another version is told apart by its rule."""
        for data, rule in ((b"GET / HT", "preface"), (PREFACE[:-1] + b"\x02", "version")):
            with self.assertRaises(MalformedMessage) as caught:
                list(PeerWire().receive_data(data))
            self.assertEqual(rule, caught.exception.rule)
        self.assertEqual(b"P", PREFACE[:1])

    def test_bye_reasons(self) -> None:
        """A broken rule is told as what it was, where the other side can do something about it."""
        self.assertEqual(ByeReason.VERSION, bye_reason(MalformedMessage("version")))
        self.assertEqual(ByeReason.PROTOCOL, bye_reason(MalformedMessage("preface")))

    def test_unknown_bye_is_legal(self) -> None:
        """A later version's close code is read."""
        self.assertEqual([Bye(200)], received(open_wire(), [encode(Bye(200))]))

    def test_lazy_reading(self) -> None:
        """What a message changes counts for the next one in the same chunk."""
        wire = PeerWire()
        stream = PREFACE + encode(Bye(1)) + encode(Interest(True))
        events = wire.receive_data(stream)
        self.assertEqual(Bye(1), next(events))
        wire.proved = True
        self.assertEqual(Interest(True), next(events))

    def test_other_messages_are_told_apart(self) -> None:
        """Messages of the same fields have different types."""
        index = PieceIndex(1)
        messages: list[Message] = [Grant(index), Request(index), Cancel(index)]
        messages.append(Reject(index, RejectReason.GONE))
        self.assertEqual(messages, received(open_wire(), map(encode, messages)))
