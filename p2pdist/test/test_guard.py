"""Tests of tokens, rate limits and the negative cache."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.overlay.guard import Guard, NegativeCache, RateLimit, TokenMint
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

HOST = Address("192.0.2.1", 7667)
PUBLIC = Address("8.8.8.8", 7667)
QID = b"q" * 12


def mint(seed: int = 1) -> TokenMint:
    """Return a mint of its own secrets."""
    return TokenMint(random.Random(seed).randbytes)


class TokenTests(TestCase):
    """What proves that an address receives what is sent to it."""

    def test_sizes(self):
        """A token has 8 bytes, a cookie 12."""
        self.assertEqual(limits.TOKEN_BYTES, len(mint().token(HOST, 0.0)))
        self.assertEqual(limits.COOKIE_BYTES, len(mint().cookie(HOST, QID, 0.0)))

    @given(strategies.addresses(), strategies.addresses())
    def test_bound_to_the_address(self, address: Address, other: Address):
        """A token or cookie is good for its address, and for no other one or query."""
        made = mint()
        token, cookie = made.token(address, 0.0), made.cookie(address, QID, 0.0)
        self.assertEqual(address == other, made.token_ok(other, token, 0.0))
        self.assertEqual(address == other, made.cookie_ok(other, QID, cookie, 0.0))
        self.assertFalse(made.cookie_ok(address, b"r" * 12, cookie, 0.0))
        self.assertFalse(mint(2).token_ok(address, token, 0.0))
        self.assertNotEqual(token, cookie[: limits.TOKEN_BYTES])

    def test_tokens_at_hand_are_bounded(self):
        """The tokens of so many addresses are at hand; whose is not gets the same one again."""
        made = mint()
        first = made.token(HOST, 0.0)
        self.assertEqual(1, made.at_hand)
        for port in range(1, limits.TOKEN_CACHE + 2):
            self.assertTrue(
                made.token_ok(address := Address("10.1.1.1", port), made.token(address, 0.0), 0.0)
            )
        self.assertEqual(limits.TOKEN_CACHE, made.at_hand)
        self.assertEqual(first, made.token(HOST, 0.0))
        made.token(HOST, limits.TOKEN_EPOCH_S)
        self.assertEqual(1, made.at_hand)

    def test_two_epochs(self):
        """Both are good in their epoch and the next, not in the one after that."""
        made = mint()
        start = 7 * limits.TOKEN_EPOCH_S
        token, cookie = made.token(HOST, start), made.cookie(HOST, QID, start)
        for passed, good in [(0.0, True), (0.9, True), (1.0, True), (1.9, True), (2.0, False)]:
            now = start + passed * limits.TOKEN_EPOCH_S
            self.assertIs(good, made.token_ok(HOST, token, now), passed)
            self.assertIs(good, made.cookie_ok(HOST, QID, cookie, now), passed)

    def test_silent_epoch(self):
        """A mint that was not asked for a whole epoch honours nothing older."""
        made = mint()
        token = made.token(HOST, 0.0)
        self.assertFalse(made.token_ok(HOST, token, 2 * limits.TOKEN_EPOCH_S))

    def test_empty_secret_is_none(self):
        """Before a first epoch has ended nothing made with an empty key passes."""
        made = mint()
        forged = TokenMint(lambda _size: b"")
        self.assertFalse(made.token_ok(HOST, forged.token(HOST, 0.0), 0.0))
        self.assertFalse(made.cookie_ok(HOST, QID, forged.cookie(HOST, QID, 0.0), 0.0))

    @given(st.binary(max_size=20))
    def test_guesses(self, guess: bytes):
        """Bytes of any size that are no token are False, never an exception."""
        self.assertFalse(mint().token_ok(HOST, guess, 0.0))
        self.assertFalse(mint().cookie_ok(HOST, QID, guess, 0.0))


class RateLimitTests(TestCase):
    """Token buckets."""

    @given(
        st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 4)), min_size=1, max_size=50),
        st.floats(0.1, 5),
        st.floats(1, 10),
    )
    def test_never_more_than_burst_and_rate(
        self, asks: list[tuple[float, float]], per_second: float, burst: float
    ):
        """Over any time no more is allowed than the burst and what flowed in since."""
        limit: RateLimit[str] = RateLimit((per_second, burst))
        now, allowed = 0.0, 0.0
        for passed, cost in asks:
            now += passed
            if limit.allow("k", now, cost):
                allowed += cost
            self.assertLessEqual(allowed, burst + now * per_second + 1e-6)

    def test_refusal_costs_nothing(self):
        """What is refused takes nothing; time fills the bucket up to the burst, not further."""
        limit: RateLimit[str] = RateLimit((1.0, 2.0))
        self.assertTrue(limit.allow("k", 0.0, 2.0))
        self.assertFalse(limit.allow("k", 0.5))
        self.assertTrue(limit.allow("k", 1.0))
        self.assertEqual([True, True, False], [limit.allow("k", 100.0) for _ in range(3)])

    @given(st.floats(0, 1e7), st.sampled_from([limits.RATE_PING, limits.RATE_RELAY_BYTES]))
    def test_whole_burst_at_any_time(self, now: float, rate: tuple[float, float]):
        """However long the clock has run, a full bucket gives its burst and not a unit more."""
        limit: RateLimit[str] = RateLimit(rate)
        allowed = [limit.allow("k", now, rate[1] / 8) for _ in range(9)]
        self.assertEqual([True] * 8 + [False], allowed)

    def test_clock_going_back(self):
        """Time that goes back gives and takes nothing."""
        limit: RateLimit[str] = RateLimit((1.0, 1.0))
        self.assertTrue(limit.allow("k", 10.0))
        self.assertFalse(limit.allow("k", 5.0))

    def test_keys_are_bounded(self):
        """So many keys are remembered, the longest unused is forgotten."""
        limit: RateLimit[int] = RateLimit((0.0, 1.0))
        for key in range(limits.RATE_KEYS):
            self.assertTrue(limit.allow(key, 0.0))
        self.assertFalse(limit.allow(0, 0.0), "used again")
        self.assertTrue(limit.allow(-1, 0.0))
        self.assertEqual(limits.RATE_KEYS, len(limit))
        self.assertFalse(limit.allow(0, 0.0), "still known")
        self.assertTrue(limit.allow(1, 0.0), "forgotten")


class NegativeCacheTests(TestCase):
    """Addresses that did not answer."""

    def test_held_for_a_while(self):
        """An address is left alone for ten minutes, or until it speaks."""
        cache = NegativeCache()
        self.assertFalse(cache.holds(HOST, 0.0))
        cache.add(HOST, 0.0)
        self.assertTrue(cache.holds(HOST, limits.NEGATIVE_CACHE_S - 0.1))
        self.assertFalse(cache.holds(HOST, limits.NEGATIVE_CACHE_S))
        cache.discard(HOST)
        cache.discard(HOST)
        self.assertFalse(cache.holds(HOST, 0.0))

    def test_lonely(self):
        """Who knows nobody else asks again after LONELY_RETRY_S, each time anew."""
        cache = NegativeCache()
        self.assertFalse(cache.holds(HOST, 0.0, lonely=True))
        for asked in (0.0, limits.LONELY_RETRY_S):
            cache.add(HOST, asked)
            self.assertTrue(cache.holds(HOST, asked + limits.LONELY_RETRY_S - 0.1, lonely=True))
            self.assertFalse(cache.holds(HOST, asked + limits.LONELY_RETRY_S, lonely=True))
            self.assertTrue(cache.holds(HOST, asked + limits.LONELY_RETRY_S))

    def test_bounded(self):
        """The oldest goes first; an address added again counts as new."""
        cache = NegativeCache()
        for port in range(1, limits.NEGATIVE_CACHE + 1):
            cache.add(Address("192.0.2.1", port), 0.0)
        cache.add(Address("192.0.2.1", 1), 1.0)
        cache.add(PUBLIC, 2.0)
        self.assertEqual(limits.NEGATIVE_CACHE, len(cache))
        self.assertTrue(cache.holds(Address("192.0.2.1", 1), 2.0))
        self.assertFalse(cache.holds(Address("192.0.2.1", 2), 2.0))

    def test_host_with_silent_ports(self):
        """SILENT_PORTS silent ports of a global host end all tries there, until they are old."""
        cache = NegativeCache()
        for port in range(1, limits.SILENT_PORTS):
            cache.add(Address("8.8.8.8", port), 0.0)
        other = Address("8.8.8.8", 999)
        self.assertFalse(cache.holds(other, 0.0))
        cache.add(Address("8.8.8.8", limits.SILENT_PORTS), 1.0)
        cache.add(Address("8.8.8.8", limits.SILENT_PORTS), 1.0)
        self.assertTrue(cache.holds(other, 1.0))
        self.assertFalse(cache.holds(Address("8.8.4.4", 999), 1.0))
        self.assertFalse(cache.holds(other, limits.NEGATIVE_CACHE_S))
        cache.add(Address("8.8.8.8", 1), limits.NEGATIVE_CACHE_S)
        self.assertFalse(cache.holds(other, limits.NEGATIVE_CACHE_S))

    def test_local_ports_are_hosts(self):
        """On loopback and private networks every port may be another node: tests, containers."""
        cache = NegativeCache()
        for port in range(1, 2 * limits.SILENT_PORTS):
            cache.add(Address("10.0.0.1", port), 0.0)
        self.assertFalse(cache.holds(Address("10.0.0.1", 999), 0.0))


class GuardTests(TestCase):
    """Which limit counts by what."""

    def setUp(self):
        """Make a guard."""
        self.guard = Guard(random.Random(1).randbytes)

    def allowed(self, ask: Callable[[], bool]) -> int:
        """Return how often in a row the answer is yes, at one moment."""
        count = 0
        while count < 1000 and ask():
            count += 1
        return count

    def test_bursts(self):
        """At one moment an address may ask as often as the burst of each limit says."""
        guard = self.guard
        bursts = [
            (limits.RATE_PING, lambda: guard.ping(PUBLIC, 0.0)),
            (limits.RATE_REQUEST, lambda: guard.request(PUBLIC, 0.0)),
            (limits.RATE_CHALLENGE, lambda: guard.challenge(PUBLIC, 0.0)),
            (limits.RATE_FIRST_HOP, lambda: guard.first_hop(PUBLIC, 0.0)),
            (limits.RATE_OFFER, lambda: guard.offer(PUBLIC, 0.0)),
            (limits.RATE_ANNOUNCE, lambda: guard.announce(PUBLIC, 0.0)),
        ]
        for (_, burst), ask in bursts:
            self.assertEqual(burst, self.allowed(ask))

    def test_time_gives_back(self):
        """After the burst, the rate decides."""
        rate, _ = limits.RATE_PING
        self.allowed(lambda: self.guard.ping(PUBLIC, 0.0))
        self.assertEqual(rate, self.allowed(lambda: self.guard.ping(PUBLIC, 1.0)))

    def test_ports_of_a_public_host_count_together(self):
        """A global host cannot multiply itself by ports; a private or loopback one may."""
        for host, together in [("8.8.8.8", True), ("127.0.0.1", False), ("10.0.0.1", False)]:
            guard = Guard(random.Random(1).randbytes)
            first, second = Address(host, 1), Address(host, 2)
            self.allowed(lambda: guard.request(first, 0.0))  # noqa: B023 -- used at once
            self.assertIs(not together, guard.request(second, 0.0))

    def test_forwarding_counts_neighbour_and_source(self):
        """One neighbour may carry many sources, each source little; many carry no more of one."""
        sources = [Address(f"8.8.{number}.1", 1) for number in range(200)]
        neighbours = [Address(f"9.9.{number}.1", 1) for number in range(200)]
        guard = Guard(random.Random(1).randbytes)
        count = sum(guard.forward(neighbours[0], source, 0.0) for source in sources)
        self.assertEqual(limits.RATE_FORWARD[1], count)
        guard = Guard(random.Random(1).randbytes)
        count = sum(guard.forward(neighbour, sources[0], 0.0) for neighbour in neighbours)
        self.assertEqual(limits.RATE_SOURCE[1], count)

    def test_offers_into_one_subnet(self):
        """A subnet gets a bounded number of offers, however many of its addresses are named."""
        targets = [Address(f"8.8.8.{number}", 1) for number in range(1, 200)]
        count = sum(self.guard.offer(target, 0.0) for target in targets)
        self.assertEqual(limits.RATE_OFFER_SUBNET[1], count)
        local = [Address(f"10.0.0.{number}", 1) for number in range(1, 200)]
        self.assertTrue(all(self.guard.offer(target, 0.0) for target in local))

    def test_challenges_in_all(self):
        """All strangers together get a bounded number of challenges."""
        strangers = [Address(f"8.{number}.8.8", 1) for number in range(250)]
        count = sum(self.guard.challenge(stranger, 0.0) for stranger in strangers)
        self.assertEqual(limits.RATE_CHALLENGE_ALL[1], count)

    def test_bytes_for_others(self):
        """What is sent for others is counted in bytes, for all of them together."""
        burst = int(limits.RATE_RELAY_BYTES[1])
        self.assertTrue(self.guard.relay(burst - 1, 0.0))
        self.assertFalse(self.guard.relay(2, 0.0))
        self.assertTrue(self.guard.relay(1, 0.0))

    def test_silent_and_mint_are_there(self):
        """A guard has its own mint and negative cache."""
        token = self.guard.mint.token(HOST, 0.0)
        self.assertTrue(self.guard.mint.token_ok(HOST, token, 0.0))
        self.assertEqual(0, len(self.guard.silent))
