"""Rate limits that were set while the node ran, kept over its restarts.

The latest word counts. A limit is kept with what the options said when it was set: while they say
the same it holds, also after a restart; once they say something else, that holds. The file, JSON::

    {"": {"upload": [10485760, null]}, "b3:...": {"download": [0, 1048576]}}

Each direction has what was set and what the options said, in bytes per second, ``null`` or 0 for
unlimited; ``""`` stands for the whole process.

Job: remember, and say what holds. It does NOT limit anything. Threat: a damaged file; what cannot
be used in it is passed over. At most ``limits.KEPT_LIMITS`` contents. Tests: ``test_keptlimits``.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any, Final, Literal

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.errors import P2PDistError
from p2pdist.logs import new_logger
from p2pdist.storage.statedir import StateDirectory
from p2pdist.swarm.throttle import RateLimits
from p2pdist.workers import IWorkers

Direction = Literal["upload", "download"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("upload", "download")
PROCESS: Final = ""
"""Names all contents together."""
_NAME: Final = re.compile(r"(b3:[0-9a-f]{64})?")
Word = tuple[int | None, int | None]
"""What was set, and what the options said then."""


@define(eq=False)
class KeptLimits:
    """What was set.

    Args:
        workers: where files are written.
        state: keeps it; ``None`` forgets it at the end.
    """

    workers: IWorkers
    state: StateDirectory | None = None
    _words: dict[str, dict[Direction, Word]] = field(init=False)
    _options: dict[str, RateLimits] = field(init=False, factory=dict)
    _saving: DeferredLock = field(init=False, factory=DeferredLock)
    _log = new_logger()

    def __attrs_post_init__(self) -> None:
        self._words = {} if self.state is None else parse(self.state.load_limits())

    def holding(self, name: str, options: RateLimits) -> RateLimits:
        """Return what holds for a content, or for :data:`PROCESS`.

        Args:
            name: ``b3:`` and its key.
            options: what the options say now.
        """
        self._options[name] = options
        words = self._words.get(name, {})

        def one(direction: Direction) -> int | None:
            said: int | None = getattr(options, direction)
            kept = words.get(direction)
            return kept[0] if kept is not None and kept[1] == said else said

        return RateLimits(upload=one("upload"), download=one("download"))

    def said(self, name: str) -> RateLimits:
        """Return what the options said last."""
        return self._options.get(name, RateLimits())

    def set(self, name: str, rates: RateLimits) -> Deferred[None]:
        """Keep what was set while the node runs; what the options say as well is not kept.

        Returns:
            Fires when it is saved, or cannot be, which is logged; never fails.
        """
        options = self.said(name)
        words: dict[Direction, Word] = {
            direction: (getattr(rates, direction), getattr(options, direction))
            for direction in DIRECTIONS
            if getattr(rates, direction) != getattr(options, direction)
        }
        self._words.pop(name, None)
        if words:
            self._words[name] = words
        while len(self._words) > limits.KEPT_LIMITS:
            del self._words[next(iter(self._words))]  # the one set longest ago
        if self.state is None:
            return succeed(None)
        save = partial(self.state.save_limits, json.dumps(self._words).encode())
        return self._saving.run(self.workers.run, save).addErrback(self._eb_saved)

    def _eb_saved(self, failure: Failure) -> None:
        failure.trap(P2PDistError)
        self._log.warn(
            "limits are not saved and end with this process: {reason}", reason=str(failure.value)
        )


def parse(data: bytes) -> dict[str, dict[Direction, Word]]:
    """Return what a file says, as far as it can be used."""
    try:
        values = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    found = {name: _words(said) for name, said in values.items() if _NAME.fullmatch(name)}
    usable = [(name, words) for name, words in found.items() if words]
    return dict(usable[-limits.KEPT_LIMITS :])


def _words(said: Any) -> dict[Direction, Word]:
    if not isinstance(said, dict):
        return {}
    pairs = ((direction, said.get(direction)) for direction in DIRECTIONS)
    return {
        direction: (pair[0] or None, pair[1] or None)
        for direction, pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(map(_is_rate, pair))
    }


def _is_rate(value: Any) -> bool:
    if value is None or (type(value) is int and value == 0):
        return True
    return type(value) is int and limits.RATE_LIMIT_MIN <= value <= 2**62
