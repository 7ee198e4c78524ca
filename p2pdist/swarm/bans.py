"""Who sent wrong bytes, and until when nobody talks to it (decision 17). Pure.

A ban names the proved node, which a fresh key escapes, and the address it was dialled at for the
same time; never a whole host. Bounded by ``limits.BANS``, the oldest go first.
Tests: ``test_roster``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID


@define
class BanList:
    """Bans of nodes and addresses."""

    _offences: dict[NodeID, int] = field(factory=dict)
    _until: dict[Hashable, float] = field(factory=dict)

    def offend(self, node_id: NodeID, address: Address, now: float) -> None:
        """Ban a node that sent a wrong piece: for BAN_S, or for good at the last offence."""
        count = self._offences.pop(node_id, 0) + 1
        self._offences[node_id] = count
        for_good = count >= limits.CORRUPT_PIECES_MAX
        self._ban(node_id, math.inf if for_good else now + limits.BAN_S)
        self._ban(address, now + limits.BAN_S)
        if len(self._offences) > limits.BANS:
            del self._offences[next(iter(self._offences))]

    def _ban(self, who: Hashable, until: float) -> None:
        self._until.pop(who, None)
        self._until[who] = until
        if len(self._until) > limits.BANS:
            del self._until[next(iter(self._until))]

    def banned(self, node_id: NodeID, address: Address | None, now: float) -> bool:
        """Tell whether the node, or the address it is to be dialled at, is banned."""
        return any(self._until.get(who, -math.inf) > now for who in (node_id, address))
