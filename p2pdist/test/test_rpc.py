"""Tests of calls to one address: tries, timeouts, tokens, matching of replies, bounds.

The other side is the test itself: it reads what was sent and hands over replies, on a Clock.
"""

from __future__ import annotations

import random
from typing import Any

import attrs
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.errors import (
    CalledOneself,
    CallLimitReached,
    NodeStopped,
    RequestRefused,
    RequestTimedOut,
)
from p2pdist.ids import NodeID, Topic
from p2pdist.overlay.messages import (
    NO_TOKEN,
    Challenge,
    Error,
    ErrorCode,
    Find,
    Forwarded,
    Found,
    GetPeers,
    Message,
    Noted,
    Ping,
    Pong,
    Reply,
    Request,
    Verdict,
)
from p2pdist.overlay.path import Path, Paths
from p2pdist.overlay.rpc import RPC, ReplyCache
from p2pdist.test.support import TestCase, given

OWN = NodeID(b"o" * 20)
OTHER = NodeID(b"x" * 20)
THERE = Address("192.0.2.9", 7667)
ELSEWHERE = Address("192.0.2.77", 7667)
TOKEN = b"k" * limits.TOKEN_BYTES
TOPIC = Topic(b"t" * 20)
FIND = Find(node_id=OWN, target=TOPIC)
PING = Ping(node_id=OWN)


class PathTests(TestCase):
    """What is known of the way to one address."""

    def test_stranger(self):
        """Without a sample the first timeout is that for strangers."""
        self.assertEqual(limits.RTO_STRANGER_S, Path().rto_s())

    def test_rfc_6298(self):
        """Samples of 100 and 200 ms give the SRTT, RTTVAR and RTO of RFC 6298, section 2."""
        path = Path()
        path.sample(0.1, 1.0)
        self.assertEqual((0.1, 0.05), (path.srtt_s, path.rttvar_s))
        self.assertAlmostEqual(0.3, path.rto_s())
        path.sample(0.2, 2.0)
        self.assertAlmostEqual(0.0625, path.rttvar_s)
        self.assertAlmostEqual(0.1125, path.srtt_s or 0)
        self.assertAlmostEqual(0.3625, path.rto_s())

    def test_steady_paths(self):
        """Where times hardly vary the timeout keeps a floor above the round trip."""
        path = Path()
        for _ in range(100):
            path.sample(0.1, 0.0)
        self.assertAlmostEqual(0.1 + limits.RTO_VARIANCE_FLOOR_S, path.rto_s())

    @given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
    def test_timeout_is_bounded(self, samples: list[float]):
        """Whatever is measured, a timeout is from 0.05 to 3 s."""
        path = Path()
        for sample in samples:
            path.sample(sample, 0.0)
        self.assertGreaterEqual(path.rto_s(), limits.RTO_MIN_S)
        self.assertLessEqual(path.rto_s(), limits.RTO_MAX_S)

    def test_sample_heals(self):
        """An answer ends a row of misses."""
        path = Path(misses=2)
        path.sample(0.1, 5.0)
        self.assertEqual((0, 5.0), (path.misses, path.heard_at))

    def test_tokens_age(self):
        """A token is worth trying for two epochs."""
        path = Path()
        self.assertFalse(path.has_token(0.0))
        path.grant(TOKEN, 10.0)
        self.assertTrue(path.has_token(10.0 + 2 * limits.TOKEN_EPOCH_S - 1))
        self.assertFalse(path.has_token(10.0 + 2 * limits.TOKEN_EPOCH_S))

    def test_paths_are_bounded(self):
        """So many addresses are remembered; looking at one without using it does not keep it."""
        paths = Paths()
        for port in range(1, limits.RTT_ENTRIES + 1):
            paths[Address("10.0.0.1", port)].misses = 1
        self.assertEqual(1, paths[Address("10.0.0.1", 1)].misses)
        paths.peek(Address("10.0.0.1", 2))
        paths[Address("10.0.0.2", 1)].misses = 1
        self.assertEqual(limits.RTT_ENTRIES, len(paths))
        self.assertIsNotNone(paths.peek(Address("10.0.0.1", 1)))
        self.assertIsNone(paths.peek(Address("10.0.0.1", 2)))


class CallCase(TestCase):
    """An RPC whose datagrams the test reads."""

    def setUp(self):
        """Start with nothing sent and nothing known."""
        self.clock = Clock()
        self.sent: list[tuple[float, Address, Any]] = []
        self.heard: list[tuple[Address, NodeID]] = []
        self.missed: list[Address] = []
        chance = random.Random(1)
        self.rpc = RPC(
            self.clock,
            chance,
            chance.randbytes,
            OWN,
            self.transmit,
            heard=lambda address, pong: self.heard.append((address, pong.node_id)),
            missed=self.missed.append,
        )

    def tearDown(self):
        """Leave nothing to be called later."""
        self.rpc.stop()
        self.assertEqual([], self.clock.getDelayedCalls())

    def transmit(self, address: Address, message: Message) -> None:
        """Record what is put on the wire."""
        self.sent.append((self.clock.seconds(), address, message))

    def befriend(self, address: Address = THERE, rtt_s: float = 0.1) -> None:
        """Make ``address`` one that answered and gave a token."""
        path = self.rpc.paths[address]
        path.sample(rtt_s, self.clock.seconds())
        path.grant(TOKEN, self.clock.seconds())

    def pass_time(self, seconds: float) -> None:
        """Let time pass, from event to event."""
        end = self.clock.seconds() + seconds
        while due := [c.getTime() for c in self.clock.getDelayedCalls() if c.getTime() <= end]:
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    @property
    def requests(self) -> list[Any]:
        """Return every request sent."""
        return [message for _, _, message in self.sent]

    @property
    def times(self) -> list[float]:
        """Return when each was sent."""
        return [time for time, _, _ in self.sent]

    def answer(self, request: Request, kind: type[Reply] = Found, **more: Any) -> None:
        """Hand over a reply from the address that was called."""
        source = more.pop("source", THERE)
        attempt = more.pop("attempt", request.attempt)
        self.rpc.reply_received(source, kind(rid=request.rid, attempt=attempt, **more))

    def pong(self, request: Request) -> None:
        """Answer a ping."""
        observed = Address("192.0.2.1", 7667)
        self.answer(request, Pong, node_id=OTHER, token=TOKEN, observed=observed)


class AnswerTests(CallCase):
    """Calls that end well."""

    def test_reply_fires(self):
        """The reply fires the Deferred; round-trip time is measured; nothing stays behind."""
        self.befriend(rtt_s=0.2)
        call = self.rpc.call(THERE, FIND)
        self.assertEqual(
            (TOKEN, 0, FIND.target),
            (self.requests[0].token, self.requests[0].attempt, self.requests[0].target),
        )
        self.pass_time(0.04)
        self.assert_waiting(call)
        self.answer(self.requests[0])
        self.assertIsInstance(self.result_of(call), Found)
        self.assertAlmostEqual(0.875 * 0.2 + 0.125 * 0.04, self.rpc.paths[THERE].srtt_s or 0)
        self.assertEqual(0, self.rpc.outstanding)
        self.pass_time(limits.RTO_MAX_S)
        self.assertEqual(([], 1), (self.clock.getDelayedCalls(), len(self.sent)))

    def test_each_try_is_a_clean_sample(self):
        """A reply is measured against the try it answers, late or not (no Karn ambiguity)."""
        for answered, rtt_s in [(0, 0.4), (1, 0.1)]:
            self.setUp()
            self.befriend(rtt_s=0.1)
            call = self.rpc.call(THERE, FIND)
            self.pass_time(0.4)
            self.assertEqual([0, 1], [request.attempt for request in self.requests])
            self.answer(self.requests[answered])
            self.result_of(call)
            expected = 0.875 * 0.1 + 0.125 * rtt_s
            self.assertAlmostEqual(expected, self.rpc.paths[THERE].srtt_s or 0)

    def test_duplicate_replies(self):
        """A second reply is counted and dropped."""
        self.befriend()
        call = self.rpc.call(THERE, FIND)
        self.answer(self.requests[0])
        self.answer(self.requests[0])
        self.result_of(call)
        self.assertEqual(1, self.rpc.mismatched)

    def test_foreign_source(self):
        """A reply from another address counts by its rid; the contact keeps its address."""
        self.befriend()
        call = self.rpc.call(THERE, FIND)
        self.answer(self.requests[0], source=ELSEWHERE)
        self.assertIsInstance(self.result_of(call), Found)
        self.assertEqual(1, self.rpc.mismatched)
        self.assertIsNone(self.rpc.paths.peek(ELSEWHERE))

    def test_false_replies(self):
        """Unknown rid, a try never made, another type: counted, and the call goes on."""
        self.befriend()
        call = self.rpc.call(THERE, FIND)
        self.answer(attrs.evolve(self.requests[0], rid=b"?" * 8))
        self.answer(self.requests[0], attempt=1)
        self.answer(self.requests[0], Noted)
        self.assertEqual(3, self.rpc.mismatched)
        self.assert_waiting(call)
        self.answer(self.requests[0])
        self.result_of(call)

    def test_refusal(self):
        """An error reply fails the call with its code."""
        self.befriend()
        call = self.rpc.call(THERE, FIND)
        self.answer(self.requests[0], Error, error=ErrorCode.FULL)
        error = self.error_of(call, RequestRefused)
        self.assertEqual(
            (ErrorCode.FULL, THERE, "Found"), (error.code, error.address, error.method)
        )
        self.assertEqual([], self.missed)

    def test_replies_renew_the_token(self):
        """A token in any reply is kept for the next call."""
        self.befriend()
        call = self.rpc.call(THERE, GetPeers(node_id=OWN, qid=b"q" * 12, topic=TOPIC))
        fresh = b"f" * limits.TOKEN_BYTES
        self.answer(self.requests[0], Forwarded, verdict=Verdict.TAKEN, units=0, token=fresh)
        self.result_of(call)
        self.rpc.call(THERE, FIND).addErrback(lambda _: None)
        self.assertEqual(fresh, self.requests[-1].token)

    def test_pongs_identify(self):
        """A pong tells who is at the address that was asked."""
        call = self.rpc.ping(THERE)
        self.pong(self.requests[0])
        self.assertIsInstance(self.result_of(call), Pong)
        self.assertEqual([(THERE, OTHER)], self.heard)
        self.assertTrue(self.rpc.paths[THERE].has_token(0.0))


class TimeoutTests(CallCase):
    """Tries, back-off and giving up."""

    def test_backs_off(self):
        """Three tries, the pauses doubling with a jitter of 20 %, then the call times out."""
        self.befriend(rtt_s=0.1)
        call = self.rpc.call(THERE, FIND)
        self.pass_time(30)
        self.assertEqual(limits.TRIES, len(self.sent))
        rto = 0.3
        self.assertAlmostEqual(rto, self.times[1])
        spread = limits.RTO_JITTER
        pause = self.times[2] - self.times[1]
        self.assertTrue(2 * rto * (1 - spread) <= pause <= 2 * rto * (1 + spread), pause)
        self.assertNotAlmostEqual(2 * rto, pause)
        error = self.error_of(call, RequestTimedOut)
        self.assertEqual(limits.TRIES, error.attempts)
        last = error.elapsed_s - self.times[2]
        self.assertTrue(4 * rto * (1 - spread) <= last <= 4 * rto * (1 + spread), last)
        self.assertEqual([THERE], self.missed)
        self.assertEqual(1, self.rpc.paths[THERE].misses)

    def test_every_try_names_itself(self):
        """Tries share the rid and are numbered."""
        self.befriend()
        self.rpc.call(THERE, FIND).addErrback(lambda _: None)
        self.pass_time(30)
        self.assertEqual(1, len({request.rid for request in self.requests}))
        self.assertEqual([0, 1, 2], [request.attempt for request in self.requests])

    def test_pauses_are_bounded(self):
        """No pause exceeds the largest timeout, however often it doubled."""
        self.befriend(rtt_s=2.0)
        self.rpc.call(THERE, FIND, tries=8).addErrback(lambda _: None)
        self.pass_time(60)
        self.assertEqual(8, len(self.sent))
        pauses = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        self.assertLessEqual(max(pauses), limits.RTO_MAX_S + 1e-9)

    def test_deadline(self):
        """A deadline ends the call whatever tries are left."""
        self.befriend(rtt_s=0.1)
        call = self.rpc.call(THERE, FIND, tries=100, deadline_s=1.0)
        self.pass_time(5)
        self.assertAlmostEqual(1.0, self.error_of(call, RequestTimedOut).elapsed_s)

    def test_one_try(self):
        """A call of one try is over after one timeout."""
        self.befriend(rtt_s=0.1)
        call = self.rpc.call(THERE, FIND, tries=1)
        self.pass_time(0.31)
        self.assertEqual(1, self.error_of(call, RequestTimedOut).attempts)

    def test_cancel(self):
        """A cancelled call is forgotten; its reply is a stranger's."""
        self.befriend()
        call = self.rpc.call(THERE, FIND)
        other = self.rpc.call(THERE, FIND)
        call.cancel()
        self.failureResultOf(call)
        self.assertEqual(1, self.rpc.outstanding)
        self.answer(self.requests[0])
        self.assertEqual(1, self.rpc.mismatched)
        self.answer(self.requests[1])
        self.result_of(other)
        self.pass_time(limits.RTO_MAX_S)
        self.assertEqual(([], 2), (self.clock.getDelayedCalls(), len(self.sent)))


class FirstContactTests(CallCase):
    """An address that never answered gets a ping, and nothing larger (decision 8)."""

    def test_ping_comes_first(self):
        """A stranger gets a ping without a token; the request follows its pong at once."""
        call = self.rpc.call(THERE, FIND)
        self.assertEqual([Ping], [type(request) for request in self.requests])
        self.assertEqual(NO_TOKEN, self.requests[0].token)
        self.pass_time(0.1)
        self.pong(self.requests[0])
        self.assertEqual([Ping, Find], [type(request) for request in self.requests])
        self.assertEqual((0.1, TOKEN), (self.times[1], self.requests[1].token))
        self.answer(self.requests[1])
        self.result_of(call)

    def test_one_ping_for_all_calls(self):
        """Several calls to one stranger share its first ping, and go out together."""
        calls = [self.rpc.call(THERE, FIND) for _ in range(4)]
        self.assertEqual([Ping], [type(request) for request in self.requests])
        self.pass_time(0.1)
        self.pong(self.requests[0])
        self.assertEqual([Ping, *[Find] * 4], [type(request) for request in self.requests])
        for request in self.requests[1:]:
            self.answer(request)
        for call in calls:
            self.result_of(call)

    def test_silent_stranger(self):
        """Three pings within two seconds, then the call fails; the request never goes out."""
        call = self.rpc.call(THERE, FIND)
        self.pass_time(limits.FIRST_CONTACT_WINDOW_S)
        error = self.error_of(call, RequestTimedOut)
        self.assertEqual(limits.FIRST_CONTACT_TRIES, error.attempts)
        self.assertAlmostEqual(limits.FIRST_CONTACT_WINDOW_S, error.elapsed_s)
        self.assertEqual({Ping}, {type(request) for request in self.requests})
        self.assertEqual(limits.RTO_STRANGER_S, self.times[1])
        self.assertEqual(0, self.rpc.outstanding)

    def test_cancelled_meanwhile(self):
        """A call cancelled during its first ping sends nothing more, pong or not."""
        for answered in (True, False):
            call = self.rpc.call(THERE, FIND)
            ping = self.requests[-1]
            call.cancel()
            self.failureResultOf(call)
            if answered:
                self.pong(ping)
                self.rpc.paths = Paths()
            else:
                self.pass_time(limits.FIRST_CONTACT_WINDOW_S)
        self.assertEqual({Ping}, {type(request) for request in self.requests})
        self.assertEqual(0, self.rpc.outstanding)


class ChallengeTests(CallCase):
    """An address whose token went stale."""

    def challenge(self, request: Request, token: bytes = b"f" * 8) -> None:
        """Answer a request with a challenge."""
        self.answer(request, Challenge, token=token)

    def test_goes_on_at_once(self):
        """The next try goes out at once with the new token, and does not count."""
        self.befriend()
        call = self.rpc.call(THERE, FIND, tries=1)
        self.pass_time(0.05)
        self.challenge(self.requests[0])
        self.assertEqual([0.0, 0.05], self.times)
        self.assertEqual(b"f" * 8, self.requests[1].token)
        self.assertEqual(self.requests[0].rid, self.requests[1].rid)
        self.pass_time(0.05)
        self.answer(self.requests[1])
        self.result_of(call)

    def test_built_requests_see_the_token(self):
        """A request that covers its token is built anew for each."""
        self.befriend()
        built: list[tuple[bytes, bytes]] = []

        def build(rid: bytes, token: bytes) -> Find:
            built.append((rid, token))
            return Find(node_id=OWN, target=FIND.target, rid=rid, token=token)

        self.rpc.call_built(THERE, build, Found).addErrback(lambda _: None)
        self.challenge(self.requests[0])
        self.assertEqual([TOKEN, b"f" * 8], [token for _, token in built])

    def test_samples_stay_clean(self):
        """The try after a challenge has a number of its own: a repeated challenge is no sample."""
        self.befriend(rtt_s=0.1)
        self.rpc.call(THERE, FIND).addErrback(lambda _: None)
        self.pass_time(0.1)
        self.challenge(self.requests[0])
        self.pass_time(0.01)
        self.challenge(self.requests[0])
        self.assertEqual([0, 1, 2], [request.attempt for request in self.requests])
        self.assertGreaterEqual(self.rpc.paths[THERE].srtt_s or 0, 0.1 - 1e-9)

    def test_only_challenges(self):
        """A node that only ever challenges counts as silent, after few more datagrams."""
        self.befriend()
        call = self.rpc.call(THERE, FIND)
        for _ in range(20):
            self.challenge(self.requests[-1])
        self.assertEqual(1 + limits.CHALLENGES_PER_CALL, len(self.sent))
        self.pass_time(60)
        self.error_of(call, RequestTimedOut)
        self.assertEqual(limits.TRIES + limits.CHALLENGES_PER_CALL, len(self.sent))
        self.assertEqual([THERE], self.missed)


class LateReplyTests(CallCase):
    """Calls that go on listening: a get_peers that was taken may be handed back."""

    def walk(self, linger_s: float = 3.0) -> tuple[Deferred[Reply], list[Verdict]]:
        """Call with a get_peers; return the call and what came late."""
        self.befriend()
        late: list[Verdict] = []

        def build(rid: bytes, token: bytes) -> GetPeers:
            return GetPeers(node_id=OWN, rid=rid, token=token, qid=b"q" * 12, topic=TOPIC)

        def came(reply: Reply) -> None:
            assert isinstance(reply, Forwarded)
            late.append(reply.verdict)

        called = self.rpc.call_built(THERE, build, Forwarded, late=came, linger_s=linger_s)
        return called, late

    def verdict(self, verdict: Verdict) -> None:
        """Answer the last request."""
        self.answer(self.requests[-1], Forwarded, verdict=verdict, units=1, token=TOKEN)

    def test_late_refusal(self):
        """A second reply within the time is handed over; other types and later ones are not."""
        call, late = self.walk()
        self.verdict(Verdict.TAKEN)
        self.result_of(call)
        self.pass_time(1)
        self.verdict(Verdict.NO_ROUTE)
        self.answer(self.requests[-1], Noted)
        self.assertEqual([Verdict.NO_ROUTE], late)
        self.pass_time(2)
        self.verdict(Verdict.BUSY)
        self.assertEqual([Verdict.NO_ROUTE], late)
        self.assertEqual(0, self.rpc.outstanding)

    def test_lingering_is_not_open(self):
        """A call that only listens does not count against its address."""
        for _ in range(limits.CALLS_PER_ADDRESS + 2):
            call, _ = self.walk()
            self.verdict(Verdict.TAKEN)
            self.result_of(call)

    def test_no_lingering_after_failure(self):
        """A call that timed out does not listen any more."""
        call, late = self.walk()
        self.pass_time(10)
        self.error_of(call, RequestTimedOut)
        self.verdict(Verdict.TAKEN)
        self.assertEqual(([], 1, 0), (late, self.rpc.mismatched, self.rpc.outstanding))

    def test_stop(self):
        """Stopping ends the listening too."""
        call, late = self.walk()
        self.verdict(Verdict.TAKEN)
        self.result_of(call)
        self.rpc.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.verdict(Verdict.NO_ROUTE)
        self.assertEqual([], late)


class CameBackTests(CallCase):
    """An address that turns out to be our own."""

    def test_call_fails(self):
        """A request of ours that arrives here fails its call, at once."""
        self.befriend()
        call = self.rpc.call(THERE, FIND)
        self.assertTrue(self.rpc.came_back(THERE, self.requests[0].rid))
        self.assertEqual(THERE, self.error_of(call, CalledOneself).address)
        self.assertEqual([], self.missed)

    def test_first_contact(self):
        """The ping of a first contact that comes back fails the call behind it."""
        call = self.rpc.call(THERE, FIND)
        self.assertTrue(self.rpc.came_back(THERE, self.requests[0].rid))
        self.error_of(call, CalledOneself)
        self.assertEqual(0, self.rpc.outstanding)

    def test_others_are_not_believed(self):
        """Without an open call of this rid to that address nothing happens."""
        self.befriend()
        call = self.rpc.call(THERE, FIND)
        rid = self.requests[0].rid
        self.assertFalse(self.rpc.came_back(THERE, b"?" * 8))
        self.assertFalse(self.rpc.came_back(ELSEWHERE, rid))
        self.assert_waiting(call)
        self.answer(self.requests[0])
        self.result_of(call)
        self.assertFalse(self.rpc.came_back(THERE, rid))

    def test_answered_calls_stay(self):
        """A call that was answered and only listens is none of its business."""
        self.befriend()
        call = self.rpc.call_built(
            THERE,
            lambda rid, token: attrs.evolve(FIND, rid=rid, token=token),
            Found,
            late=lambda _reply: None,
            linger_s=1.0,
        )
        self.answer(self.requests[0])
        self.result_of(call)
        self.assertFalse(self.rpc.came_back(THERE, self.requests[0].rid))
        self.assertEqual(1, self.rpc.outstanding)


class BoundTests(CallCase):
    """How much may be under way, and the end of it all."""

    def test_calls_per_address(self):
        """One address takes so many calls at once; an answer makes room."""
        self.befriend()
        calls = [self.rpc.call(THERE, FIND) for _ in range(limits.CALLS_PER_ADDRESS)]
        error = self.error_of(self.rpc.call(THERE, FIND), CallLimitReached)
        self.assertEqual(THERE, error.address)
        self.assertEqual(limits.CALLS_PER_ADDRESS, len(self.sent))
        self.answer(self.requests[0])
        self.result_of(calls[0])
        self.assert_waiting(self.rpc.call(THERE, FIND).addErrback(lambda _: None))
        for call in calls[1:]:
            call.addErrback(lambda _: None)

    def test_calls_in_all(self):
        """All addresses together take so many."""
        for number in range(limits.CALLS_OUTSTANDING):
            address = Address(f"10.0.{number >> 8}.{number & 255}", 1)
            self.rpc.call(address, PING).addErrback(lambda _: None)
        self.assertEqual(limits.CALLS_OUTSTANDING, self.rpc.outstanding)
        self.error_of(self.rpc.call(THERE, FIND), CallLimitReached)

    def test_no_room_for_the_ping(self):
        """A first contact whose ping finds no room fails like any call."""
        for _ in range(limits.CALLS_PER_ADDRESS - 1):
            self.rpc.call(THERE, PING).addErrback(lambda _: None)
        self.error_of(self.rpc.call(THERE, FIND), CallLimitReached)
        self.assertEqual(limits.CALLS_PER_ADDRESS - 1, self.rpc.outstanding)

    def test_stop(self):
        """Stopping fails every open call with NodeStopped, first contacts too, and later ones."""
        self.befriend()
        calls = [self.rpc.call(THERE, FIND), self.rpc.call(ELSEWHERE, FIND)]
        self.rpc.stop()
        for call in calls:
            self.error_of(call, NodeStopped)
        self.assertEqual(([], 0), (self.clock.getDelayedCalls(), self.rpc.outstanding))
        self.error_of(self.rpc.call(THERE, FIND), NodeStopped)
        self.error_of(self.rpc.ping(THERE), NodeStopped)
        self.assertEqual([], self.missed)

    def test_cancelling_while_stopping(self):
        """Whoever learns of the end may cancel other calls."""
        self.befriend()
        first, second = self.rpc.call(THERE, FIND), self.rpc.call(THERE, FIND)
        first.addErrback(lambda _: second.cancel())
        second.addErrback(lambda _: None)
        self.rpc.stop()
        self.result_of(first)
        self.result_of(second)
        self.assertEqual(0, self.rpc.outstanding)

    def test_defaults_do_nothing(self):
        """An RPC may be used without anybody listening for pongs and misses."""
        chance = random.Random(1)
        rpc = RPC(self.clock, chance, chance.randbytes, OWN, self.transmit)
        call = rpc.ping(THERE)
        ping = self.requests[-1]
        rpc.reply_received(
            THERE,
            Pong(rid=ping.rid, attempt=0, node_id=OTHER, token=TOKEN, observed=ELSEWHERE),
        )
        self.result_of(call)
        silent = rpc.ping(ELSEWHERE)
        self.pass_time(limits.FIRST_CONTACT_WINDOW_S)
        self.error_of(silent, RequestTimedOut)


class ReplyCacheTests(TestCase):
    """Replies kept for repeated requests."""

    def request(self, rid: bytes = b"r" * 8, attempt: int = 0) -> Find:
        """Return a request."""
        return Find(node_id=OTHER, rid=rid, attempt=attempt, target=b"t" * 20)

    def test_repeated_request(self):
        """A repeated request gets the same reply, numbered as its own try."""
        cache = ReplyCache()
        self.assertIsNone(cache.get(THERE, self.request(), 0.0))
        cache.put(THERE, Found(rid=b"r" * 8, attempt=0), 0.0)
        again = cache.get(THERE, self.request(attempt=2), 1.0)
        self.assertEqual(Found(rid=b"r" * 8, attempt=2), again)

    def test_bound_to_the_source(self):
        """Another source or rid gets nothing."""
        cache = ReplyCache()
        cache.put(THERE, Found(rid=b"r" * 8, attempt=0), 0.0)
        self.assertIsNone(cache.get(ELSEWHERE, self.request(), 0.0))
        self.assertIsNone(cache.get(THERE, self.request(b"s" * 8), 0.0))

    def test_time(self):
        """A reply is kept for ten seconds."""
        cache = ReplyCache()
        cache.put(THERE, Found(rid=b"r" * 8, attempt=0), 0.0)
        self.assertIsNotNone(cache.get(THERE, self.request(), limits.REPLY_CACHE_S))
        self.assertIsNone(cache.get(THERE, self.request(), limits.REPLY_CACHE_S + 0.1))

    def test_bursts_are_forgotten(self):
        """What is too old to be given again goes as new replies come, two for each."""
        cache = ReplyCache()
        for number in range(100):
            cache.put(THERE, Found(rid=number.to_bytes(8, "big"), attempt=0), 0.0)
        for number in range(60):
            reply = Found(rid=number.to_bytes(8, "big"), attempt=0)
            cache.put(ELSEWHERE, reply, limits.REPLY_CACHE_S + 1.0)
        self.assertEqual(60, len(cache))

    def test_bound(self):
        """So many replies are kept, the oldest go first."""
        cache = ReplyCache()
        for number in range(limits.REPLY_CACHE + 1):
            cache.put(THERE, Found(rid=number.to_bytes(8, "big"), attempt=0), 0.0)
        self.assertEqual(limits.REPLY_CACHE, len(cache))
        self.assertIsNone(cache.get(THERE, self.request(bytes(8)), 0.0))
        self.assertIsNotNone(cache.get(THERE, self.request((1).to_bytes(8, "big")), 0.0))
