"""Whether the nodes of descriptors can be reached, over UDP and over TCP, by asking them.

Job: be a node for some seconds, ping each entry as a node does, then open a TCP connection to each
address and close it. It does NOT join any swarm. Tests: ``test_reaching``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from p2pdist.addresses import Address, HostPort, canonical_ip
from p2pdist.config import Config
from p2pdist.descriptor import Descriptor
from p2pdist.faces.checks import BAD, HINT, OK, Finding
from p2pdist.machine import Machine
from p2pdist.overlay.bootstrap import ANSWERED, EntryState
from p2pdist.presence import Presence
from p2pdist.service import P2PDistService

PATIENCE_S = 6.0
"""For an answer: three tries take two seconds, a name may take some."""
LOOK_S = 0.25
TCP_S = 5.0
OPEN = frozenset({EntryState.RESOLVING, EntryState.ASKED})
NO_NODE = 3
"""Exit code where nobody answers."""


@frozen
class Reached:
    """How one entry of ``nodes`` was reached.

    Attributes:
        entry: as written.
        state: what its UDP did.
        addresses: it has; those that answered, else those of its name.
        tcp: why TCP did not work, by address; ``""`` where it did.
    """

    entry: HostPort
    state: EntryState
    addresses: tuple[Address, ...]
    tcp: dict[Address, str]

    def finding(self) -> Finding:
        """Return it in words."""
        subject = f"node {self.entry}"
        if self.state is EntryState.SELF:
            return Finding(subject, OK, "is this very node")
        text, remedy, code = self._trouble()
        verdict = BAD if text else OK
        return Finding(subject, verdict, text or "answers over UDP and TCP", remedy, code)

    def _trouble(self) -> tuple[str, str, int]:
        """Return what is wrong, what to do, and the exit code."""
        works = not all(self.tcp.values())
        reasons = "; ".join(sorted({reason for reason in self.tcp.values() if reason}))
        if self.state in ANSWERED:
            text = "" if works else f"answers over UDP, but TCP is blocked: {reasons}"
            return text, "open TCP too; one direction is enough" if text else "", 1
        if self.state is EntryState.NO_NAME:
            remedy = "mend the name, or the name service"
            return self.state.value, remedy, NO_NODE
        if self.state is EntryState.WRONG_NETWORK:
            remedy = "hand the same descriptor, with its secret, to every machine"
            return self.state.value, remedy, NO_NODE
        if works:
            text = "no answer over UDP, but TCP works"
            return text, "open UDP on the same port, both ways", NO_NODE
        remedy = "is it running? Is the address right, are UDP and TCP open?"
        return f"no answer over UDP; TCP: {reasons or 'no address'}", remedy, NO_NODE


def rank(found: Sequence[Reached]) -> list[Finding]:
    """Return findings; where one node answers, silent others are only a hint."""
    findings = [one.finding() for one in found]
    if not any(one.state in ANSWERED for one in found):
        return findings
    return [
        Finding(one.subject, HINT, one.text, one.remedy)
        if one.verdict == BAD and one.exit_code == NO_NODE
        else one
        for one in findings
    ]


def reach(
    machine: Machine, config: Config, descriptors: Sequence[Descriptor]
) -> Deferred[list[Reached]]:
    """Ask the nodes of all descriptors.

    Fires with one for each entry and network, after some seconds at most; fails with
    ConfigurationError if no port can be opened, DescriptorError if a secret was not read.
    """
    return Deferred.fromCoroutine(_reach(machine, config, descriptors))


async def _reach(
    machine: Machine, config: Config, descriptors: Sequence[Descriptor]
) -> list[Reached]:
    service = P2PDistService(config, machine)
    asked: list[tuple[Presence, HostPort]] = []
    for descriptor in descriptors:
        for keys in descriptor.networks():
            presence = service.overlay.join(keys)
            presence.bootstrap.add(descriptor.nodes)
            asked += [(presence, node) for node in descriptor.nodes]
    asked = list({(id(one), node): (one, node) for one, node in asked}.values())
    service.privilegedStartService()
    service.startService()
    try:
        deadline = machine.reactor.seconds() + PATIENCE_S
        while machine.reactor.seconds() < deadline and any(
            report.state in OPEN
            for presence, node in asked
            for report in presence.bootstrap.reports([node])
        ):
            await deferLater(machine.reactor, LOOK_S, lambda: None)
        results: list[Reached] = await gatherResults(
            [Deferred.fromCoroutine(_one(machine, *one)) for one in asked], consumeErrors=True
        )
        return results
    finally:
        await service.stopService()


async def _one(machine: Machine, presence: Presence, entry: HostPort) -> Reached:
    """Return how one entry stands, with its TCP."""
    (report,) = presence.bootstrap.reports([entry])
    addresses = tuple(presence.bootstrap.answered([entry]))
    if not addresses and report.state not in {EntryState.NO_NAME, EntryState.SELF}:
        addresses = await _addresses(machine, entry)
    knocks = [_connect(machine, address) for address in addresses]
    outcomes: list[tuple[bool, Any]] = await DeferredList(knocks, consumeErrors=True)
    tcp = {
        address: "" if works else result.getErrorMessage()
        for address, (works, result) in zip(addresses, outcomes, strict=True)
    }
    return Reached(entry, report.state, addresses, tcp)


async def _addresses(machine: Machine, entry: HostPort) -> tuple[Address, ...]:
    ip = canonical_ip(entry.host)
    if ip is not None:
        return (Address(ip, entry.port),)
    try:
        found = await machine.resolve(entry.host)
    except Exception:  # noqa: BLE001 -- a name that is not known is told by its state
        return ()
    ips = dict.fromkeys(filter(None, map(canonical_ip, found)))
    return tuple(Address(one, entry.port) for one in ips)


class _Knock(ClientFactory):
    """One connection that is closed as soon as it is open.

    Attributes:
        done: fires then, or fails with what is in the way.
    """

    noisy = False

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> None:
        """It is open: nothing is said, and without a protocol it is closed."""
        del addr
        self.done.callback(None)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """It is not."""
        del connector
        if not self.done.called:
            self.done.errback(reason)


def _connect(machine: Machine, address: Address) -> Deferred[None]:
    """Open a connection and close it; fires then, or fails with what is in the way."""
    knock = _Knock()
    machine.reactor.connectTCP(address.host, address.port, knock, timeout=TCP_S)
    return knock.done
