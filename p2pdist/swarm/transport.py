"""What carries the connections of a swarm: plain TCP, where everybody may look on.

Job: decide, from the networks a swarm lives in, how its connections are made. This is the only
place that does, and the one to extend for encryption: what it returns is given to the transfer as
its ``reactor``. The listener is the other end: transfers of private networks are never in its table
of those that plain callers may ask for.
Threat: a private content in the clear. Without a way to encrypt there is no transfer at all.
Tests: ``test_private``.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTCP

from p2pdist.errors import ConfigurationError
from p2pdist.keys import NetworkKeys


def transport_for(networks: Iterable[NetworkKeys], reactor: IReactorTCP) -> IReactorTCP:
    """Return what dials for a swarm that lives in these networks.

    Raises:
        ConfigurationError: one of them is private; this version encrypts UDP only.
    """
    if any(keys.private for keys in networks):
        raise ConfigurationError(
            "this version does not transfer private contents, because its TCP is not encrypted; "
            "a private network without contents can be served with --secret-file"
        )
    return reactor
