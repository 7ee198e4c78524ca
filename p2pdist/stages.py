"""The stages of one descriptor's life, as a table. Pure.

::

    checking --> resolving --> finding <--> joining
        |            `------------+------------|---> leeching --> seeding
        |                         ^------------'---------'           ^
        `------------------------------------------------------------'
    any --> failed, any --> stopped

checking: what is on disk already is looked at. resolving: no node answered yet. finding: a lookup
is under way or waits for its next try. joining: offered addresses are pinged and joined. leeching:
at least one peer joined. seeding: every piece is here. failed: only the operator can go on, also
when somebody changed a complete file: it is theirs, and nothing is repaired under their hands.

Tests: ``test_stages``; drawn into the documentation from the same table.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from attrs import define
from automat import TypeMachineBuilder


class Stage(enum.Enum):
    """Where a descriptor stands; the value is the word people see."""

    CHECKING = "checking"
    RESOLVING = "resolving"
    FINDING = "finding"
    JOINING = "joining"
    LEECHING = "leeching"
    SEEDING = "seeding"
    FAILED = "failed"
    STOPPED = "stopped"


class Course(Protocol):
    """What happens to a descriptor."""

    def looked(self) -> None:
        """The disk was looked at; something is missing."""

    def way_in(self) -> None:
        """A node answered."""

    def peer_offered(self) -> None:
        """Somebody named a peer."""

    def peer_joined(self) -> None:
        """A peer joined."""

    def search_failed(self) -> None:
        """A lookup ended without a peer."""

    def last_peer_left(self) -> None:
        """No peer is joined any more."""

    def completed(self) -> None:
        """Every piece is here, under the final name."""

    def broke(self) -> None:
        """Something happened that only the operator can mend."""

    def ended(self) -> None:
        """The session was stopped."""


@define
class Core:
    """What the machine acts on.

    Args:
        entered: called with every new stage.
    """

    entered: Callable[[Stage], None]


MOVES: dict[tuple[Stage, str], Stage] = {
    (Stage.CHECKING, "looked"): Stage.RESOLVING,
    (Stage.CHECKING, "completed"): Stage.SEEDING,
    (Stage.RESOLVING, "way_in"): Stage.FINDING,
    (Stage.RESOLVING, "peer_offered"): Stage.JOINING,
    (Stage.RESOLVING, "peer_joined"): Stage.LEECHING,
    (Stage.FINDING, "peer_offered"): Stage.JOINING,
    (Stage.FINDING, "peer_joined"): Stage.LEECHING,
    (Stage.JOINING, "peer_joined"): Stage.LEECHING,
    (Stage.JOINING, "search_failed"): Stage.FINDING,
    (Stage.LEECHING, "last_peer_left"): Stage.FINDING,
    (Stage.RESOLVING, "completed"): Stage.SEEDING,
    (Stage.FINDING, "completed"): Stage.SEEDING,
    (Stage.JOINING, "completed"): Stage.SEEDING,
    (Stage.LEECHING, "completed"): Stage.SEEDING,
    **{(stage, "broke"): Stage.FAILED for stage in Stage if stage is not Stage.STOPPED},
    **{(stage, "ended"): Stage.STOPPED for stage in Stage},
}
"""(stage, event) -> next stage; every other event leaves the stage as it is."""

EVENTS = (
    *("looked", "way_in", "peer_offered", "peer_joined", "search_failed", "last_peer_left"),
    *("completed", "broke", "ended"),
)


def _build() -> Callable[[Core], Course]:
    builder = TypeMachineBuilder(Course, Core)
    states = {stage: builder.state(stage.value) for stage in Stage}

    def entering(target: Stage) -> Callable[[Course, Core], None]:
        def enter(_course: Course, core: Core) -> None:
            core.entered(target)

        return enter

    for stage in Stage:
        for event in EVENTS:
            transition = states[stage].upon(getattr(Course, event))
            target = MOVES.get((stage, event), stage)
            if target is stage:
                transition.loop().returns(None)
            else:
                transition.to(states[target])(entering(target))
    return builder.build()


new_course = _build()
"""Make the machine of one descriptor, in :attr:`Stage.CHECKING`."""
