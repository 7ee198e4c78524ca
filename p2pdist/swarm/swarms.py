"""The contents callers may ask for, each in its own networks.

Job: a table; a public content and a private one are never found by the same question. Does NOT
know connections. Tests: ``test_private_tcp``.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from p2pdist.ids import HashKey, Topic
from p2pdist.keys import NetworkKeys
from p2pdist.swarm.transfer import Transfer


@define
class _Network:
    """One private network: its transfers, with the key that proves each."""

    keys: NetworkKeys
    transfers: dict[HashKey, tuple[bytes, Transfer]] = field(factory=dict)


@define
class Swarms:
    """See the module."""

    _public: dict[Topic, Transfer] = field(factory=dict)
    _private: dict[bytes, _Network] = field(factory=dict, repr=False)

    def add(self, transfer: Transfer, networks: tuple[NetworkKeys, ...]) -> None:
        """Let callers of these networks ask for a content."""
        for keys in networks:
            if keys.private:
                network = self._private.setdefault(keys.prk, _Network(keys))
                tcp_key = keys.tcp_key(transfer.hash_key)
                network.transfers[transfer.hash_key] = (tcp_key, transfer)
            else:
                self._public[transfer.topic] = transfer

    def remove(self, transfer: Transfer) -> None:
        """Let nobody ask for it any more."""
        if self._public.get(transfer.topic) is transfer:
            del self._public[transfer.topic]
        for prk, network in list(self._private.items()):
            network.transfers.pop(transfer.hash_key, None)
            if not network.transfers:
                del self._private[prk]

    def public(self, topic: Topic) -> Transfer | None:
        """Return the public transfer with this topic."""
        return self._public.get(topic)

    def networks(self) -> Iterator[NetworkKeys]:
        """Iterate over the private networks that have contents."""
        return (network.keys for network in self._private.values())

    def contents(self, keys: NetworkKeys) -> Iterator[tuple[HashKey, bytes]]:
        """Iterate over hash key and tcp key of a private network's contents."""
        network = self._private.get(keys.prk)
        if network is not None:
            for hash_key, (tcp_key, _) in network.transfers.items():
                yield hash_key, tcp_key

    def private(self, keys: NetworkKeys, hash_key: HashKey) -> Transfer | None:
        """Return the transfer of a private network's content."""
        network = self._private.get(keys.prk)
        entry = None if network is None else network.transfers.get(hash_key)
        return None if entry is None else entry[1]
