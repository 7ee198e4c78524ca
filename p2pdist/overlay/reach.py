"""Whether strangers can call this node: where others see it, and who called unasked. Pure.

Job: find out, for each address family, whether a NAT stands before this node. It does NOT send and
keeps no binding open (``bindings``); ``network`` reports what pongs say and who pings.

States of a family (:class:`State`); with a second arrow back where the reason goes away::

    UNKNOWN -(an observer sees us at an address of our own)--------------> OPEN
       `----(observers in limits.OBSERVERS_AGREEING subnets see us at one host that is none of ours,
             and they are more than those who see us at an address of ours)--> NATED
    NATED ---(a stranger's ping came in unasked: a forwarded port, or a NAT that lets everybody in)
             --> OPEN, for limits.REACHED_S and as long as we are seen at the same host

A *stranger* here is somebody in whose subnet we never sent anything; his first ping has no token.
One with a token knew us before a restart, when a binding towards him may have been open.
Only global addresses count: on loopback and in private networks nothing is ever concluded.

Threat: observers that lie. One subnet decides nothing, and liars have to outnumber those who see
our own address. What they can gain is that we are asked for less. Source: RFC 4787 (mappings and
filters), RFC 5780 (why one observer is not enough). Tests: ``test_reach``.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from collections.abc import Callable

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, Scope, is_ipv6, scope, subnet_key

LocalAddress = Callable[[Address], "str | None"]
"""Returns the IP of ours from which a datagram to an address can leave, which is the address itself
where it is ours; ``None`` if there is no way."""


class State(enum.Enum):
    """What is known of one family; the value is the phrase for people."""

    UNKNOWN = "not known yet"
    OPEN = "peers can call it"
    NATED = "behind a NAT"


def nowhere(_towards: Address) -> None:
    """Stand for a :data:`LocalAddress` that cannot tell."""


@define(eq=False)
class Side:
    """What is known of one address family.

    Args:
        local_address: see :data:`LocalAddress`.

    Attributes:
        state: see the module.
        translated: the host others see that is none of ours; bindings to it must be kept open,
            also where strangers can use them. ``None`` while nobody or too few say so.
        masked: whether offers of strangers may not come through: as ``NATED``, but already when
            the first observer says so. A walk must not wait for the second.
    """

    local_address: LocalAddress
    state: State = field(init=False, default=State.UNKNOWN)
    translated: str | None = field(init=False, default=None)
    masked: bool = field(init=False, default=False)
    _seen: OrderedDict[bytes, tuple[str | None, float]] = field(init=False, factory=OrderedDict)
    """By the observer's subnet: the foreign host it sees, ``None`` for our own; and when."""
    _sent: OrderedDict[bytes, None] = field(init=False, factory=OrderedDict)
    _reached_until: float = field(init=False, default=float("-inf"))
    _last_translated: str | None = field(init=False, default=None)

    def sent(self, address: Address) -> None:
        """Note that we send to ``address`` of our own accord: what comes from there is no proof."""
        subnet = subnet_key(address)
        if subnet is not None:
            self._sent[subnet] = None
            self._sent.move_to_end(subnet)
            if len(self._sent) > limits.SENT_SUBNETS:
                self._sent.popitem(last=False)

    def observed(self, observer: Address, address: Address, now: float) -> bool:
        """Note that ``observer`` sees us at ``address``.

        Returns:
            Whether the state changed.
        """
        subnet = subnet_key(observer)
        if subnet is None or scope(address) is not Scope.GLOBAL:
            return False
        local = self.local_address(address)
        if local is None:
            return False
        self._seen[subnet] = (None if local == address.host else address.host, now)
        self._seen.move_to_end(subnet)
        if len(self._seen) > limits.OBSERVERS:
            self._seen.popitem(last=False)
        return self.review(now)

    def called(self, source: Address, now: float) -> bool:
        """Note that a ping without a token came from ``source``.

        Returns:
            Whether the state changed.
        """
        subnet = subnet_key(source)
        if subnet is None or subnet in self._sent:
            return False
        if any(source.host == host for host, _ in self._seen.values()):
            return False  # somebody behind the same NAT
        self._reached_until = now + limits.REACHED_S
        return self.review(now)

    def review(self, now: float) -> bool:
        """Look again: time passed.

        Returns:
            Whether the state changed.
        """
        before = self.state
        while self._seen and now - next(iter(self._seen.values()))[1] > limits.OBSERVATION_S:
            self._seen.popitem(last=False)
        hosts = Counter(host for host, _ in self._seen.values())
        own = hosts.pop(None, 0)
        host, foreign = hosts.most_common(1)[0] if hosts else (None, 0)
        agreed = foreign >= limits.OBSERVERS_AGREEING and foreign > own
        self.translated = host if agreed else None
        if agreed:
            if self._last_translated not in {None, host}:
                self._reached_until = float("-inf")  # another NAT: what was proved is void
            self._last_translated = host
            self.state = State.OPEN if now < self._reached_until else State.NATED
        else:
            self.state = State.OPEN if own and own >= foreign else State.UNKNOWN
        self.masked = foreign > own and now >= self._reached_until
        return self.state is not before


@define(eq=False)
class Reach:
    """Both address families: a machine is often open in one and behind a NAT in the other.

    Args:
        local_address: see :data:`LocalAddress`.
    """

    local_address: LocalAddress = nowhere
    ipv4: Side = field(init=False)
    ipv6: Side = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ipv4 = Side(self.local_address)
        self.ipv6 = Side(self.local_address)

    def side(self, address: Address) -> Side:
        """Return the side of the family of ``address``."""
        return self.ipv6 if is_ipv6(address) else self.ipv4

    def nated(self, address: Address) -> bool:
        """Tell whether a NAT stands between strangers of that family and us."""
        return self.side(address).state is State.NATED

    def masked(self, address: Address) -> bool:
        """Tell whether a query through ``address`` should be answered through it."""
        return self.side(address).masked

    def sent(self, address: Address) -> None:
        """See :meth:`Side.sent`."""
        self.side(address).sent(address)

    def observed(self, observer: Address, address: Address, now: float) -> bool:
        """See :meth:`Side.observed`."""
        if is_ipv6(observer) != is_ipv6(address):
            return False
        return self.side(address).observed(observer, address, now)

    def called(self, source: Address, now: float) -> bool:
        """See :meth:`Side.called`."""
        return self.side(source).called(source, now)

    def review(self, now: float) -> bool:
        """See :meth:`Side.review`; both sides."""
        changed = [side.review(now) for side in (self.ipv4, self.ipv6)]
        return any(changed)
