"""``--exit-when``: the node ends by itself once there is nothing left for it to do.

    done             every content is here, under its final name
    seeded:RATIO     and each was sent RATIO times its length by this process
    fleet-done       every content is done, on every machine that is known of, one other at least
    fleet-done:N     and that is N machines or more, this one included

Job: decide, once a second, and end the process: with 0 when the goal is reached, with 1 when a
content, a machine or a command of ``--on-complete`` failed and everything else is over. Machines
that are lost, failed or paused are given ``limits.FLEET_LOST_S`` to come again. It does NOT stop
the service: the reactor's shutdown does. Tests: ``test_goals``.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from p2pdist import limits
from p2pdist.contents import TransferService
from p2pdist.errors import ConfigurationError
from p2pdist.logs import new_logger
from p2pdist.session import Session
from p2pdist.stages import Stage


class Kind(enum.Enum):
    """What is waited for; the value is the word of the option."""

    DONE = "done"
    SEEDED = "seeded"
    FLEET = "fleet-done"


@frozen
class Goal:
    """What is waited for.

    Attributes:
        kind: of goal.
        ratio: of :attr:`Kind.SEEDED`.
        nodes: of :attr:`Kind.FLEET`, at least.
    """

    kind: Kind
    ratio: float = 0.0
    nodes: int = 2


def parse_goal(text: str) -> Goal:
    """Return what ``--exit-when`` says.

    Raises:
        ConfigurationError: no such goal.
    """
    word, colon, value = text.partition(":")
    if word == "done" and not colon:
        return Goal(Kind.DONE)
    if word == "seeded" and value:
        try:
            ratio = float(value)
        except ValueError:
            ratio = math.nan
        if 0 < ratio <= limits.RATIO_MAX:
            return Goal(Kind.SEEDED, ratio=ratio)
    if word == "fleet-done" and not colon:
        return Goal(Kind.FLEET)
    number = value.isascii() and value.isdigit() and len(value) < 8 and int(value)
    if word == "fleet-done" and number:
        return Goal(Kind.FLEET, nodes=number)
    raise ConfigurationError(
        f"--exit-when {text[:80]!a}: expected done, seeded:RATIO such as seeded:1.5, fleet-done, "
        "or fleet-done:N such as fleet-done:40"
    )


@frozen(kw_only=True)
class Standing:
    """How one content stands, as far as goals are concerned.

    Attributes:
        stage: of it.
        ratio: bytes sent by its length.
        fleet: machines that are there, or were done when they left.
        done: of these, who has everything.
        lost: names of these that are lost, failed or paused.
    """

    stage: Stage
    ratio: float = 0.0
    fleet: int = 1
    done: int = 0
    lost: tuple[str, ...] = ()

    def reaches(self, goal: Goal) -> bool:
        """Whether nothing is left to do for it, and nobody left to wait for."""
        if self.stage is not Stage.SEEDING:
            return False
        if goal.kind is Kind.SEEDED:
            return self.ratio >= goal.ratio
        others = self.fleet - len(self.lost) == self.done
        return goal.kind is Kind.DONE or (goal.nodes <= self.fleet and others)


def standing(session: Session, goal: Goal) -> Standing:
    """Return how a content stands; the fleet is asked for only where it matters."""
    progress = session.transfer.progress()
    hosts = session.fleet.hosts() if goal.kind is Kind.FLEET else []
    return Standing(
        stage=session.stage,
        ratio=progress.uploaded_bytes / max(1, progress.length or 0),
        fleet=sum(host.counts for host in hosts),
        done=sum(host.record.report.complete for host in hosts),
        lost=tuple(host.name for host in hosts if host.hopeless),
    )


def verdict(goal: Goal, contents: Sequence[Standing]) -> int | None:
    """Return the exit code, or ``None`` while there is something to do."""
    if not contents:
        return None
    failed = [content for content in contents if content.stage is Stage.FAILED]
    others = [content for content in contents if content.stage is not Stage.FAILED]
    if not all(content.reaches(goal) for content in others):
        return None
    return 1 if failed or lost_in(others) else 0


def lost_in(contents: Sequence[Standing]) -> list[str]:
    """Return the machines that are lost, failed or paused, where we ourselves are done."""
    return sorted({name for one in contents if one.stage is Stage.SEEDING for name in one.lost})


@define(eq=False)
class Ending(Service):
    """Ends the process when its goal is reached.

    Args:
        goal: that is waited for.
        contents: that are looked at; paused ones are waited for too.
        clock: for the pace.
        end: ends the process with an exit code.
        busy: tells whether there is other work to wait for.
        failed: tells whether that work failed.
    """

    goal: Goal
    contents: TransferService
    clock: IReactorTime
    end: Callable[[int], None]
    busy: Callable[[], bool] = lambda: False
    failed: Callable[[], bool] = lambda: False
    _loop: LoopingCall | None = field(init=False, default=None)
    _since: float | None = field(init=False, default=None)
    _log = new_logger()

    def startService(self) -> None:
        """Look every second."""
        super().startService()
        self._loop = LoopingCall(self._look)
        self._loop.clock = self.clock
        self._loop.start(limits.PROGRESS_EVERY_S, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._loop is not None and self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        contents = [standing(one, self.goal) for one in self.contents.sessions.values()]
        code = None if self.contents.paused else verdict(self.goal, contents)
        if code is None or self.busy():
            self._since = None
            return
        now = self.clock.seconds()
        if self._since is None:
            self._since = now
        lost = lost_in(contents)
        if now - self._since < self._patience_s(code, lost):
            return
        code = 1 if self.failed() else code
        word = "reached" if code == 0 else "over, but something failed"
        if lost:
            word = f"over, but for machines that are lost, failed or paused: {', '.join(lost)}"
        self._log.info(
            "--exit-when {goal}: {word}, ending with {code}",
            goal=self.goal.kind.value,
            word=word,
            code=code,
        )
        self.stopService()
        self.end(code)

    def _patience_s(self, code: int, lost: list[str]) -> float:
        """Return how long things have to stand like this before the process ends."""
        if lost:
            return limits.FLEET_LOST_S
        return limits.FLEET_DONE_S if self.goal.kind is Kind.FLEET and code == 0 else 0.0
