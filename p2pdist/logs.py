"""The package's loggers: twisted.logger, with debug lines dropped unless somebody wants them.

twistd prints every level it is given; per-message lines are for those who ask (``--verbose``, or
:data:`level` set by an embedding application). Tests: ``test_logs``.
"""

from __future__ import annotations

from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)

level = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
"""Which events get through; :func:`verbose` opens it."""

_observer = FilteringLogObserver(globalLogPublisher, [level])


def new_logger() -> Logger:
    """Return a logger to be a class attribute; its namespace becomes the class's."""
    return Logger(observer=_observer)


def verbose() -> None:
    """Let debug events through from now on."""
    level.setLogLevelForNamespace("p2pdist", LogLevel.debug)
