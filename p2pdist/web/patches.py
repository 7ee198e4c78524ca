"""What changed between two states, as small as it can be said. Pure.

JSON values change by merge patches (RFC 7396): a patch holds the members that differ, ``null``
removes one. Piece maps change by the exclusive or of their masks, compressed: a map nobody touched
is a few bytes, whatever its size. Tests: ``test_web_feed``.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from typing import Any

from p2pdist.closeup import PieceMap
from p2pdist.swarm import masks

LEVEL = 1
"""Of zlib: these bytes go to the same machine."""


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return what turns ``old`` into ``new``; members that are ``None`` count as not there."""
    patch: dict[str, Any] = {
        key: None for key in old if new.get(key) is None and old[key] is not None
    }
    for key, value in new.items():
        before = old.get(key)
        if value is None or value == before:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            patch[key] = merge_patch(before, value)
        else:
            patch[key] = value
    return patch


def piece_patch(old: PieceMap, new: PieceMap) -> dict[str, Any] | None:
    """Return what turns one piece map into another, ``None`` if they are equal.

    ``data`` are the layers one after the other (have, in flight, writing, planes of availability),
    each a bitfield, the exclusive or with those of ``old``, as zlib in base64. Where the number of
    pieces or layers differs, ``old`` counts as empty and ``fresh`` is true.
    """
    if old == new:
        return None
    layers, before = new.layers(), old.layers()
    fresh = old.count != new.count or len(layers) != len(before)
    if not fresh:
        layers = [layer ^ known for layer, known in zip(layers, before, strict=True)]
    data = b"".join(masks.to_bitfield(layer, new.count) for layer in layers)
    return {
        "fresh": fresh,
        "pieces": new.count,
        "layers": len(layers),
        "data": b64encode(zlib.compress(data, LEVEL)).decode(),
    }
