"""The node that `junk.py` floods: the production service, and a clock that looks at the reactor.

It prints its port; then for every line on its standard input one JSON object about the time since
the line before. It ends when the input ends.
"""

# ruff: noqa: SLF001 -- the tables are counted from outside

from __future__ import annotations

import json
import resource
import sys
import threading
from pathlib import Path
from typing import Any

import common  # noqa: F401 -- makes p2pdist importable
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from p2pdist import limits
from p2pdist.config import Config
from p2pdist.faces.process import run_until_done
from p2pdist.machine import Machine
from p2pdist.overlay.network import Network
from p2pdist.service import P2PDistService

EVERY_S = 0.01


def overfull(network: Network) -> list[str]:
    """Return the tables that hold more than their bound."""
    guard = network.guard
    sizes = {
        "ciphers": (len(network.envelope._ciphers), limits.ENVELOPE_CIPHERS),
        "paths": (len(network.rpc.paths), limits.RTT_ENTRIES),
        "calls": (network.rpc.outstanding, limits.CALLS_OUTSTANDING),
        "replies": (len(network._replies), limits.REPLY_CACHE),
        "queries": (len(network._carrier._relay), limits.QUERY_CACHE),
        "neighbours": (len(network.neighbours), 2 * limits.NEIGHBOURS),
        "topics": (network.peers.topics, limits.TOPICS),
        "peers": (network.peers.total, limits.PEERS_TOTAL),
        "silent": (len(guard.silent), limits.NEGATIVE_CACHE),
        **{
            name: (len(getattr(guard, name)), limits.RATE_KEYS)
            for name in ("_ping", "_request", "_first_hop", "_forward", "_source", "_offer")
        },
        "_challenge": (len(guard._challenge), limits.RATE_KEYS),
        "_announce": (len(guard._announce), limits.RATE_KEYS),
    }
    return [f"{name}: {size} of {bound}" for name, (size, bound) in sizes.items() if size > bound]


@implementer(ILogObserver)
@define(eq=False)
class Lines:
    """Counts the lines that go to the log."""

    count: int = 0

    def __call__(self, event: Any) -> None:
        """See :class:`ILogObserver`."""
        del event
        self.count += 1


@define(eq=False)
class Watch:
    """Measures how late the reactor's timers are, and what the node did meanwhile.

    Args:
        machine: whose reactor.
        service: the node.
    """

    machine: Machine
    service: P2PDistService
    _late_s: list[float] = field(init=False, factory=list)
    _lines: Lines = field(init=False, factory=Lines)

    def start(self) -> None:
        """Begin."""
        globalLogPublisher.addObserver(self._lines)
        self._wait()

    def _wait(self) -> None:
        due = self.machine.reactor.seconds() + EVERY_S
        self.machine.reactor.callLater(EVERY_S, self._tick, due)

    def _tick(self, due: float) -> None:
        self._late_s.append(self.machine.reactor.seconds() - due)
        self._wait()

    def report(self) -> None:
        """Print what happened since the last report."""
        network = self.service.overlay.network
        late = sorted(self._late_s) or [0.0]
        said = {
            "late_p99_s": late[len(late) * 99 // 100],
            "late_max_s": late[-1],
            "lines": self._lines.count,
            "overfull": overfull(network),
            "bugs": self.service.overlay.node.dropped["bug"],
            "cpu_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
            "rss_kib": rss_kib(),
        }
        self._late_s.clear()
        self._lines.count = 0
        print(json.dumps(said), flush=True)


def rss_kib() -> int:
    """Return this process's resident memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def main() -> None:
    """Run until the standard input ends."""

    def work(machine: Machine) -> Deferred[None]:
        service = P2PDistService(Config(port=0, listen=("127.0.0.1",), lan=False), machine)
        service.startService()
        watch = Watch(machine, service)
        watch.start()
        done: Deferred[None] = Deferred()
        call = machine.reactor.callFromThread

        def listen() -> None:
            for _line in sys.stdin:
                call(watch.report)
            call(lambda: service.stopService().chainDeferred(done))

        threading.Thread(target=listen, daemon=True).start()
        print(service.port, flush=True)
        return done

    run_until_done(work)


if __name__ == "__main__":
    main()
