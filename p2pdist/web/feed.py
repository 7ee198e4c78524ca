"""What the pages that look at one content are told: all of it once, then what changed.

::

    state    {"now": seconds, "patch": merge patch of the state below}
    pieces   see :func:`~p2pdist.web.patches.piece_patch`
    rates    {"samples": [[at, down, up], ...]}
    log      {"lines": [{"n", "time", "level", "text"}, ...]}

    {"node": {...}, "contents": {hash_key: {...}}, "paused": {hash_key: {...}},
     "content": hash_key, "hosts": {node: {...}}, "peers": {node: {...}}}

Hosts do not carry their age, which changes all the time, but ``heard``: when it was heard of them.
Job: ask ``Control``, compare with before. It does NOT send. Tests: ``test_web_feed``.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field

from p2pdist.closeup import PieceMap
from p2pdist.control import Control, NoSuchContent, Result
from p2pdist.web.history import Logbook, Rates, Sample
from p2pdist.web.patches import merge_patch, piece_patch

APART = ("contents", "paused")
"""Members of a status that get a place of their own."""


@define(eq=False)
class Feed:
    """The events about one content.

    Args:
        control: answers questions.
        rates: over time; every step adds a sample.
        log: the node's.
        content: its hash_key as text; ``None`` for the first there is.
    """

    control: Control
    rates: Rates
    log: Logbook
    content: str | None
    _state: dict[str, Any] = field(factory=dict)
    _pieces: PieceMap = field(factory=PieceMap)
    _moved: dict[str, tuple[float, int, int]] = field(factory=dict)
    _logged: int = 0

    def step(self, now: float) -> bytes:
        """Return the events of what changed since the last step."""
        state = self._look(now)
        pieces = self._look_at_pieces(state["content"])
        sample = self._sample(state, now)
        lines = self.log.since(self._logged)
        parts = [
            _event("state", {"now": round(now, 1), "patch": merge_patch(self._state, state)}),
            _event("pieces", piece_patch(self._pieces, pieces)),
            _event("rates", {"samples": [sample.row()]}),
            _event("log", {"lines": lines} if lines else None),
        ]
        self._state, self._pieces, self._logged = state, pieces, self.log.count
        return b"".join(parts)

    def whole(self, now: float) -> bytes:
        """Return the events that a page starts with: how things were at the last step."""
        parts = [
            _event("state", {"now": round(now, 1), "patch": merge_patch({}, self._state)}),
            _event("pieces", piece_patch(PieceMap(), self._pieces)),
            _event("rates", {"samples": self.rates.rows()}),
            _event("log", {"lines": [x for x in self.log.since(0) if x["n"] <= self._logged]}),
        ]
        return b"".join(parts)

    def _look(self, now: float) -> dict[str, Any]:
        status = self.control.look("status")
        contents = {one["hash_key"]: one for one in status["contents"]}
        paused = {one["hash_key"]: one for one in status["paused"]}
        known = [*contents, *paused]
        shown = self.content or (known[0] if known else None)
        return {
            "node": {key: value for key, value in status.items() if key not in APART},
            "contents": contents,
            "paused": paused,
            "content": shown,
            "hosts": {} if shown is None else self._hosts(shown, now),
            "peers": {} if shown is None else self._peers(shown, now),
        }

    def _hosts(self, content: str, now: float) -> dict[str, Result]:
        before = self._state.get("hosts", {})
        hosts = {}
        for host in self._ask("fleet", content).get("hosts", ()):
            heard = round(now - host.pop("age_s"), 1)
            known = before.get(host["node"])
            if known is not None and abs(known["heard"] - heard) < 1.0:
                heard = known["heard"]  # rounding is no news
            hosts[host["node"]] = {**host, "heard": heard}
        return hosts

    def _peers(self, content: str, now: float) -> dict[str, Result]:
        peers, moved = {}, {}
        for peer in self._ask("peers", content).get("peers", ()):
            node, down, up = peer["node"], peer["received_bytes"], peer["sent_bytes"]
            since, down_before, up_before = self._moved.get(node, (now, down, up))
            seconds = max(now - since, 1e-3)
            moved[node] = (now, down, up)
            peers[node] = {
                **peer,
                "down": max(0, round((down - down_before) / seconds)),
                "up": max(0, round((up - up_before) / seconds)),
            }
        self._moved = moved
        return peers

    def _ask(self, question: str, content: str) -> Result:
        try:
            return self.control.look(question, content)
        except NoSuchContent:  # it is paused, or was removed
            return {}

    def _look_at_pieces(self, content: str | None) -> PieceMap:
        try:
            return PieceMap() if content is None else self.control.piece_map(content)
        except NoSuchContent:
            return PieceMap()

    def _sample(self, state: dict[str, Any], now: float) -> Sample:
        contents = state["contents"].values()
        down = sum(one["download_bytes_per_s"] for one in contents)
        sample = Sample(now, down, sum(one["upload_bytes_per_s"] for one in contents))
        self.rates.add(sample)
        return sample


def _event(name: str, value: object) -> bytes:
    """Return one server-sent event; nothing for ``None``."""
    if value is None:
        return b""
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n".encode()
