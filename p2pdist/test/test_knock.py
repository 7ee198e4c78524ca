"""Tests for :mod:`p2pdist.swarm.knock`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import AuthenticationFailed, MalformedMessage, RemoteProtocolError
from p2pdist.keys import NetworkKeys, mac
from p2pdist.swarm.knock import KNOCK_BYTES, Doorkeeper, is_public, knock, knock_size
from p2pdist.swarm.peerwire import PREFACE
from p2pdist.test.support import TestCase, given
from p2pdist.test.swarmfakes import node_key

OURS, OTHERS = (NetworkKeys.from_secret(bytes([number]) * 32) for number in (1, 2))
BOB = node_key(2).node_id
HELLO = b"\x16\x03\x01\x00\x05hello"


def chance() -> Callable[[int], bytes]:
    """Return the same random bytes each time."""
    return random.Random(1).randbytes


def knocked(keys: NetworkKeys = OURS, hello: bytes = HELLO) -> bytes:
    """Return a knock at Bob's door and what follows."""
    return knock(keys, BOB, chance(), hello) + hello


class KnockTests(TestCase):
    """Who may come in."""

    def test_opens(self) -> None:
        """A knock shows which of several networks its maker is in; its size is known."""
        data = knocked()
        self.assertEqual(len(data), knock_size(data + b"more"))
        self.assertIs(OURS, Doorkeeper(BOB).check(data, [OTHERS, OURS]))

    def test_bytes(self) -> None:
        """The mac is over exactly this text."""
        nonce = chance()(16)
        expected = mac(OURS.knock_key(), b"p2pdist/1 knock" + nonce + BOB + HELLO)[:16]
        self.assertEqual(nonce + expected + HELLO, knocked())
        self.assertEqual(mac(OURS.prk, b"knock\x01"), OURS.knock_key())

    def test_wrong_secret(self) -> None:
        """Another network's knock opens nothing; with no network at all nothing does."""
        for networks in ([OTHERS], []):
            self.assertRaises(AuthenticationFailed, Doorkeeper(BOB).check, knocked(), networks)

    def test_every_bit_counts(self) -> None:
        """No knock opens with a bit flipped, in itself or in the ClientHello behind it."""
        data = knocked()
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit >> 3] ^= 1 << (bit & 7)
            with self.assertRaises(AuthenticationFailed):
                Doorkeeper(BOB).check(bytes(flipped), [OURS])

    def test_passes_once(self) -> None:
        """A recorded knock is refused, by another node as well; KNOCKS are remembered."""
        bob, carol = Doorkeeper(BOB), Doorkeeper(node_key(3).node_id)
        data = knocked()
        bob.check(data, [OURS])
        self.assertRaises(AuthenticationFailed, bob.check, data, [OURS])
        self.assertRaises(AuthenticationFailed, carol.check, data, [OURS])
        entropy = random.Random(2).randbytes
        for _ in range(limits.KNOCKS):
            bob.check(knock(OURS, BOB, entropy, HELLO) + HELLO, [OURS])
        self.assertEqual(limits.KNOCKS, len(bob._seen))

    def test_is_no_preface(self) -> None:
        """Whatever the chance, no knock begins as a public connection does."""
        self.assertTrue(is_public(PREFACE))
        data = knock(OURS, BOB, lambda size: PREFACE[:1] * size, HELLO) + HELLO
        self.assertFalse(is_public(data))
        self.assertIs(OURS, Doorkeeper(BOB).check(data, [OURS]))

    def test_size(self) -> None:
        """Cut anywhere more is waited for; what is no TLS record, or too long, is refused."""
        data = knocked()
        for cut in range(len(data)):
            self.assertIsNone(knock_size(data[:cut]))
        start = bytes(KNOCK_BYTES)
        for wrong in (b"\x15", b"\x16\x02", b"GET /"):
            self.assertRaises(MalformedMessage, knock_size, start + wrong)
        for excess, refused in ((0, False), (1, True)):
            size = limits.CLIENT_HELLO_BYTES - 5 + excess
            record = start + b"\x16\x03\x01" + size.to_bytes(2, "big")
            if refused:
                self.assertRaises(MalformedMessage, knock_size, record)
            else:
                self.assertIsNone(knock_size(record))

    @given(st.binary(max_size=300))
    def test_junk(self, junk: bytes) -> None:
        """Junk opens nothing, and raises nothing else."""
        with contextlib.suppress(RemoteProtocolError):
            size = knock_size(junk)
            if size is not None:
                Doorkeeper(BOB).check(junk[:size], [OURS, OTHERS])
                self.fail("let in")
