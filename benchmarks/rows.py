"""The registry of `reliability.py`: one function for each row of the table, in modules by subject.

A module of rows decorates its functions with :func:`row` and is named in ``reliability.MODULES``.
A row adds one figure or more to the report, with their targets; what cannot be measured here or
quickly is skipped with a reason.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from common import Report


@frozen
class Setting:
    """How much work a row does.

    Attributes:
        quick: everything together takes 45 s.
        seed: first of those that are drawn from.
    """

    quick: bool
    seed: int = 0

    def times(self, full: int, quick: int) -> range:
        """Return the seeds of a row."""
        return range(self.seed, self.seed + (quick if self.quick else full))


Measure = Callable[[Report, Setting], None]
ROWS: dict[str, Measure] = {}


def row(name: str) -> Callable[[Measure], Measure]:
    """Enter a function as the row called ``name``."""

    def enter(measure: Measure) -> Measure:
        assert name not in ROWS, name
        ROWS[name] = measure
        return measure

    return enter
