"""What one process is told to do, checked. Does NOT read files; ``faces`` fills it in.

Tests: ``test_config``.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import socket
from collections.abc import Iterable
from typing import Final

from attrs import field, frozen

from p2pdist import limits
from p2pdist.addresses import HostPort, canonical_ip
from p2pdist.errors import ConfigurationError
from p2pdist.secret import Secret
from p2pdist.swarm.throttle import RateLimits

_RATE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([kKMGT]?)(?:i?B)?(?:/s)?", re.ASCII)
_UNIT: Final = {"": 1, "K": limits.KIB, "M": limits.MIB, "G": limits.GIB, "T": limits.TIB}


def parse_port(text: str, option: str = "--port") -> int:
    """Return a port number from 0 (any free one) to 65535.

    Raises:
        ConfigurationError: anything else.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65535:
        raise ConfigurationError(f"{option} {text[:20]!a}: expected a number from 0 to 65535")
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


def parse_rate(text: str, option: str) -> int | None:
    """Return the bytes per second an option names: ``10MB``, ``1.5MiB`` or ``1.5M/s``.

    A unit is a power of 1024, as in every option; ``0`` and ``none`` are ``None``: no limit.

    Raises:
        ConfigurationError: none of these, or too low to work with.
    """
    found = _RATE.fullmatch(text)
    if found is None and text != "none":
        raise ConfigurationError(
            f"{option} {text[:80]!a}: expected a speed such as 10MB or 1.5MiB, per second; "
            "0 or none means unlimited"
        )
    rate = 0 if found is None else math.ceil(float(found[1]) * _UNIT[found[2].upper()])
    if rate and rate < limits.RATE_LIMIT_MIN:
        raise ConfigurationError(
            f"{option} {text[:80]!a}: at least {limits.RATE_LIMIT_MIN // limits.KIB}KiB per "
            "second, or peers take each other for stalled; 0 or none means unlimited"
        )
    return rate or None


def parse_limits(texts: Iterable[str], option: str) -> dict[str, int | None]:
    """Return the rates that a repeated option names: ``RATE`` or ``NAME=RATE``.

    Returns:
        Rates by name; that of the whole process has the name ``""``.

    Raises:
        ConfigurationError: as :func:`parse_rate`, or the same was named twice.
    """
    rates: dict[str, int | None] = {}
    for text in texts:
        name, _, rate = text.rpartition("=")
        if name in rates:
            raise ConfigurationError(f"{option} {text[:80]!a}: given twice; say which one holds")
        rates[name] = parse_rate(rate, option)
    return rates


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
        secrets: of private networks to serve besides those of descriptors.
        rates: what all contents may move together at first.
        name: what the fleet calls this machine.
        web: port of the page on loopback, 0 for any free one; ``None`` for no page.
    """

    directory: str = field(default=".", converter=absolute)
    port: int = limits.DEFAULT_PORT
    listen: tuple[str, ...] = ()
    state_dir: str | None = None
    nodes: tuple[HostPort, ...] = ()
    lan: bool = True
    secrets: tuple[Secret, ...] = ()
    rates: RateLimits = field(factory=RateLimits)
    name: str = field(factory=socket.gethostname)
    web: int | None = None

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
