"""What a node knows about the way to one address: round-trip time, token, misses. Pure.

Round-trip times follow RFC 6298 with constants for single datagrams (``limits``). Every reply
echoes the number of its try, so every sample is clean and Karn's rule is not needed.
Does NOT send. Threat: floods of addresses; :class:`Paths` keeps ``limits.RTT_ENTRIES``.
Tests: ``test_rpc``.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.overlay.messages import (
    NO_TOKEN,
)


@define
class Path:
    """The way to one address.

    Attributes:
        srtt_s: smoothed round-trip time, or ``None`` before the first sample.
        rttvar_s: its variation.
        token: what that address wants to see from us, or :data:`NO_TOKEN`.
        token_at: when we got it.
        heard_at: when a reply last came from there, or ``None``.
        proved: whether the address ever proved itself to us, by an answer or by our token.
        misses: calls without an answer since then.
        told: the ``flags`` we last said of ourselves in a ping that address believes.
        boot_id: of the process that last answered there.
    """

    srtt_s: float | None = None
    rttvar_s: float = 0.0
    token: bytes = NO_TOKEN
    token_at: float = 0.0
    heard_at: float | None = None
    proved: bool = False
    misses: int = 0
    told: int = 0
    boot_id: bytes = b""

    def reborn(self, boot_id: bytes) -> bool:
        """Note which process answered; tell whether it was another one before."""
        before, self.boot_id = self.boot_id, boot_id
        return before not in {b"", boot_id}

    def rto_s(self) -> float:
        """Return the timeout of a first try, 0.05 to 3 s (RFC 6298, 2.2 to 2.4)."""
        if self.srtt_s is None:
            return limits.RTO_STRANGER_S
        rto = self.srtt_s + max(limits.RTO_VARIANCE_FLOOR_S, 4 * self.rttvar_s)
        return min(max(rto, limits.RTO_MIN_S), limits.RTO_MAX_S)

    def sample(self, rtt_s: float, now: float) -> None:
        """Take a measured round-trip time (RFC 6298, 2.3)."""
        if self.srtt_s is None:
            self.srtt_s, self.rttvar_s = rtt_s, rtt_s / 2
        else:
            self.rttvar_s = 0.75 * self.rttvar_s + 0.25 * abs(self.srtt_s - rtt_s)
            self.srtt_s = 0.875 * self.srtt_s + 0.125 * rtt_s
        self.heard_at = now
        self.proved = True
        self.misses = 0

    def grant(self, token: bytes, now: float) -> None:
        """Keep the token that address gave us."""
        self.token, self.token_at = token, now

    def has_token(self, now: float) -> bool:
        """Tell whether the token should still be good."""
        return self.token != NO_TOKEN and now - self.token_at < 2 * limits.TOKEN_EPOCH_S


@define
class Paths:
    """The paths we remember, the longest unused forgotten first."""

    _paths: OrderedDict[Address, Path] = field(init=False, factory=OrderedDict)

    def __getitem__(self, address: Address) -> Path:
        """Return the path to ``address``, a fresh one if it is not known."""
        path = self._paths.get(address)
        if path is None:
            path = self._paths[address] = Path()
            if len(self._paths) > limits.RTT_ENTRIES:
                self._paths.popitem(last=False)
        else:
            self._paths.move_to_end(address)
        return path

    def peek(self, address: Address) -> Path | None:
        """Return the path to ``address`` if it is known, without counting as a use."""
        return self._paths.get(address)

    def __len__(self) -> int:
        return len(self._paths)
