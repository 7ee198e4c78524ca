"""Socket addresses: text and packed forms, scopes, the keys that limits and caps count by.

Job: the one place that turns ``host:port`` text, packed bytes and UDP headers into
:class:`Address` and says what kind of address it is. Does NOT resolve names.
Threat: addresses in message bodies are chosen by strangers. Tests: ``test_addresses``.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
from functools import lru_cache
from typing import NamedTuple

from p2pdist import limits
from p2pdist.errors import MalformedMessage

ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- compared, not bound
"""Addresses that stand for all of this machine's."""


class Address(NamedTuple):
    """A node's or peer's socket address; UDP and TCP share the port number.

    Attributes:
        host: canonical IP text, never IPv4-mapped IPv6, never with a zone.
        port: 1 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Scope(enum.IntEnum):
    """How far an address reaches; narrower is smaller."""

    LOOPBACK = 0
    PRIVATE = 1
    GLOBAL = 2


@lru_cache(maxsize=limits.ADDRESS_CACHE)
def _facts(host: str) -> tuple[bool, Scope, bytes, bool]:
    """Return ``(is_ipv6, scope, packed, usable)`` of canonical IP text."""
    ip = ipaddress.ip_address(host)
    usable = not (ip.is_multicast or ip.is_unspecified or host == "255.255.255.255")
    if ip.is_loopback:
        scope = Scope.LOOPBACK
    elif ip.is_global:
        scope = Scope.GLOBAL
    else:
        scope = Scope.PRIVATE
    if isinstance(ip, ipaddress.IPv6Address):
        usable = usable and not ip.is_link_local and ip.ipv4_mapped is None
    elif ip.packed[0] == 0 or ip.packed[0] >= 240:
        usable = False
    return ip.version == 6, scope, ip.packed, usable


def is_ipv6(address: Address) -> bool:
    """Tell the address family."""
    return ":" in address.host


def scope(address: Address) -> Scope:
    """Return how far ``address`` reaches."""
    return _facts(address.host)[1]


def usable(address: Address) -> bool:
    """Tell whether a datagram may ever be sent there.

    False for port 0, multicast, broadcast, unspecified, reserved, IPv4-mapped and IPv6
    link-local addresses (Twisted's UDP cuts the zone off: decision 15).
    """
    return 0 < address.port < 65536 and _facts(address.host)[3]


def limit_key(address: Address) -> bytes:
    """Return what rate limits count by: ip and port on local networks, elsewhere the host.

    Local is loopback and private; a global IPv6 host is its /64 (decisions 10 and 15).
    """
    ipv6, reach, packed, _ = _facts(address.host)
    if reach is not Scope.GLOBAL:
        return packed + address.port.to_bytes(2, "big")
    return packed[:8] if ipv6 else packed


def subnet_key(address: Address) -> bytes | None:
    """Return the /24 or /48 that caps count by, or ``None`` where caps do not apply."""
    ipv6, reach, packed, _ = _facts(address.host)
    if reach is not Scope.GLOBAL:
        return None
    return packed[:6] if ipv6 else packed[:3]


def eviction_key(address: Address) -> bytes:
    """Return the /24 or /64 a peer is counted under when a full table must choose (decision 13)."""
    ipv6, _, packed, _ = _facts(address.host)
    return packed[:8] if ipv6 else packed[:3]


def pack(address: Address) -> bytes:
    """Return 6 (IPv4) or 18 (IPv6) bytes: IP then port, both big-endian (BEP 5, BEP 32)."""
    return _facts(address.host)[2] + address.port.to_bytes(2, "big")


@lru_cache(maxsize=limits.ADDRESS_CACHE)
def unpack(data: bytes) -> Address:
    """Inverse of :func:`pack`.

    Raises:
        MalformedMessage: wrong size, or an address no datagram may be sent to.
    """
    if len(data) == 6:
        host = socket.inet_ntop(socket.AF_INET, data[:4])
    elif len(data) == 18:
        host = socket.inet_ntop(socket.AF_INET6, data[:16])
    else:
        raise MalformedMessage("address-size", str(len(data)))
    address = Address(host, int.from_bytes(data[-2:], "big"))
    if not usable(address):
        raise MalformedMessage("address-unusable", str(address))
    return address


def unpack_list(data: bytes, size: int) -> tuple[Address, ...]:
    """Split a packed list of addresses of ``size`` (6 or 18) bytes each.

    Raises:
        MalformedMessage: as :func:`unpack`, or a length that is no multiple of ``size``.
    """
    if len(data) % size:
        raise MalformedMessage("address-list-size", str(len(data)))
    return tuple(unpack(data[i : i + size]) for i in range(0, len(data), size))


@lru_cache(maxsize=limits.ADDRESS_CACHE)
def from_socket(host: str, port: int) -> Address:
    """Return the address a UDP or TCP header shows; mapped IPv4 becomes IPv4, a zone is cut.

    Cached, because the same few write all the time: that also makes all tables hold one object.
    """
    if ":" in host:
        host = host.partition("%")[0]
        if host.startswith("::ffff:") and "." in host:
            host = host[7:]
    return Address(host, port)


def to_ipv6_socket(host: str) -> str:
    """Return ``host`` as an IPv6 socket wants it: IPv4 text becomes IPv4-mapped."""
    return host if ":" in host else "::ffff:" + host


def canonical_ip(text: str) -> str | None:
    """Return canonical IP text, or ``None`` when ``text`` is no IP address (then it is a name)."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return None
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
    return str(ip)


class HostPort(NamedTuple):
    """What a user writes to name a node: an IP address or a DNS name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str, default_port: int = limits.DEFAULT_PORT) -> HostPort:
    """Parse ``host``, ``host:port``, ``[ipv6]:port`` or a bare IPv6 address.

    Raises:
        ValueError: with a sentence that says what is wrong and what is expected.
    """
    expected = "expected host:port, such as 10.0.0.5:7667, [2001:db8::5]:7667 or name:7667"
    host, port_text = _split_host_port(text, expected)
    port = default_port
    if port_text is not None:
        if not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 5:
            raise ValueError(f"port {port_text[:20]!a} is no number; {expected}")
        port = int(port_text)
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is outside 1 to 65535; {expected}")
    ip = canonical_ip(host)
    if ip is not None:
        if not usable(Address(ip, port)):
            raise ValueError(f"{ip} is no address of one machine; {expected}")
        return HostPort(ip, port)
    if ":" in host or host.replace(".", "").isdigit() or not _is_dns_name(host):
        raise ValueError(f"{host[:80]!a} is neither an IP address nor a host name; {expected}")
    return HostPort(host.lower(), port)


def _split_host_port(text: str, expected: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"brackets of {text[:80]!a} do not match; {expected}")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port_text = text.partition(":")
    return host, port_text if colon else None


def _is_dns_name(host: str) -> bool:
    """RFC 1123 host name: letters, digits, hyphens and, as found in the wild, underscores."""
    if not host.isascii() or not 0 < len(host) <= 253:
        return False
    labels = host.rstrip(".").split(".")
    return all(
        0 < len(label) <= 63
        and label.replace("-", "").replace("_", "").isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
        for label in labels
    )
