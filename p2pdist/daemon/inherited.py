"""Sockets that the service manager opened for us: UDP and TCP, in pairs of one address and port.

Job: find them (``LISTEN_FDS``), check that they are what a node needs, say which addresses they
have. It does NOT read from them (``ports`` hands them to the reactor).
Source: sd_listen_fds(3). Tests: ``test_inherited``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from p2pdist.addresses import canonical_ip
from p2pdist.errors import ConfigurationError
from p2pdist.ports import Inherited

FIRST: Final = 3
"""Descriptors begin behind standard input, output and error."""
FDS_MAX: Final = 64


@frozen
class _Socket:
    """One socket.

    Attributes:
        fd: its descriptor.
        kind: ``SOCK_DGRAM`` or ``SOCK_STREAM``.
        family: ``AF_INET`` or ``AF_INET6``.
        host: IP it is bound to.
        port: likewise.
    """

    fd: int
    kind: int
    family: int
    host: str
    port: int


def inherited(
    environment: Mapping[str, str], pid: int, first: int = FIRST
) -> tuple[Inherited, ...]:
    """Return the pairs that were handed to this process; none without any.

    Args:
        environment: of the process.
        pid: of the process: descriptors may be meant for another.
        first: the lowest descriptor.

    Raises:
        ConfigurationError: one is no bound UDP or listening TCP socket, or has no partner, or
            there are several port numbers.
    """
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID", "") != str(pid) or not count.isdigit():
        return ()
    if int(count) > FDS_MAX:
        raise ConfigurationError(f"{count} sockets were handed over, at most {FDS_MAX} are taken")
    found = [_examine(fd) for fd in range(first, first + int(count))]
    pairs: dict[tuple[str, int], dict[int, _Socket]] = {}
    for one in found:
        pair = pairs.setdefault((one.host, one.port), {})
        if one.kind in pair:
            raise ConfigurationError(f"sockets: two of a kind for {one.host} port {one.port}")
        pair[one.kind] = one
    for (host, port), pair in pairs.items():
        if len(pair) != 2:
            raise ConfigurationError(
                f"sockets: {host} port {port} has {'TCP' if socket.SOCK_STREAM in pair else 'UDP'} "
                "only; name it as ListenStream= and as ListenDatagram="
            )
    if len({port for _, port in pairs}) > 1:
        raise ConfigurationError("sockets: a node has one port number, on every address")
    return tuple(
        Inherited(
            udp=pair[socket.SOCK_DGRAM].fd,
            tcp=pair[socket.SOCK_STREAM].fd,
            family=pair[socket.SOCK_DGRAM].family,
            interface=host,
            port=port,
        )
        for (host, port), pair in pairs.items()
    )


def _examine(fd: int) -> _Socket:
    """Return what a descriptor is.

    Raises:
        ConfigurationError: nothing a node can use.
    """
    try:
        with socket.socket(fileno=os.dup(fd)) as one:
            family, kind = one.family, one.type
            if family not in {socket.AF_INET, socket.AF_INET6}:
                raise ConfigurationError(f"sockets: descriptor {fd} is no IP socket")
            if kind == socket.SOCK_STREAM and not one.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            ):
                raise ConfigurationError(f"sockets: descriptor {fd} is a connection")
            host, port = one.getsockname()[:2]
    except OSError as error:
        raise ConfigurationError(f"sockets: descriptor {fd}: {error.strerror}") from error
    ip = canonical_ip(host)
    if kind not in {socket.SOCK_STREAM, socket.SOCK_DGRAM} or ip is None or not port:
        raise ConfigurationError(f"sockets: descriptor {fd} is neither UDP nor TCP with a port")
    return _Socket(fd, kind, family, ip, port)


def inherited_by_process() -> tuple[Inherited, ...]:
    """Return what this process was handed, see :func:`inherited`."""
    return inherited(os.environ, os.getpid())
