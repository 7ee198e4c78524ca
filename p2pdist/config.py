"""What one process is told to do, checked. Does NOT read files; ``faces`` fills it in.

Tests: ``test_config``.
"""

from __future__ import annotations

import ipaddress
import os

from attrs import field, frozen

from p2pdist import limits
from p2pdist.addresses import HostPort, canonical_ip
from p2pdist.errors import ConfigurationError


def parse_port(text: str) -> int:
    """Return a port number from 0 (any free one) to 65535.

    Raises:
        ConfigurationError: anything else.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65535:
        raise ConfigurationError(f"--port {text[:20]!a}: expected a number from 0 to 65535")
    return int(text)


def parse_listen(text: str) -> str:
    """Return the canonical IP address to listen on.

    Raises:
        ConfigurationError: no IP address of this kind of use.
    """
    ip = canonical_ip(text)
    if ip is None or ipaddress.ip_address(ip).is_multicast:
        raise ConfigurationError(
            f"--listen {text[:80]!a}: expected an IP address of this machine, such as 127.0.0.1, "
            "0.0.0.0 or ::"
        )
    return ip


def absolute(path: str) -> str:
    """Return ``path`` from the root, links kept."""
    return os.path.abspath(path)  # noqa: PTH100 -- keeps links


@frozen(kw_only=True)
class Config:
    """One process's settings.

    Attributes:
        directory: where downloads go, absolute.
        port: UDP and TCP; 0 takes any free one.
        listen: IP addresses to listen on; empty for all of this machine.
        state_dir: where the node's key and records are, absolute; ``None`` keeps nothing.
        nodes: entry points besides those of descriptors.
        lan: whether to look for nodes on the local network; see :attr:`searches_lan`.
    """

    directory: str = field(default=".", converter=absolute)
    port: int = limits.DEFAULT_PORT
    listen: tuple[str, ...] = ()
    state_dir: str | None = None
    nodes: tuple[HostPort, ...] = ()
    lan: bool = True

    @property
    def searches_lan(self) -> bool:
        """Whether nodes are looked for on the local network: never when bound to addresses."""
        return self.lan and not self.listen


def default_state_dir(environment: dict[str, str]) -> str:
    """Return where state goes: ``$STATE_DIRECTORY`` (systemd), else XDG's, else below home."""
    given = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return given
    base = environment.get("XDG_STATE_HOME") or os.path.expanduser(  # noqa: PTH111 -- text
        "~/.local/state"
    )
    return os.path.join(base, "p2pdist")  # noqa: PTH118 -- text
