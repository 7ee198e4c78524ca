"""Running as a process: the global reactor, its clock, and commands that end by themselves.

Job: everything in this package that needs the process's one reactor gets it here (the twistd plugin
is given it in ``tap``). Tests: ``test_foreground``, ``test_e2e``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from p2pdist.machine import Machine, real_machine

T = TypeVar("T")


def steady(reactor: Any) -> Any:
    """Make the reactor's clock one that nobody can set, and return the reactor.

    Twisted tells the time of day: a machine whose clock is set back an hour would wait an hour.
    """
    reactor.seconds = time.monotonic  # noqa: TID251 -- here the clock is what is injected
    return reactor


def run_until_done(work: Callable[[Machine], Deferred[T]]) -> T:
    """Run the reactor until ``work`` is done, and return its result.

    Args:
        work: begins it; the reactor stops when the Deferred has fired. An interrupt cancels it.

    Raises:
        KeyboardInterrupt: somebody stopped the process first.
        Exception: whatever the Deferred failed with.
    """
    from twisted.internet import reactor as default  # noqa: TID251 -- the process's own

    reactor = steady(default)
    machine = real_machine(reactor)
    results: list[T | Failure] = []

    def done(result: T | Failure) -> None:
        results.append(result)
        if reactor.running:
            reactor.stop()

    def begin() -> None:
        work(machine).addBoth(done)

    reactor.callWhenRunning(begin)
    reactor.run()
    if not results:
        raise KeyboardInterrupt
    result = results[0]
    if isinstance(result, Failure):
        assert result.value is not None
        raise result.value
    return result
