"""Tests of the stages of a descriptor's life: the machine does what its table says."""

from __future__ import annotations

from hypothesis import strategies as st

from p2pdist.stages import EVENTS, MOVES, Core, Course, Stage, new_course
from p2pdist.test.support import TestCase, given


def course() -> tuple[Course, list[Stage]]:
    """Return a machine and the list of stages it enters."""
    entered: list[Stage] = []
    return new_course(Core(entered.append)), entered


class StageTests(TestCase):
    """One life."""

    def run_through(self, *events: str) -> list[Stage]:
        """Return the stages entered when ``events`` happen."""
        machine, entered = course()
        for event in events:
            getattr(machine, event)()
        return entered

    @given(st.lists(st.sampled_from(EVENTS), max_size=40))
    def test_follows_the_table(self, events: list[str]):
        """After any events it is where the table leads; a stage is told only when it is new."""
        stage, expected = Stage.CHECKING, []
        for event in events:
            target = MOVES.get((stage, event), stage)
            if target is not stage:
                expected.append(target)
            stage = target
        self.assertEqual(expected, self.run_through(*events))

    def test_download(self):
        """The usual life: look at the disk, find the way in, peers, data; then give to others."""
        words = [
            stage.value
            for stage in self.run_through(
                "looked", "way_in", "peer_offered", "peer_joined", "completed", "ended"
            )
        ]
        self.assertEqual(
            ["resolving", "finding", "joining", "leeching", "seeding", "stopped"], words
        )

    def test_complete_already(self):
        """What is complete on disk is seeded without a search."""
        self.assertEqual([Stage.SEEDING], self.run_through("completed", "way_in", "peer_offered"))

    def test_searching_again(self):
        """Offers that lead nowhere, and peers that go, lead back to finding."""
        self.assertEqual(
            [Stage.RESOLVING, Stage.JOINING, Stage.FINDING, Stage.LEECHING, Stage.FINDING],
            self.run_through(
                "looked", "peer_offered", "search_failed", "peer_joined", "last_peer_left"
            ),
        )

    def test_failed_until_the_operator_acts(self):
        """After a failure only stopping is left; after stopping, nothing."""
        self.assertEqual([Stage.FAILED], self.run_through("broke", *EVENTS[:-1]))
        self.assertEqual([Stage.FAILED, Stage.STOPPED], self.run_through("broke", "ended"))
        self.assertEqual([Stage.STOPPED], self.run_through("ended", *EVENTS))

    def test_every_stage_can_be_reached(self):
        """No stage of the table is out of reach, and every event is one of the machine's."""
        reached = {Stage.CHECKING} | set(MOVES.values())
        self.assertEqual(set(Stage), reached)
        self.assertEqual(set(EVENTS), {event for _, event in MOVES})
