"""Calls to other nodes: one request on the wire at a time, a Deferred per call.

Job: correlation ids, tokens, timeouts, retries with back-off and jitter, matching of replies, and
on the serving side the suppression of duplicate requests. It does NOT open sockets (``send`` is
given) and does not know what requests mean.

States of a call::

    pinging -> waiting -> answered        (Deferred fired with the reply)
            |          -> refused         (RequestRefused)
            |          -> timed out       (RequestTimedOut)
            `-> timed out, stopped        (NodeStopped)

First contact (decision 8): an address that never answered gets a ping before anything else. One
whose token is merely old answers with a challenge; the call goes on at once with the new token.

Threat: forged and late replies (a reply needs the 64-bit ``rid`` of an open call and the number of
a try made), floods of requests (bounded cache), floods of our own (bounded calls).
Tests: ``test_rpc``.
"""

from __future__ import annotations

import itertools
import random
from collections import OrderedDict
from collections.abc import Callable

import attrs
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.errors import (
    CalledOneself,
    CallLimitReached,
    NodeStopped,
    RequestRefused,
    RequestTimedOut,
)
from p2pdist.ids import NodeID
from p2pdist.overlay.alarm import NEVER, Alarm
from p2pdist.overlay.messages import (
    RID_BYTES,
    Challenge,
    Error,
    Message,
    Ping,
    Pong,
    Reply,
    Request,
)
from p2pdist.overlay.path import Path, Paths

Build = Callable[[bytes, bytes], Request]
"""Makes a request from (rid, token), for proofs that cover them."""


@define(eq=False)
class _Call:
    """One call under way."""

    address: Address
    build: Build
    reply_type: type[Reply]
    tries_max: int
    deadline: float
    done: Deferred[Reply]
    rid: bytes
    started: float
    sent: list[float] = field(factory=list)
    challenges: int = 0
    forgiven: int = 0
    due: float = NEVER
    answered: bool = False
    late: Callable[[Reply], None] | None = None
    linger_s: float = 0.0

    @property
    def method(self) -> str:
        return self.reply_type.__name__


@define
class RPC:
    """Calls out of one network, and memory of replies given.

    Args:
        clock: schedules timeouts.
        rng: spreads back-off.
        entropy: makes correlation ids.
        node_id: goes into the pings that precede a first contact.
        send: puts a message on the wire.
        paths: round-trip times and tokens by address.
        heard: called as ``heard(address, pong)`` when a pong identified an address.
        reborn: called when another process answers at an address than before.
        missed: called when a call to an address went unanswered.
        says: returns the ``flags`` of a ping to an address.
    """

    clock: IReactorTime
    rng: random.Random
    entropy: Callable[[int], bytes]
    node_id: NodeID
    send: Callable[[Address, Message], None]
    paths: Paths = field(factory=Paths)
    heard: Callable[[Address, Pong], None] = lambda _address, _pong: None
    reborn: Callable[[Address], None] = lambda _address: None
    missed: Callable[[Address], None] = lambda _address: None
    says: Callable[[Address], int] = lambda _address: 0
    mismatched: int = field(init=False, default=0)
    _calls: dict[bytes, _Call] = field(init=False, factory=dict)
    _per_address: dict[Address, int] = field(init=False, factory=dict)
    _pings: dict[Address, list[Deferred[Reply]]] = field(init=False, factory=dict)
    _alarm: Alarm[_Call] = field(init=False)
    _stopped: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._alarm = Alarm(self.clock, self._overdue)

    # --- calling ---

    def call(
        self,
        address: Address,
        request: Request,
        *,
        tries: int = limits.TRIES,
        deadline_s: float = 60.0,
    ) -> Deferred[Reply]:
        """Send ``request`` until it is answered.

        Args:
            address: who is called; its token is filled in.
            request: without rid, attempt and token.
            tries: sends at most, 1 or more.
            deadline_s: give up after so many seconds whatever the tries.

        Returns:
            A Deferred that fires with the reply (of the type the request names). It fails with
            :class:`RequestTimedOut`, :class:`RequestRefused`, :class:`CallLimitReached`, or
            :class:`NodeStopped` when the node stops first. Cancelling it forgets the call.
        """

        def build(rid: bytes, token: bytes) -> Request:
            return attrs.evolve(request, rid=rid, token=token)

        return self.call_built(
            address,
            build,
            type(request).reply,
            tries=tries,
            deadline_s=deadline_s,
        )

    def call_built(
        self,
        address: Address,
        build: Build,
        reply_type: type[Reply],
        *,
        tries: int = limits.TRIES,
        deadline_s: float = 60.0,
        late: Callable[[Reply], None] | None = None,
        linger_s: float = 0.0,
    ) -> Deferred[Reply]:
        """Like :meth:`call`, for requests that cover their own rid and token.

        Args:
            address: who is called.
            build: makes the request from rid and token, anew for each token.
            reply_type: what counts as the answer.
            tries: sends at most.
            deadline_s: give up after so many seconds.
            late: called with further replies of the same type within ``linger_s`` of the first
                (a get_peers that was taken may still be handed back).
            linger_s: how long to listen for them.

        Returns:
            As :meth:`call`.
        """
        if self._stopped:
            return _failed(NodeStopped("the node is stopped"))
        busy = self._per_address.get(address, 0)
        if len(self._calls) >= limits.CALLS_OUTSTANDING or busy >= limits.CALLS_PER_ADDRESS:
            return _failed(CallLimitReached(address, reply_type.__name__))
        now = self.clock.seconds()
        call = _Call(
            address=address,
            build=build,
            reply_type=reply_type,
            tries_max=tries,
            deadline=now + deadline_s,
            done=Deferred(self._cancelled),
            rid=self.entropy(RID_BYTES),
            started=now,
            late=late,
            linger_s=linger_s,
        )
        self._calls[call.rid] = call
        self._per_address[address] = busy + 1
        path = self.paths[address]
        stranger = path.heard_at is None and not path.has_token(now)
        if stranger and reply_type is not Pong:
            self._ping_first(call)
        else:
            self._try(call, path, now)
        return call.done

    def ping(self, address: Address, tries: int = limits.FIRST_CONTACT_TRIES) -> Deferred[Reply]:
        """Ping ``address``, within 2 s; whoever asks meanwhile shares the ping under way.

        Returns:
            Fires with the :class:`Pong`, fails as :meth:`call` does.
        """
        done: Deferred[Reply] = Deferred()
        waiting = self._pings.get(address)
        if waiting is not None:
            waiting.append(done)
            return done
        self._pings[address] = [done]

        def pinged(result: Reply | Failure) -> None:
            for one in self._pings.pop(address):
                if not one.called:
                    one.callback(result)

        self.call(
            address,
            Ping(node_id=self.node_id, flags=self.says(address)),
            tries=tries,
            deadline_s=limits.FIRST_CONTACT_WINDOW_S,
        ).addBoth(pinged)
        return done

    def _ping_first(self, call: _Call) -> None:
        def answered(_pong: Reply) -> None:
            if call.rid in self._calls:
                self._try(call, self.paths[call.address], self.clock.seconds())

        def silent(failure: Failure) -> None:
            assert failure.value is not None
            if call.rid in self._calls:
                self._finish(call, failure.value)

        self.ping(call.address).addCallbacks(answered, silent)

    def _try(self, call: _Call, path: Path, now: float) -> None:
        """Send (again), and set the timer that sends the next or gives up."""
        attempt = len(call.sent)
        doublings = attempt - call.forgiven
        request = call.build(call.rid, path.token)
        if request.attempt != attempt:
            request = attrs.evolve(request, attempt=attempt)
        call.sent.append(now)
        backoff = path.rto_s()
        if doublings:
            backoff *= 2**doublings * (1 + limits.RTO_JITTER * (2 * self.rng.random() - 1))
        wait = max(0.0, min(backoff, limits.RTO_MAX_S, call.deadline - now))
        self._alarm.set(call, now + wait)
        self.send(call.address, request)

    def _overdue(self, call: _Call) -> None:
        """Try again or give up; or, once it is answered, listen no longer."""
        if call.answered:
            self._forget(call)
            return
        now = self.clock.seconds()
        path = self.paths[call.address]
        if len(call.sent) - call.forgiven < call.tries_max and now < call.deadline:
            self._try(call, path, now)
            return
        path.misses += 1
        self._finish(
            call,
            RequestTimedOut(
                call.address, call.method, attempts=len(call.sent), elapsed_s=now - call.started
            ),
        )
        self.missed(call.address)

    def _finish(self, call: _Call, result: Reply | BaseException) -> None:
        """Fire the Deferred; forget the call unless it lingers."""
        call.answered = True
        self._leave(call.address)
        if call.late is not None and isinstance(result, Reply) and not self._stopped:
            self._alarm.set(call, self.clock.seconds() + call.linger_s)
        else:
            self._forget(call)
        if isinstance(result, Reply):
            call.done.callback(result)
        else:
            call.done.errback(result)

    def _forget(self, call: _Call) -> None:
        del self._calls[call.rid]
        call.due = NEVER

    def _leave(self, address: Address) -> None:
        """Count one open call less to ``address``; a call that lingers is not open."""
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]

    def _cancelled(self, done: Deferred[Reply]) -> None:
        for call in list(self._calls.values()):
            if call.done is done:
                self._leave(call.address)
                self._forget(call)
                return

    # --- replies ---

    def reply_received(self, source: Address, reply: Reply, boot_id: bytes = b"") -> None:
        """Take a reply from the wire; one that answers no open call is counted and dropped.

        Args:
            source: where it came from.
            reply: what came.
            boot_id: of the process that sent it, or nothing if that is not known.
        """
        call = self._calls.get(reply.rid)
        if call is None or reply.attempt >= len(call.sent):
            self.mismatched += 1
            return
        if source != call.address:
            self.mismatched += 1  # a multi-homed node answers from elsewhere: the rid proves it
        now = self.clock.seconds()
        path = self.paths[call.address]
        if call.answered:
            if call.late is not None and isinstance(reply, call.reply_type):
                call.late(reply)
            return
        path.sample(now - call.sent[reply.attempt], now)
        if path.reborn(boot_id):
            self.reborn(call.address)
        if isinstance(reply, Challenge):
            self._challenged(call, path, reply, now)
        elif isinstance(reply, Error):
            self._finish(call, RequestRefused(call.address, call.method, code=reply.error))
        elif isinstance(reply, call.reply_type):
            self._answered(call, path, reply, now)
        else:
            self.mismatched += 1

    def _answered(self, call: _Call, path: Path, reply: Reply, now: float) -> None:
        token = getattr(reply, "token", None)
        if token is not None:
            path.grant(token, now)
        if isinstance(reply, Pong):
            self.heard(call.address, reply)
        self._finish(call, reply)

    def came_back(self, source: Address, rid: bytes) -> bool:
        """Take a request of ours that arrived at ourselves; False if it is not an open call's.

        The call to ``source`` fails with :class:`CalledOneself`. Nobody can make us believe that of
        another address without knowing the correlation id of a call we have open to it.
        """
        call = self._calls.get(rid)
        if call is None or call.answered or call.address != source:
            return False
        self._finish(call, CalledOneself(call.address, call.method))
        return True

    def _challenged(self, call: _Call, path: Path, challenge: Challenge, now: float) -> None:
        call.challenges += 1
        path.grant(challenge.token, now)
        if call.challenges > limits.CHALLENGES_PER_CALL:
            return  # the timeout stands: a node that only challenges counts as silent
        call.forgiven += 1  # a challenged try does not count, but keeps its number
        self._try(call, path, now)

    def stop(self) -> None:
        """Fail every open call with :class:`NodeStopped`; later calls fail at once."""
        self._stopped = True
        for call in list(self._calls.values()):
            if call.rid not in self._calls:
                continue  # whoever learned of the end of another call cancelled this one
            if call.answered:
                self._forget(call)
            else:
                self._finish(call, NodeStopped("the node stopped before the answer came"))
        self._alarm.stop()

    @property
    def outstanding(self) -> int:
        """Calls under way."""
        return len(self._calls)


def _failed(error: Exception) -> Deferred[Reply]:
    done: Deferred[Reply] = Deferred()
    done.errback(error)
    return done


@define
class ReplyCache:
    """Replies given lately, so that a retried request is answered without being done twice.

    At most ``limits.REPLY_CACHE`` replies, ``limits.REPLY_CACHE_S`` old.
    """

    _replies: OrderedDict[tuple[Address, bytes], tuple[float, Reply]] = field(
        init=False, factory=OrderedDict
    )

    def get(self, source: Address, request: Request, now: float) -> Reply | None:
        """Return the reply given to an earlier try, numbered as this try."""
        found = self._replies.get((source, request.rid))
        if found is None or now - found[0] > limits.REPLY_CACHE_S:
            return None
        return attrs.evolve(found[1], attempt=request.attempt)

    def put(self, source: Address, reply: Reply, now: float) -> None:
        """Remember a reply."""
        self._replies[source, reply.rid] = (now, reply)
        for given_at, _ in list(itertools.islice(self._replies.values(), 2)):  # one comes, two go
            if len(self._replies) > limits.REPLY_CACHE or now - given_at > limits.REPLY_CACHE_S:
                self._replies.popitem(last=False)

    def __len__(self) -> int:
        return len(self._replies)
