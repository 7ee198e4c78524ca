"""What keeps a node from being a weapon: tokens, cookies, rate limits, the negative cache. Pure.

Job: answer "may I?" for addresses and keys; time is a parameter. It sends nothing.
Threat: strangers who name victims, flood, or guess. Every table is bounded and evicts the oldest.
Tests: ``test_guard``.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, limit_key, pack, subnet_key
from p2pdist.keys import Mac, equal

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

K = TypeVar("K", bound=Hashable)


@define
class TokenMint:
    """Makes and checks what proves that an address receives what is sent to it; remembers nothing.

    A token is bound to the address, a cookie to address and query; both are valid for this epoch
    and the next. Source: decision 5, BEP 5. The tokens of the ``limits.TOKEN_CACHE`` addresses that
    wrote last are at hand, which saves making them again for each datagram of theirs.

    Args:
        entropy: returns that many unpredictable bytes.
    """

    entropy: Callable[[int], bytes]
    _epoch: int = field(init=False, default=-1)
    _key: Mac = field(init=False)
    _previous: Mac | None = field(init=False, default=None)
    _fresh: _lru_cache_wrapper[bytes] = field(init=False)

    def token(self, address: Address, now: float) -> bytes:
        """Return the 8-byte token for ``address``."""
        self._turn(now)
        return self._fresh(address)

    def token_ok(self, address: Address, token: bytes, now: float) -> bool:
        """Tell whether ``token`` was made for ``address`` in this or the previous epoch."""
        self._turn(now)
        return equal(token, self._fresh(address)) or (
            self._previous is not None and equal(token, self._token(self._previous, address))
        )

    @property
    def at_hand(self) -> int:
        """How many tokens of this epoch need not be made again."""
        return self._fresh.cache_info().currsize if self._epoch >= 0 else 0

    def cookie(self, address: Address, qid: bytes, now: float) -> bytes:
        """Return the 12-byte cookie for the query ``qid`` of ``address``."""
        self._turn(now)
        return self._cookie(self._key, address, qid)

    def cookie_ok(self, address: Address, qid: bytes, cookie: bytes, now: float) -> bool:
        """Tell whether ``cookie`` was made for this address and query."""
        self._turn(now)
        return equal(cookie, self._cookie(self._key, address, qid)) or (
            self._previous is not None and equal(cookie, self._cookie(self._previous, address, qid))
        )

    @staticmethod
    def _token(key: Mac, address: Address) -> bytes:
        return key.digest(b"token" + pack(address))[: limits.TOKEN_BYTES]

    @staticmethod
    def _cookie(key: Mac, address: Address, qid: bytes) -> bytes:
        return key.digest(b"cookie" + pack(address) + qid)[: limits.COOKIE_BYTES]

    def _turn(self, now: float) -> None:
        epoch = int(now // limits.TOKEN_EPOCH_S)
        if epoch == self._epoch:
            return
        self._previous = self._key if self._epoch >= 0 and epoch == self._epoch + 1 else None
        self._key = Mac(self.entropy(32))
        self._fresh = lru_cache(limits.TOKEN_CACHE)(partial(self._token, self._key))
        self._epoch = epoch


@define
class RateLimit(Generic[K]):
    """Token buckets by key; at most ``limits.RATE_KEYS`` of them, the longest unused goes first.

    Args:
        rate: (units per second, burst).
    """

    rate: tuple[float, float]
    _levels: OrderedDict[K, float] = field(init=False, factory=OrderedDict)
    """By key, the level less all that has flowed in since time 0: one number instead of level and
    time, since strangers fill these tables."""

    def allow(self, key: K, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` units from the bucket of ``key``, or nothing and return False."""
        per_second, burst = self.rate
        flowed = now * per_second
        level = self._levels.get(key, burst - flowed) + flowed
        if level > burst:  # noqa: PLR1730 -- min() costs a quarter more, for every datagram
            level = burst
        allowed = level >= cost
        self._levels[key] = (level - cost if allowed else level) - flowed
        self._levels.move_to_end(key)
        if len(self._levels) > limits.RATE_KEYS:
            self._levels.popitem(last=False)
        return allowed

    def __len__(self) -> int:
        return len(self._levels)


@define
class NegativeCache:
    """Addresses that did not answer lately; asking them again would make us a weapon.

    A host at which ``limits.SILENT_PORTS`` of them are is left alone altogether: whoever names
    addresses could name as many ports of a victim as he likes.
    """

    _until: OrderedDict[Address, float] = field(init=False, factory=OrderedDict)
    _hosts: Counter[bytes] = field(init=False, factory=Counter)

    def add(self, address: Address, now: float) -> None:
        """Remember ``address`` for ``limits.NEGATIVE_CACHE_S``."""
        self.discard(address)
        self._until[address] = now + limits.NEGATIVE_CACHE_S
        self._hosts[limit_key(address)] += 1
        if len(self._until) > limits.NEGATIVE_CACHE:
            self.discard(next(iter(self._until)))

    def discard(self, address: Address) -> None:
        """Forget ``address``: it spoke."""
        if self._until.pop(address, None) is not None:
            host = limit_key(address)
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]

    def holds(self, address: Address, now: float, *, lonely: bool = False) -> bool:
        """Tell whether ``address`` should be left alone; ``lonely`` makes that a shorter time."""
        while self._until and self._until[oldest := next(iter(self._until))] <= now:
            self.discard(oldest)
        if self._hosts[limit_key(address)] >= limits.SILENT_PORTS:
            return True
        spared_s = limits.NEGATIVE_CACHE_S - limits.LONELY_RETRY_S if lonely else 0.0
        return self._until.get(address, now) - now > spared_s

    def __len__(self) -> int:
        return len(self._until)


@define
class Guard:
    """One network's tokens and limits.

    Args:
        entropy: returns that many unpredictable bytes.
    """

    entropy: Callable[[int], bytes]
    mint: TokenMint = field(init=False)
    silent: NegativeCache = field(init=False, factory=NegativeCache)
    _ping: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_PING))
    _request: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_REQUEST))
    _first_hop: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_FIRST_HOP))
    _forward: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_FORWARD))
    _source: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_SOURCE))
    _offer: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_OFFER))
    _offer_subnet: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_OFFER_SUBNET))
    _relay: RateLimit[None] = field(factory=lambda: RateLimit(limits.RATE_RELAY_BYTES))
    _challenge: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_CHALLENGE))
    _challenges: RateLimit[None] = field(factory=lambda: RateLimit(limits.RATE_CHALLENGE_ALL))
    _announce: RateLimit[bytes] = field(factory=lambda: RateLimit(limits.RATE_ANNOUNCE))

    def __attrs_post_init__(self) -> None:
        self.mint = TokenMint(self.entropy)

    def ping(self, source: Address, now: float) -> bool:
        """May this ping be answered?"""
        return self._ping.allow(limit_key(source), now)

    def request(self, source: Address, now: float) -> bool:
        """May this token-proved request be served?"""
        return self._request.allow(limit_key(source), now)

    def challenge(self, source: Address, now: float) -> bool:
        """May a challenge (or a wrong-network notice) be sent?"""
        return self._challenge.allow(limit_key(source), now) and self._challenges.allow(None, now)

    def first_hop(self, source: Address, now: float) -> bool:
        """May this initiator have another query carried?"""
        return self._first_hop.allow(limit_key(source), now)

    def forward(self, neighbour: Address, src: Address, now: float) -> bool:
        """May this neighbour hand us another query for ``src``?"""
        return self._forward.allow(limit_key(neighbour), now) and self._source.allow(
            limit_key(src), now
        )

    def offer(self, target: Address, now: float) -> bool:
        """May another offer go to ``target``, which has proved nothing to us?"""
        subnet = subnet_key(target)
        return self._offer.allow(limit_key(target), now) and (
            subnet is None or self._offer_subnet.allow(subnet, now)
        )

    def relay(self, size: int, now: float) -> bool:
        """May ``size`` more bytes be sent for others? A negative size gives some back."""
        return self._relay.allow(None, now, size)

    def announce(self, source: Address, now: float) -> bool:
        """May this address register another topic?"""
        return self._announce.allow(limit_key(source), now)
