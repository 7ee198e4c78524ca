"""Tests of the overlay's messages: every class there and back, exact sizes, hostile bytes."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address, pack
from p2pdist.errors import (
    LocalProtocolError,
    MalformedMessage,
    OversizedMessage,
    RemoteProtocolError,
)
from p2pdist.ids import NodeID, Topic
from p2pdist.overlay import fields, messages, wire
from p2pdist.overlay.fields import NodeEntry
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

NODE_ID = NodeID(b"n" * 20)
TOPIC = Topic(b"t" * 20)
QID = b"q" * messages.QID_BYTES
RID = b"r" * messages.RID_BYTES
TOKEN = b"k" * limits.TOKEN_BYTES
HEAD: dict[str, Any] = {"rid": RID, "attempt": 1, "token": TOKEN, "node_id": NODE_ID}
ALL_CLASSES: list[type[messages.Message]] = [
    *(
        messages.Ping,
        messages.Find,
        messages.GetPeers,
        messages.Offer,
        messages.Accept,
        messages.Announce,
        messages.Join,
    ),
    *(
        messages.StatusUpdate,
        messages.Hail,
        messages.Pong,
        messages.Challenge,
        messages.Error,
        messages.Found,
    ),
    *(messages.Forwarded, messages.Accepted, messages.Announced, messages.Joined, messages.Noted),
]


def datagram_size(message: messages.Message) -> int:
    """Return how long the datagram that carries ``message`` is."""
    return len(wire.encode(message)) + limits.ENVELOPE_BYTES


def peers4(count: int) -> tuple[Address, ...]:
    """Return ``count`` IPv4 addresses."""
    return tuple(Address(f"8.8.{number >> 8}.{number & 255}", 65535) for number in range(count))


def peers6(count: int) -> tuple[Address, ...]:
    """Return ``count`` IPv6 addresses."""
    return tuple(Address(f"2600::{number + 1:x}", 65535) for number in range(count))


def nodes(peers: tuple[Address, ...]) -> tuple[NodeEntry, ...]:
    """Return a node at each address."""
    return tuple(NodeEntry(NODE_ID, address) for address in peers)


def repacked(message: messages.Message, index: int, value: object) -> bytes:
    """Return the payload of ``message`` with one element replaced."""
    row = msgpack.unpackb(wire.encode(message))
    row[index] = value
    packed = msgpack.packb(row)
    assert isinstance(packed, bytes)
    return packed


def offer(**more: Any) -> messages.Offer:
    """Return an offer."""
    made = {"qid": QID, "node_id": NODE_ID, "cookie": b"c" * 12, "swarm": 65535, **more}
    return messages.Offer(**made)


class RoundTripTests(TestCase):
    """What a node says is what the other one reads."""

    @given(strategies.overlay_messages())
    def test_every_message(self, message: messages.Message):
        """Every message is the same after encoding and decoding, and within its bound."""
        payload = wire.encode(message)
        self.assertLessEqual(len(payload), limits.PAYLOAD_BYTES)
        self.assertEqual(message, wire.decode(payload))

    def test_every_class_is_drawn(self):
        """The strategy behind these tests and the table of codes know the same classes."""
        self.assertEqual(set(ALL_CLASSES), set(messages.MESSAGES.values()))
        self.assertEqual({kind.code for kind in ALL_CLASSES}, set(messages.MESSAGES))

    def test_codes_are_the_protocol(self):
        """Codes of replies follow from their requests: these numbers never change."""
        requests: list[type[messages.Request]] = [
            messages.Ping,
            messages.Find,
            messages.GetPeers,
            messages.Accept,
            messages.Announce,
        ]
        requests += [messages.Join, messages.StatusUpdate]
        self.assertEqual([0, 2, 3, 5, 6, 7, 8], [kind.code for kind in requests])
        for kind in requests:
            self.assertEqual(kind.code | 0x40, kind.reply.code)
        others: list[type[messages.Message]] = [
            messages.Offer,
            messages.Hail,
            messages.Challenge,
            messages.Error,
        ]
        self.assertEqual([0x04, 0x10, 0x7E, 0x7F], [kind.code for kind in others])

    def test_messages_are_values(self):
        """Messages and nodes of the same content are equal and hash alike; others are not."""
        for made in (
            lambda n: messages.Find(**HEAD, target=n),
            lambda n: nodes(peers4(1))[0 : n[0]],
        ):
            self.assertEqual(made(b"\1" * 20), made(b"\1" * 20))
            self.assertEqual(hash(made(b"\1" * 20)), hash(made(b"\1" * 20)))
            self.assertNotEqual(made(b"\1" * 20), made(b"\0" * 20))

    def test_what_cannot_be_packed_leaves_nothing_behind(self):
        """After a message that does not pack, the next one is encoded as ever."""
        find = messages.Find(**HEAD, target=TOPIC)
        expected = wire.encode(find)
        with self.assertRaises(OverflowError):
            wire.encode(messages.Announced(rid=RID, attempt=1, ttl_s=1, others=2**64))
        self.assertEqual(expected, wire.encode(find))

    def test_annotated_bytes(self):
        """A find request is one msgpack array in the documented order."""
        expected = [2, RID, 1, TOKEN, NODE_ID, TOPIC]
        self.assertEqual(msgpack.packb(expected), wire.encode(messages.Find(**HEAD, target=TOPIC)))


class SizeTests(TestCase):
    """Datagram sizes as decisions 7 and 8 fix them."""

    @given(strategies.overlay_requests())
    def test_padded_requests(self, message: messages.Message):
        """Every ping has 110 bytes, every get_peers 720 or 1232, whatever it holds."""
        if isinstance(message, messages.Ping):
            self.assertEqual(limits.PING_BYTES, datagram_size(message))
        elif isinstance(message, messages.GetPeers):
            size = limits.GET_PEERS_WIDE_BYTES if message.wide else limits.GET_PEERS_BYTES
            self.assertEqual(size, datagram_size(message))
        self.assertEqual((110, 720, 1232), (limits.PING_BYTES, limits.GET_PEERS_BYTES, 1232))

    @given(strategies.overlay_requests(), strategies.overlay_replies())
    def test_nothing_grows_for_strangers(self, request: messages.Message, reply: messages.Message):
        """A pong is no larger than a ping; challenge and error are smaller than any request."""
        if isinstance(reply, messages.Pong):
            self.assertLessEqual(datagram_size(reply), limits.PING_BYTES)
        elif isinstance(reply, messages.Challenge | messages.Error):
            self.assertLess(datagram_size(reply), datagram_size(request))

    def test_pong_of_both_families(self):
        """Token and observed address fit into the pong, an IPv6 one to the last byte."""
        for observed, expected in [(peers4(1)[0], 98), (peers6(1)[0], limits.PING_BYTES)]:
            pong = messages.Pong(
                rid=RID, attempt=127, node_id=NODE_ID, token=TOKEN, observed=observed, flags=127
            )
            self.assertEqual(expected, datagram_size(pong))
            self.assertEqual(pong, wire.decode(wire.encode(pong)))

    def test_largest_offers(self):
        """An offer of 13 IPv4 or 4 IPv6 peers fits 200 bytes, one peer more does not encode."""
        full4 = offer(peers4=peers4(limits.OFFER_PEERS_V4))
        full6 = offer(peers6=peers6(limits.OFFER_PEERS_V6))
        self.assertEqual((13, 4), (len(full4.peers4), len(full6.peers6)))
        for full in (full4, full6):
            self.assertLessEqual(datagram_size(full), limits.OFFER_BYTES)
        relayed = offer(cookie=b"", finder=peers4(1)[0], peers4=peers4(limits.OFFER_PEERS_V4))
        self.assertLessEqual(datagram_size(relayed), limits.OFFER_BYTES)
        relayed = offer(cookie=b"", finder=peers6(1)[0], peers6=peers6(limits.OFFER_PEERS_V6))
        self.assertLessEqual(datagram_size(relayed), limits.OFFER_BYTES)
        with self.assertRaises(LocalProtocolError):
            wire.encode(offer(peers4=peers4(limits.OFFER_PEERS_V4 + 4)))

    def test_units_are_paid_for(self):
        """A get_peers is at least as long as all the offers it may cause."""
        self.assertGreaterEqual(limits.GET_PEERS_BYTES, limits.GET_PEERS_UNITS * limits.OFFER_BYTES)
        self.assertGreaterEqual(
            limits.GET_PEERS_WIDE_BYTES, limits.GET_PEERS_WIDE_UNITS * limits.OFFER_BYTES
        )
        greedy = messages.GetPeers(**HEAD, qid=QID, topic=TOPIC, units=limits.GET_PEERS_UNITS + 1)
        with self.assertRaises(MalformedMessage):
            wire.decode(wire.encode(greedy))

    def test_largest_accepted(self):
        """100 IPv4 or 46 IPv6 peers and 8 nodes of that family fit one datagram."""
        self.assertEqual(
            (100, 46, 8), (limits.REPLY_PEERS_V4, limits.REPLY_PEERS_V6, limits.REPLY_NODES)
        )
        full4 = messages.Accepted(
            rid=RID,
            attempt=127,
            token=TOKEN,
            peers4=peers4(limits.REPLY_PEERS_V4),
            nodes4=nodes(peers4(limits.REPLY_NODES)),
        )
        full6 = messages.Accepted(
            rid=RID,
            attempt=127,
            token=TOKEN,
            peers6=peers6(limits.REPLY_PEERS_V6),
            nodes6=nodes(peers6(limits.REPLY_NODES)),
        )
        for full in (full4, full6):
            self.assertLessEqual(datagram_size(full), limits.DATAGRAM_BYTES)
            self.assertEqual(full, wire.decode(wire.encode(full)))

    def test_largest_found(self):
        """A find reply holds 8 nodes of each family."""
        found = messages.Found(
            rid=RID,
            attempt=127,
            nodes4=nodes(peers4(limits.REPLY_NODES)),
            nodes6=nodes(peers6(limits.REPLY_NODES)),
        )
        self.assertLessEqual(datagram_size(found), limits.DATAGRAM_BYTES)
        self.assertEqual(found, wire.decode(wire.encode(found)))

    def test_too_large_to_send(self):
        """What exceeds a datagram is a bug of ours and says so."""
        accepted = messages.Accepted(rid=RID, attempt=0, token=TOKEN, peers6=peers6(70))
        with self.assertRaises(LocalProtocolError):
            wire.encode(accepted)
        ping = messages.Ping(**{**HEAD, "rid": bytes(40)})
        with self.assertRaises(LocalProtocolError):
            wire.encode(ping)


class HostileBytesTests(TestCase):
    """Decoding raises RemoteProtocolError or returns a message, nothing else."""

    def check(self, payload: bytes) -> messages.Message | None:
        """Decode; anything but a message or a remote error fails the test."""
        try:
            message = wire.decode(payload)
        except RemoteProtocolError:
            return None
        self.assertIn(type(message), ALL_CLASSES)
        return message

    @given(strategies.overlay_messages())
    def test_cut_off_anywhere(self, message: messages.Message):
        """No beginning of a message is a message."""
        payload = wire.encode(message)
        for end in range(len(payload)):
            with self.assertRaises(MalformedMessage):
                wire.decode(payload[:end])

    @given(strategies.overlay_messages(), st.binary(min_size=1, max_size=4))
    def test_trailing_bytes(self, message: messages.Message, rest: bytes):
        """Nothing may follow a message."""
        with self.assertRaises(RemoteProtocolError):
            wire.decode(wire.encode(message) + rest)

    @given(st.data(), strategies.overlay_messages())
    def test_mutated(self, data: st.DataObject, message: messages.Message):
        """One changed byte gives another valid message or a remote error."""
        self.check(data.draw(strategies.mutations(wire.encode(message))))

    @given(strategies.hostile_msgpack())
    def test_hostile_msgpack(self, payload: bytes):
        """Bytes made to hurt an unpacker are refused."""
        self.check(payload)

    @given(st.binary(max_size=limits.PAYLOAD_BYTES + 10))
    def test_any_bytes(self, payload: bytes):
        """So are any others."""
        self.check(payload)

    @given(
        st.sampled_from(sorted(messages.MESSAGES)),
        st.lists(
            st.none()
            | st.booleans()
            | st.integers(-1, 2**33)
            | st.floats()
            | st.sampled_from([0, 6, 8, 12, 14, 18, 20, 26]).map(bytes)
            | st.binary(max_size=30)
            | st.lists(st.integers(0, 3), max_size=3),
            max_size=limits.MSGPACK_ARRAY,
        ),
    )
    def test_wrong_fields(self, code: int, row: list[Any]):
        """A known code with any fields gives a message or a remote error."""
        self.check(msgpack.packb([code, *row]))

    @given(strategies.overlay_messages())
    def test_every_field_is_checked(self, message: messages.Message):
        """No field of any message may be missing in all but its place."""
        for index in range(1, 1 + len(message.fields)):
            with self.assertRaises(MalformedMessage):
                wire.decode(repacked(message, index, None))

    def test_oversized(self):
        """Sizes are checked before parsing."""
        with self.assertRaises(OversizedMessage):
            wire.decode(bytes(limits.PAYLOAD_BYTES + 1))

    def test_wide_arrays(self):
        """An array of more elements than any message has is not unpacked."""
        with self.assertRaises(MalformedMessage) as caught:
            wire.decode(msgpack.packb([0] * (limits.MSGPACK_ARRAY + 1)))
        self.assertEqual("msgpack", caught.exception.rule)
        with self.assertRaises(MalformedMessage) as caught:
            wire.decode(msgpack.packb([0] * limits.MSGPACK_ARRAY))
        self.assertEqual("message-fields", caught.exception.rule)

    def test_shapes(self):
        """No array, an empty one, a code that is no number or not known: each is refused."""
        for value, rule in [
            (7, "message-shape"),
            ([], "message-shape"),
            ([True, RID], "message-shape"),
            ([b"x", RID], "message-shape"),
            ([99, RID], "message-code"),
            ([-1], "message-code"),
        ]:
            with self.assertRaises(MalformedMessage) as caught:
                wire.decode(msgpack.packb(value))
            self.assertEqual(rule, caught.exception.rule)
        for value in ("text", {1: 2}, msgpack.ExtType(5, b""), [0, "text"], [0, {1: 2}]):
            with self.assertRaises(MalformedMessage):
                wire.decode(msgpack.packb(value))


class BoundTests(TestCase):
    """Whole messages that fit their fields and yet not the rules."""

    def refused(self, payload: bytes, rule: str) -> None:
        """Check that decoding fails by ``rule``."""
        with self.assertRaises(RemoteProtocolError) as caught:
            wire.decode(payload)
        self.assertEqual(rule, caught.exception.rule)

    def test_short_pings(self):
        """A ping of another size than 110 bytes would make a pong larger than its ping."""
        ping = messages.Ping(**HEAD)
        padding = msgpack.unpackb(wire.encode(ping))[-1]
        self.refused(repacked(ping, -1, padding[:-1]), "ping-size")
        self.refused(repacked(ping, -1, padding + b"\0"), "ping-size")
        self.refused(repacked(ping, -1, b"x" * len(padding)), "field-padding")
        self.refused(repacked(ping, -1, 0), "field-padding")

    def test_short_get_peers(self):
        """A get_peers pays in bytes for its units: no other size passes."""
        query = messages.GetPeers(**HEAD, qid=QID, topic=TOPIC)
        self.refused(repacked(query, -1, b""), "get_peers-size")
        self.refused(repacked(query, -3, limits.GET_PEERS_UNITS + 1), "get_peers-units")
        self.refused(repacked(query, -4, limits.HOPS + 1), "field-integer")
        wide = messages.GetPeers(**HEAD, qid=QID, topic=TOPIC, wide=True)
        self.refused(repacked(wide, -3, limits.GET_PEERS_WIDE_UNITS + 1), "field-integer")

    def test_long_offers(self):
        """An offer above 200 bytes is refused even when every field fits."""
        both = repacked(
            offer(peers4=peers4(limits.OFFER_PEERS_V4)),
            -1,
            b"".join(map(pack, peers6(limits.OFFER_PEERS_V6))),
        )
        self.refused(both, "offer-size")

    def test_too_many_peers_or_nodes(self):
        """Lists have a bound of their own, whatever room there would be."""
        full = messages.Accepted(rid=RID, attempt=0, token=TOKEN)
        for index, size, top in [
            (-4, 6, limits.REPLY_PEERS_V4),
            (-3, 18, limits.REPLY_PEERS_V6),
            (-2, 26, limits.REPLY_NODES),
            (-1, 38, limits.REPLY_NODES),
        ]:
            rule = "field-addresses" if index < -2 else "field-nodes"
            self.refused(repacked(full, index, bytes([8]) * (size * (top + 1))), rule)
        hail = messages.Hail(port=1, topics=())
        self.refused(repacked(hail, -1, bytes(8 * (limits.LAN_TOPICS + 1))), "field-prefixes")
        self.refused(repacked(hail, -1, bytes(7)), "field-prefixes")

    def test_unusable_addresses(self):
        """No datagram may ever go to multicast, port 0 or mapped addresses: so none is read."""
        for ip in ("224.0.0.1", "255.255.255.255", "0.0.0.0"):
            self.refused(repacked(offer(), -2, pack(Address(ip, 1))), "address-unusable")
        self.refused(repacked(offer(), -2, bytes([8, 8, 8, 8, 0, 0])), "address-unusable")
        mapped = bytes(10) + b"\xff\xff\x08\x08\x08\x08\x00\x01"
        self.refused(repacked(offer(), -1, mapped), "address-unusable")
        self.refused(repacked(offer(), -2, bytes([8] * 7)), "address-list-size")
        self.refused(repacked(offer(), -3, bytes([8] * 7)), "address-size")
        self.refused(repacked(offer(), -3, 5), "field-address")

    def test_unknown_error_codes(self):
        """An error code of a later version is kept as it comes."""
        error = messages.Error(rid=RID, attempt=0, error=200)
        self.assertEqual(error, wire.decode(wire.encode(error)))

    def test_enumerations(self):
        """Status and verdict know their numbers only, and booleans are none."""
        self.refused(
            repacked(
                messages.Announce(**HEAD, topic=TOPIC, status=messages.Status.SEED, sequence=0),
                -2,
                4,
            ),
            "field-enumeration",
        )
        joined = messages.Joined(
            rid=RID, attempt=0, node_id=NODE_ID, status=messages.Status.IDLE, proof=bytes(16)
        )
        self.refused(repacked(joined, -2, True), "field-enumeration")

    def test_announced_lifetime(self):
        """Nobody promises to remember for longer than a peer lives."""
        announced = messages.Announced(rid=RID, attempt=0, ttl_s=limits.PEER_TTL_S, others=0)
        self.assertEqual(announced, wire.decode(wire.encode(announced)))
        self.refused(repacked(announced, -2, limits.PEER_TTL_S + 1), "field-integer")


class FieldTests(TestCase):
    """Single fields."""

    def test_a_bare_kind_has_no_reading(self):
        """The base class only says what a field is."""
        with self.assertRaises(NotImplementedError):
            fields.Kind().get(b"")

    @given(st.integers() | st.booleans() | st.binary(max_size=3) | st.none())
    def test_integers(self, raw: object):
        """An integer field takes exactly the integers from 0 to its top."""
        kind = fields.UInt(5)
        if type(raw) is int and 0 <= raw <= 5:
            self.assertEqual(raw, kind.get(raw))
        else:
            with self.assertRaises(MalformedMessage):
                kind.get(raw)

    @given(st.binary(max_size=20) | st.text(max_size=8) | st.integers())
    def test_binaries(self, raw: object):
        """A binary field takes exactly its sizes, and never text."""
        kind = fields.Fixed(0, 12)
        if type(raw) is bytes and len(raw) in {0, 12}:
            self.assertEqual(raw, kind.get(raw))
        else:
            with self.assertRaises(MalformedMessage):
                kind.get(raw)

    @given(st.integers(-2, 2**33) | st.booleans() | st.binary(max_size=40) | st.text() | st.none())
    def test_what_fits(self, raw: object):
        """What a field's expression lets through, its own check returns as it is."""
        codecs = [codec for kind in messages.MESSAGES.values() for _, codec in kind.fields]
        for codec in codecs:
            if codec.fits and eval(codec.fits.format("raw"), {"raw": raw}):
                self.assertIs(raw, codec.get(raw))
