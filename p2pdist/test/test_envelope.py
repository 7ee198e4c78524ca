"""Tests of the sealed datagram: what opens, what does not, and what is remembered."""

from __future__ import annotations

import contextlib
import random

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import AuthenticationFailed, MalformedMessage, OversizedMessage
from p2pdist.keys import PUBLIC_NETWORK, NetworkKeys
from p2pdist.overlay import envelope
from p2pdist.overlay.envelope import Envelope, Taken, notice, read_header
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

PRIVATE_NETWORK = NetworkKeys.from_secret(b"secret")


def sealer(seed: int, keys: NetworkKeys = PUBLIC_NETWORK) -> Envelope:
    """Return the envelope of process number ``seed``."""
    return Envelope(keys, random.Random(seed).randbytes)


def opened(receiver: Envelope, datagram: bytes) -> bytes:
    """Return what ``receiver`` finds in ``datagram``."""
    return receiver.open(datagram, read_header(datagram))


class HeaderTests(TestCase):
    """What stands in the clear."""

    def test_layout(self):
        """Magic, version, tag, boot id, counter, then the sealed payload: 46 bytes more than it."""
        sender = sealer(1)
        sender.seal(b"first")
        datagram = sender.seal(b"second")
        clear = b"\xd1\x01" + PUBLIC_NETWORK.tag + sender.boot_id + (1).to_bytes(8, "big")
        self.assertEqual(clear, datagram[: envelope.HEADER_BYTES])
        self.assertEqual(limits.ENVELOPE_BYTES, len(datagram) - len(b"second"))
        header = read_header(datagram)
        self.assertEqual((PUBLIC_NETWORK.tag, sender.boot_id, 1), (header.tag, header.boot_id, 1))

    def test_largest_datagram(self):
        """The largest payload makes the largest datagram; a byte more is refused on both sides."""
        datagram = sealer(1).seal(bytes(limits.PAYLOAD_BYTES))
        self.assertEqual(limits.DATAGRAM_BYTES, len(datagram))
        self.assertEqual(limits.PAYLOAD_BYTES, len(opened(sealer(2), datagram)))
        with self.assertRaises(OversizedMessage):
            read_header(datagram + b"x")
        with self.assertRaises(AssertionError):
            sealer(1).seal(bytes(limits.PAYLOAD_BYTES + 1))

    def test_cut_off_headers(self):
        """A datagram cut anywhere up to its seal has no header."""
        datagram = sealer(1).seal(b"p")
        for end in range(limits.ENVELOPE_BYTES + 1):
            with self.assertRaises(MalformedMessage):
                read_header(datagram[:end])

    @given(
        st.binary(max_size=limits.DATAGRAM_BYTES + 8) | st.binary(max_size=60).map(b"\xd1".__add__)
    )
    def test_any_bytes(self, datagram: bytes):
        """Any bytes give a header or a remote error."""
        try:
            header = read_header(datagram)
        except (MalformedMessage, OversizedMessage):
            return
        self.assertIn(header.version, (envelope.VERSION, envelope.NOTICE))

    def test_notice(self):
        """A notice names the datagram it answers, and is smaller than any datagram."""
        sender = sealer(1)
        header = read_header(sender.seal(b"p"))
        answer = notice(header)
        self.assertLess(len(answer), limits.ENVELOPE_BYTES)
        back = read_header(answer)
        self.assertEqual(envelope.NOTICE, back.version)
        self.assertTrue(sender.sent(back))
        with self.assertRaises(MalformedMessage):
            read_header(answer + b"x")

    def test_sent(self):
        """Only datagrams of the present boot id with a used counter are our own."""
        sender = sealer(1)
        first = read_header(sender.seal(b"p"))
        ahead = first._replace(counter=1)
        self.assertTrue(sender.sent(first))
        self.assertFalse(sender.sent(ahead))
        self.assertFalse(sealer(2).sent(first))
        sender.renew()
        self.assertFalse(sender.sent(first))


class SealTests(TestCase):
    """Sealing and opening."""

    @given(st.binary(min_size=1, max_size=limits.PAYLOAD_BYTES), st.none() | st.binary(min_size=1))
    def test_round_trip(self, payload: bytes, secret: bytes | None):
        """Who holds the network's secret opens what another process of it sealed."""
        keys = NetworkKeys.from_secret(secret)
        self.assertEqual(payload, opened(sealer(2, keys), sealer(1, keys).seal(payload)))

    @given(st.data(), st.binary(min_size=1, max_size=80))
    def test_changed_datagrams_do_not_open(self, data: st.DataObject, payload: bytes):
        """One changed byte anywhere and the datagram is dropped."""
        datagram = data.draw(strategies.mutations(sealer(1).seal(payload)))
        with self.assertRaises((MalformedMessage, AuthenticationFailed)):
            opened(sealer(2), datagram)

    def test_other_network(self):
        """Another secret does not open it, and nothing is remembered of the sender."""
        receiver = sealer(2, PRIVATE_NETWORK)
        with self.assertRaises(AuthenticationFailed):
            opened(receiver, sealer(1).seal(b"payload"))
        self.assertEqual(0, receiver.senders)

    def test_own_datagrams_are_known(self):
        """A datagram that comes back to its sender is named as its own."""
        sender = sealer(1)
        with self.assertRaises(AuthenticationFailed) as caught:
            opened(sender, sender.seal(b"payload"))
        self.assertEqual("own-datagram", caught.exception.rule)

    @given(st.data())
    def test_opening_its_own(self, data: st.DataObject):
        """A process opens its own datagrams if it is asked to, unchanged ones only."""
        sender = sealer(1)
        datagram = sender.seal(b"payload")
        self.assertEqual(b"payload", sender.open_own(datagram))
        forged = datagram[:30] + data.draw(strategies.mutations(datagram[30:]))
        with self.assertRaises(AuthenticationFailed):
            sender.open_own(forged)

    def test_nonce_never_repeats(self):
        """After 2^16 datagrams the boot id is new, so no (key, nonce) pair comes twice."""
        sender = sealer(1)
        before = sender.boot_id
        sender._counter = limits.COUNTER_MAX - 1
        last = read_header(sender.seal(b"p"))
        self.assertEqual((before, limits.COUNTER_MAX - 1), (last.boot_id, last.counter))
        after = read_header(sender.seal(b"p"))
        self.assertNotEqual(before, after.boot_id)
        self.assertEqual(0, after.counter)

    def test_renewed_sender_is_heard(self):
        """A sender with a new boot id starts afresh for its receivers."""
        sender, receiver = sealer(1, PRIVATE_NETWORK), sealer(2, PRIVATE_NETWORK)
        for _ in range(3):
            opened(receiver, sender.seal(b"p"))
        sender.renew()
        self.assertEqual(b"q", opened(receiver, sender.seal(b"q")))
        self.assertEqual(2, receiver.senders)

    def test_senders_are_bounded(self):
        """So many senders are kept; the one not heard for longest is forgotten."""
        receiver = sealer(0, PRIVATE_NETWORK)
        kept, forgotten = sealer(1, PRIVATE_NETWORK), sealer(2, PRIVATE_NETWORK)
        datagrams = [kept.seal(b"p"), forgotten.seal(b"p")]
        for datagram in [*datagrams, kept.seal(b"p")]:
            opened(receiver, datagram)
        for number in range(limits.ENVELOPE_SENDERS - 1):
            opened(receiver, sealer(10 + number, PRIVATE_NETWORK).seal(b"p"))
        self.assertEqual(limits.ENVELOPE_SENDERS, receiver.senders)
        self.assertEqual(b"p", opened(receiver, datagrams[1]), "what it sent is forgotten too")
        opened(receiver, kept.seal(b"p"))
        self.assertEqual(limits.ENVELOPE_SENDERS, receiver.senders)

    def test_datagrams_are_bounded(self):
        """So many datagrams are remembered in all; then the sender not heard for longest goes."""
        self.patch(limits, "ENVELOPE_TAKEN", 40)
        receiver = sealer(0, PRIVATE_NETWORK)
        first, second = sealer(1, PRIVATE_NETWORK), sealer(2, PRIVATE_NETWORK)
        of_first = [first.seal(b"p") for _ in range(20)]
        of_second = [second.seal(b"p") for _ in range(limits.ENVELOPE_TAKEN - 20)]
        for datagram in [*of_first, *of_second]:
            opened(receiver, datagram)
        self.assertEqual((2, limits.ENVELOPE_TAKEN), (receiver.senders, receiver.remembered))
        of_second.append(second.seal(b"p"))
        opened(receiver, of_second[-1])
        self.assertEqual((1, 21), (receiver.senders, receiver.remembered))
        for datagram in of_second:
            with self.assertRaises(AuthenticationFailed):
                opened(receiver, datagram)
        for datagram in of_first:
            opened(receiver, datagram)
        self.assertEqual(1, receiver.senders)

    def test_ciphers_are_bounded(self):
        """Ciphers are kept for the latest senders; any other's is made again."""
        receiver, first = sealer(0), sealer(1)
        opened(receiver, first.seal(b"p"))
        for number in range(limits.ENVELOPE_CIPHERS):
            opened(receiver, sealer(10 + number).seal(b"p"))
        self.assertEqual(limits.ENVELOPE_CIPHERS, len(receiver._ciphers))
        self.assertNotIn(first.boot_id, receiver._ciphers)
        self.assertEqual(b"q", opened(receiver, first.seal(b"q")))
        self.assertEqual(limits.ENVELOPE_CIPHERS, len(receiver._ciphers))


class ReplayTests(TestCase):
    """Private networks accept a datagram once; public ones as often as it comes (decision 6)."""

    def test_private_network(self):
        """The same datagram from the same address is dropped the second time."""
        receiver = sealer(2, PRIVATE_NETWORK)
        datagram = sealer(1, PRIVATE_NETWORK).seal(b"p")
        opened(receiver, datagram)
        with self.assertRaises(AuthenticationFailed) as caught:
            opened(receiver, datagram)
        self.assertEqual("replayed", caught.exception.rule)

    def test_public_network(self):
        """Everybody has the public key, and could use up a sender's counters."""
        receiver, sender = sealer(2), sealer(1)
        datagram = sender.seal(b"p")
        self.assertEqual(b"p", opened(receiver, datagram))
        self.assertEqual(b"p", opened(receiver, datagram))
        self.assertEqual(0, receiver.senders)

    def test_no_counter_silences_its_sender(self):
        """Whatever counter an insider forges under another's boot id, it costs one datagram."""
        receiver, sender = sealer(2, PRIVATE_NETWORK), sealer(1, PRIVATE_NETWORK)
        forger = sealer(3, PRIVATE_NETWORK)
        forger.boot_id, forger._cipher, forger._header = (
            sender.boot_id,
            sender._cipher,
            sender._header,
        )
        forger._counter = limits.COUNTER_MAX - 1
        opened(receiver, forger.seal(b"forged"))
        for _ in range(3):
            self.assertEqual(b"p", opened(receiver, sender.seal(b"p")))

    def test_long_pause(self):
        """A receiver that heard nothing for tens of thousands of datagrams hears the next one."""
        receiver, sender = sealer(2, PRIVATE_NETWORK), sealer(1, PRIVATE_NETWORK)
        opened(receiver, sender.seal(b"first"))
        for missed in (limits.COUNTER_MAX - 2, limits.COUNTER_MAX - 1):
            sender._counter = missed
            self.assertEqual(b"p", opened(receiver, sender.seal(b"p")))
        self.assertEqual(b"renewed", opened(receiver, sender.seal(b"renewed")))
        self.assertEqual(2, receiver.senders)

    def test_counters_that_no_node_uses(self):
        """A counter of COUNTER_MAX or more is dropped, whoever sealed it."""
        receiver, sender = sealer(2, PRIVATE_NETWORK), sealer(1, PRIVATE_NETWORK)
        for counter in (limits.COUNTER_MAX, 1 << 63):
            clear = sender._header + counter.to_bytes(8, "big")
            sealed = sender._cipher.encrypt(bytes(4) + clear[-8:], b"payload", clear)
            with self.assertRaises(AuthenticationFailed) as caught:
                opened(receiver, clear + sealed)
            self.assertEqual("counter-range", caught.exception.rule)
        self.assertEqual(0, receiver.senders)

    def test_forged_datagrams_are_not_remembered(self):
        """A counter counts as taken only once its datagram proved authentic."""
        receiver, sender = sealer(2, PRIVATE_NETWORK), sealer(1, PRIVATE_NETWORK)
        opened(receiver, sender.seal(b"p"))
        datagram = sender.seal(b"q")
        with self.assertRaises(AuthenticationFailed):
            opened(receiver, datagram[:-1] + bytes([datagram[-1] ^ 1]))
        self.assertEqual(b"q", opened(receiver, datagram))

    def test_every_bit(self):
        """No bit of a datagram can be flipped: each of them is refused, and none remembered."""
        receiver, sender = sealer(2, PRIVATE_NETWORK), sealer(1, PRIVATE_NETWORK)
        datagram = sender.seal(b"payload")
        for bit in range(8 * len(datagram)):
            flipped = bytearray(datagram)
            flipped[bit >> 3] ^= 1 << (bit & 7)
            with self.assertRaises((MalformedMessage, AuthenticationFailed)):
                opened(receiver, bytes(flipped))
        self.assertEqual(b"payload", opened(receiver, datagram))

    @given(st.lists(st.integers(0, limits.COUNTER_MAX - 1), max_size=60))
    def test_taken_against_a_set(self, counters: list[int]):
        """A counter is taken once it was added, and no other is; each is kept once."""
        taken = Taken()
        seen: set[int] = set()
        for counter in counters:
            self.assertEqual(counter in seen, counter in taken)
            taken.add(counter)
            seen.add(counter)
            near = {counter - 1, counter + 1, counter ^ 8}
            self.assertEqual(near & seen, {each for each in near if each >= 0 and each in taken})
        self.assertEqual(len(seen), len(taken))

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=80))
    def test_any_order(self, arrivals: list[tuple[int, int]]):
        """However datagrams of several senders are mixed up and repeated, each passes once."""
        receiver = sealer(9, PRIVATE_NETWORK)
        senders = [sealer(number, PRIVATE_NETWORK) for number in range(4)]
        sent = [[sender.seal(b"%d" % n) for n in range(31)] for sender in senders]
        passed = []
        for who, which in arrivals:
            with contextlib.suppress(AuthenticationFailed):
                passed.append((who, int(opened(receiver, sent[who][which]))))
        self.assertEqual(list(dict.fromkeys(arrivals)), passed)
