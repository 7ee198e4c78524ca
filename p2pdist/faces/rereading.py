"""SIGHUP: options, their file, signers, secrets and descriptors are read again.

Job: read the options as at the start, in a worker; take what a running node can change, say what it
cannot. What cannot be used is logged, and then nothing of the options is taken. It does NOT read
descriptors (``daemon.watching`` does, afterwards, with the new signers). Tests: ``test_rereading``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from p2pdist.config import Config
from p2pdist.daemon.watching import Watching
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import NodeStopped, P2PDistError
from p2pdist.logs import new_logger
from p2pdist.service import P2PDistService
from p2pdist.swarm.throttle import RateLimits
from p2pdist.workers import IWorkers


class Asked(Protocol):
    """Options as they were read.

    Attributes:
        descriptors: of the files named, as they were at the start.
        files: these.
        parser: of descriptors.
        config: of the node.
        fixed: what only a restart changes, by option.
    """

    descriptors: list[Descriptor]
    files: list[str]
    parser: DescriptorParser
    config: Config

    @property
    def fixed(self) -> dict[str, object]:
        """What only a restart changes, by option."""

    def rates_of(self, descriptor: Descriptor) -> RateLimits | None:
        """Return what one content may move, if an option names it."""

    def read_again(self) -> Asked:
        """Return the same options read anew, but for descriptors and sockets. Blocks.

        Raises:
            P2PDistError: they cannot be used.
        """


@define(eq=False)
class Rereading:
    """Reads everything again.

    Args:
        asked: the options as they hold now; its parser is the one that all use.
        service: that is told.
        watching: reads descriptors.
        workers: where.
    """

    asked: Asked
    service: P2PDistService
    watching: Watching
    workers: IWorkers
    _log = new_logger()

    def reload(self) -> Deferred[None]:
        """Read again. Fires when all is taken that can be; never fails."""
        work = self.workers.run(self.asked.read_again)
        return work.addCallback(self._take).addErrback(self._refused).addCallback(self._follow)

    def rates_of(self, descriptor: Descriptor) -> RateLimits | None:
        """Return what one content may move, as the options say now."""
        return self.asked.rates_of(descriptor)

    def _follow(self, _result: object) -> Deferred[None]:
        return self.watching.reload().addCallback(self._look_at_added).addErrback(self._stopped)

    def _look_at_added(self, _none: None) -> Deferred[None]:
        """Read again what was added while the node ran: its signature may count no more."""
        added = self.service.added
        work = self.workers.run(partial(added.read, self.watching.parser))
        return work.addCallback(added.take, self.service.contents, self.watching.names)

    @staticmethod
    def _stopped(failure: Failure) -> None:
        failure.trap(NodeStopped)

    def _take(self, fresh: Asked) -> None:
        """Change what can be changed while the node runs."""
        self.service.overlay.serve(fresh.config.secrets)  # first: it may refuse
        before, self.asked = self.asked, fresh
        parser = self.watching.parser
        parser.signers, fresh.parser = fresh.parser.signers, parser
        self.service.contents.options_say(fresh.config.rates)
        self.watching.name(fresh.files)
        changed = _changed(before, fresh)
        if changed:
            self._log.warn(
                "options that changed and need a restart: {options}", options=", ".join(changed)
            )

    def _refused(self, failure: Failure) -> None:
        failure.trap(P2PDistError)
        self._log.error("{reason}. The options from before go on.", reason=str(failure.value))


def _changed(before: Asked, fresh: Asked) -> Sequence[str]:
    return [name for name, value in fresh.fixed.items() if value != before.fixed[name]]
