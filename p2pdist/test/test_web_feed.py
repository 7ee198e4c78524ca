"""What pages are told: patches that lead from any state to the next, and few bytes of them."""

from __future__ import annotations

import zlib
from base64 import b64decode
from typing import Any

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.closeup import PieceMap
from p2pdist.stages import Stage
from p2pdist.swarm import masks
from p2pdist.test.support import given
from p2pdist.test.webworld import WebCase, events
from p2pdist.web.feed import Feed
from p2pdist.web.history import Logbook, Rates
from p2pdist.web.patches import merge_patch, piece_patch

SCALARS = st.none() | st.integers(0, 3) | st.sampled_from(["a", "b"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=9
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES)


def apply(state: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7396), as the page does."""
    if not isinstance(patch, dict):
        return patch
    result = dict(state) if isinstance(state, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply(result.get(key), value)
    return result


def without_nulls(value: Any) -> Any:
    """Return a value as a page sees it: ``None`` is not there."""
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}


def apply_pieces(known: PieceMap, patch: dict[str, Any]) -> PieceMap:
    """Apply a patch of pieces, as the page does."""
    count, size = patch["pieces"], (patch["pieces"] + 7) // 8
    data = zlib.decompress(b64decode(patch["data"]))
    layers = [
        masks.from_bitfield(data[start : start + size]) for start in range(0, len(data), size or 1)
    ]
    if not patch["fresh"]:
        layers = [new ^ old for new, old in zip(layers, known.layers(), strict=True)]
    have, flying, writing, *planes = layers or [0, 0, 0]
    return PieceMap(count, have, flying, writing, tuple(planes))


class PatchTests(WebCase):
    """Patches alone."""

    def setUp(self):
        """Nothing is needed."""

    @given(OBJECTS, OBJECTS)
    def test_merge_patch(self, old, new):
        """The patch of any two states leads from the one to the other; equal ones need none."""
        seen = without_nulls(old)
        self.assertEqual(without_nulls(new), without_nulls(apply(seen, merge_patch(old, new))))
        self.assertEqual({}, merge_patch(new, new))

    @given(st.integers(0, 70), st.integers(0, 70), st.randoms(), st.integers(0, 3))
    def test_piece_patch(self, old_count, count, rng, levels):
        """The patch of any two piece maps leads from the one to the other."""

        def some(number: int, planes: int) -> PieceMap:
            layers = [rng.getrandbits(number) if number else 0 for _ in range(3 + planes)]
            return PieceMap(number, layers[0], layers[1], layers[2], tuple(layers[3:]))

        old, new = some(old_count, levels), some(count, rng.choice([levels, 1]))
        patch = piece_patch(old, new)
        if patch is None:
            self.assertEqual(old, new)
        elif count:
            self.assertEqual(new, apply_pieces(old, patch))

    def test_small(self):
        """One more piece of 100,000 is told in a few hundred bytes."""
        have = masks.full(100_000) ^ (1 << 7) ^ (1 << 77_777)
        old = PieceMap(100_000, have, 0, 0, (have, have, have, have))
        new = PieceMap(100_000, have | 1 << 7, 0, 0, old.planes)
        patch = piece_patch(old, new)
        assert patch is not None
        self.assertLess(len(patch["data"]), 700)


class FeedTests(WebCase):
    """A page's events, from a real download in the simulated network."""

    def setUp(self):
        """Make a feed, and a page that follows it."""
        super().setUp()
        self.feed = Feed(self.control, Rates(), Logbook(), None)
        self.state: dict[str, Any] = {}
        self.pieces = PieceMap()
        self.names: list[str] = []

    def take(self, data: bytes) -> None:
        """Do what a page does with events."""
        for name, value in events(data):
            self.names.append(name)
            if name == "state":
                self.state = apply(self.state, value["patch"])
            elif name == "pieces":
                self.pieces = apply_pieces(self.pieces, value)

    def step(self) -> None:
        """Let a second pass."""
        self.world.run(limits.WEB_EVERY_S)
        self.take(self.feed.step(self.leech.host.reactor.seconds()))

    def test_follows(self):
        """A page that began at any time shows what a page that begins now is shown."""
        self.take(self.feed.step(self.leech.host.reactor.seconds()))
        while self.leech.session.stage is not Stage.SEEDING:
            self.step()
        for _ in range(3):
            self.step()
        shown, pieces = self.state, self.pieces
        self.state, self.pieces = {}, PieceMap()
        self.take(self.feed.whole(self.leech.host.reactor.seconds()))
        self.assertEqual(shown, self.state)
        self.assertEqual(pieces, self.pieces)
        self.assertEqual({"leech-host", "seed-host"}, {x["name"] for x in shown["hosts"].values()})
        (one,) = shown["contents"].values()
        self.assertEqual(one["length"], one["have_bytes"])
        self.assertEqual(self.key, shown["content"])
        self.assertEqual(masks.full(self.pieces.count), self.pieces.have)
        (peer,) = shown["peers"].values()
        self.assertEqual(one["length"], peer["received_bytes"])

    def test_quiet(self):
        """While nothing happens an update is a few bytes: ages do not count as news."""
        while self.leech.session.stage is not Stage.SEEDING:
            self.step()
        for _ in range(10):
            self.step()
        self.names.clear()
        self.world.run(1)
        data = self.feed.step(self.leech.host.reactor.seconds())
        self.take(data)
        self.assertEqual(["state", "rates"], self.names)
        self.assertLess(len(data), 400, data)

    def test_rounded_ages_are_no_news(self):
        """When it was heard of a machine moves only when it was heard of again."""
        self.world.run(5)
        look = self.control.look
        ages = {"now": 7.04}

        def aged(question: str, content: str | None = None) -> Any:
            answer = look(question, content)
            for host in answer.get("hosts", ()):
                host["age_s"] = round(ages["now"], 1)
            return answer

        self.patch(self.control, "look", aged)
        self.take(self.feed.step(100.0))
        heard = {host["heard"] for host in self.state["hosts"].values()}
        for later in (1.02, 2.0, 3.08):
            ages["now"] = 7.04 + later
            self.take(self.feed.step(100.0 + later))
        self.assertEqual(heard, {host["heard"] for host in self.state["hosts"].values()})
        ages["now"] = 0.0
        self.take(self.feed.step(104.0))
        self.assertEqual({104.0}, {host["heard"] for host in self.state["hosts"].values()})

    def test_peer_rates(self):
        """The speed of a connection is what moved since the last step."""
        self.step()
        while self.leech.session.stage is not Stage.SEEDING:
            self.step()
        downs = [peer["down"] for peer in self.state["peers"].values()]
        self.assertEqual(1, len(downs))
        self.step()
        self.step()
        (peer,) = self.state["peers"].values()
        self.assertEqual((0, 0), (peer["down"], peer["up"]))

    def test_paused(self):
        """A paused content moves to the paused ones and has neither hosts nor pieces."""
        self.step()
        self.world.wait_for(self.control.call("pause", {}))
        self.step()
        self.assertEqual([self.key], list(self.state["paused"]))
        self.assertEqual(
            ({}, {}, {}), tuple(self.state.get(name, {}) for name in ("contents", "hosts", "peers"))
        )
        self.assertEqual(0, self.pieces.count)
