"""Running as a process: the global reactor, its clocks, and commands that end by themselves.

Job: everything in this package that needs the process's one reactor gets it here (the twistd plugin
is given it in ``tap``), and so does what needs the time of day. Tests: ``test_foreground``,
``test_e2e``.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from p2pdist.errors import ConfigurationError
from p2pdist.logs import new_logger
from p2pdist.machine import Machine, real_machine
from p2pdist.signers import Signers, load_signers

T = TypeVar("T")
_log = new_logger()


def steady(reactor: Any) -> Any:
    """Make the reactor's clock one that nobody can set, and return the reactor.

    Twisted tells the time of day: a machine whose clock is set back an hour would wait an hour.
    """
    reactor.seconds = time.monotonic  # noqa: TID251 -- here the clock is what is injected
    return reactor


def patient_once(reactor: Any) -> None:
    """Let the first SIGTERM or SIGINT stop in order, and the next one end the process at once.

    A stop in order is what was asked for, so twistd then ends with 0. Left alone, it would die of
    the signal even after a clean stop, and stop a stopping reactor with a traceback. From the first
    signal on, the system's own way holds: the process dies of the next, whatever it is waiting for.
    SIGUSR1, which nobody here waits for, is ignored.
    """
    ends = (signal.SIGTERM, signal.SIGINT)

    def stop(name: str) -> None:
        _log.info("{signal}: stopping", signal=name)
        with suppress(ReactorNotRunning):  # it is stopping already
            reactor.stop()

    def first(number: int, _frame: Any) -> None:
        for one in ends:
            signal.signal(one, signal.SIG_DFL)
        reactor.callFromThread(stop, signal.Signals(number).name)

    def begin() -> None:
        for one in ends:
            signal.signal(one, first)
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:  # with a log file twistd takes it
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    reactor.callWhenRunning(begin)


def on_hangup(reactor: Any, act: Callable[[], Any]) -> None:
    """Call ``act`` in the reactor's thread at each SIGHUP."""

    def hangup(_number: int, _frame: Any) -> None:
        reactor.callFromThread(act)

    reactor.callWhenRunning(signal.signal, signal.SIGHUP, hangup)


def end_with(reactor: Any, code: int) -> None:
    """Stop the reactor, and let the process end with ``code``.

    twistd itself ends with 0 after every stop; the code is put in its place at the very end.
    """
    if code:

        def leave() -> None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

        atexit.register(leave)
    reactor.stop()


def asked_signers(allowed_signers: str | None, revoked_keys: str | None) -> Signers | None:
    """Return what the options of these names ask for; ``None`` takes any descriptor.

    Raises:
        ConfigurationError: a file cannot be used, or revoked keys are given alone.
    """
    if allowed_signers is not None:
        # The time of day: that is what validity is written in.
        return load_signers(allowed_signers, time.time, revoked_keys)  # noqa: TID251
    if revoked_keys is not None:
        raise ConfigurationError(
            "--revoked-keys: says nothing without --allowed-signers; give both, or neither"
        )
    return None


def run_until_done(work: Callable[[Machine], Deferred[T]]) -> T:
    """Run the reactor until ``work`` is done, and return its result.

    Args:
        work: begins it; the reactor stops when the Deferred has fired. Whatever must end in order
            after an interrupt hangs on the reactor's shutdown.

    Raises:
        KeyboardInterrupt: somebody stopped the process first.
        Exception: whatever ``work`` raised or the Deferred failed with.
    """
    from twisted.internet import reactor as default  # noqa: TID251 -- the process's own

    reactor = steady(default)
    patient_once(reactor)
    machine = real_machine(reactor)
    results: list[T | Failure] = []
    interrupted = False

    def done(result: T | Failure) -> None:
        results.append(result)
        with suppress(ReactorNotRunning):  # an interrupt was faster
            reactor.stop()

    def shutdown() -> None:
        nonlocal interrupted
        interrupted = not results

    def begin() -> None:
        reactor.addSystemEventTrigger("before", "shutdown", shutdown)
        maybeDeferred(work, machine).addBoth(done)  # also for what it raises at once

    reactor.callWhenRunning(begin)
    reactor.run()
    result = results[0] if results else None
    if interrupted and (not results or isinstance(result, Failure)):
        raise KeyboardInterrupt
    if isinstance(result, Failure):
        assert result.value is not None
        raise result.value
    return cast("T", result)
