"""NATs in the simulated network: hosts that share one outside address, and cannot be called first.

Job: translate datagrams out and in, as RFC 4787 describes it: the mapping does not depend on the
target, only datagrams out keep a binding alive, hairpinning shows the outside address. TCP passes
untranslated outwards. Tests: ``test_sim_nat``.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

from p2pdist.test.simwires import Machine, SocketAddress, Wires

BINDING_S: Final = 60.0
_FIRST_PORT: Final = 40001


@define(eq=False)
class _Mapping:
    """What stands for one inside socket.

    Attributes:
        inside: whose.
        where: its IP and port.
        port: outside.
        sent: when it last sent to each target.
    """

    inside: Machine
    where: SocketAddress
    port: int
    sent: dict[SocketAddress, float] = field(factory=dict)


class NAT(Machine):
    """A router with one outside address.

    Args:
        wires: the network it hangs on.
        ip: its outside address.
        hosts: the machines behind it.
        full_cone: whether anybody may use a mapping (RFC 4787: endpoint-independent filtering);
            else only whom the inside sent to, at that very port.

    Attributes:
        dropped: datagrams from outside that were not let in, as (source, target).
    """

    def __init__(self, wires: Wires, ip: str, *hosts: Machine, full_cone: bool = False) -> None:
        super().__init__(wires, ip, (ip,))
        self.full_cone = full_cone
        self.dropped: list[tuple[SocketAddress, SocketAddress]] = []
        self._mappings: dict[SocketAddress, _Mapping] = {}
        self._forwarded: dict[int, _Mapping] = {}
        self._next_free = _FIRST_PORT
        for host in hosts:
            host.router = self
        wires.plug(self)

    def forward(self, port: int, inside: Machine) -> None:
        """Forward an outside port to the same port of a host, both ways and for good."""
        self._forwarded[port] = _Mapping(inside, (inside.addresses[0], port), port)

    def outside(self, host: Machine, port: int) -> SocketAddress | None:
        """Return where the socket at ``port`` of ``host`` is seen now, if anywhere."""
        mapping = self._mapping(host, (host.addresses[0], port))
        return None if mapping is None else (self.addresses[0], mapping.port)

    def outward(
        self, inside: Machine, source: SocketAddress, target: SocketAddress
    ) -> SocketAddress:
        """Return the source that a datagram from ``inside`` shows outside; opens its binding."""
        mapping = self._mapping(inside, source)
        if mapping is None:
            mapping = self._mappings[source] = _Mapping(inside, source, self._next_free)
            self._next_free += 1
        mapping.sent[target] = self.wires.now
        return self.addresses[0], mapping.port

    def inward(
        self, source: SocketAddress, target: SocketAddress
    ) -> tuple[Machine, SocketAddress] | None:
        """Return the machine and socket a datagram from outside is for; ``None``: it is dropped."""
        forwarded = self._forwarded.get(target[1])
        if forwarded is not None:
            return forwarded.inside, forwarded.where
        for mapping in self._mappings.values():
            if mapping.port == target[1] and (
                self._alive(mapping) if self.full_cone else self._open(mapping, source)
            ):
                return mapping.inside, mapping.where
        self.dropped.append((source, target))
        return None

    def _mapping(self, inside: Machine, source: SocketAddress) -> _Mapping | None:
        for forwarded in self._forwarded.values():
            if forwarded.inside is inside and forwarded.where == source:
                return forwarded
        mapping = self._mappings.get(source)
        return mapping if mapping is not None and self._alive(mapping) else None

    def _alive(self, mapping: _Mapping) -> bool:
        return any(self._open(mapping, target) for target in mapping.sent)

    def _open(self, mapping: _Mapping, source: SocketAddress) -> bool:
        return self.wires.now - mapping.sent.get(source, float("-inf")) < BINDING_S
