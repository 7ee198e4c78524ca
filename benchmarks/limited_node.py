"""A node for `rate_limits.py`: takes commands on standard input, tells what its sockets moved.

    limits UPLOAD DOWNLOAD    bytes per second; 0 is unlimited
    read                      prints one JSON object: seconds, and for each of its connections the
                              bytes that the kernel says were acknowledged, and those it received
                              that we have read

Usage: limited_node.py FOLDER seed|get NODE|- FILE.desc...
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
import termios
import time
from contextlib import suppress
from typing import Any

import common  # noqa: F401 -- finds the package
from twisted.internet import reactor, stdio
from twisted.internet.error import ReactorNotRunning
from twisted.protocols.basic import LineOnlyReceiver

from p2pdist.addresses import parse_host_port
from p2pdist.config import Config
from p2pdist.descriptor import DescriptorParser
from p2pdist.faces.process import steady
from p2pdist.machine import real_machine
from p2pdist.service import P2PDistService
from p2pdist.swarm.throttle import RateLimits

_BYTES = struct.Struct("@QQ")
_BYTES_AT = 120
"""Offset of tcpi_bytes_acked and tcpi_bytes_received in Linux's struct tcp_info."""


def moved(service: P2PDistService) -> dict[str, tuple[int, int]]:
    """Return what each connection moved, by the name of its content and its peer."""
    found = {}
    for session in service.contents.sessions.values():
        for member in session.transfer._roster.members.values():  # noqa: SLF001
            transport: Any = member.connection.transport
            handle = transport.getHandle()
            unread = int.from_bytes(fcntl.ioctl(handle, termios.FIONREAD, bytes(4)), sys.byteorder)
            info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            acked, received = _BYTES.unpack_from(info, _BYTES_AT)
            found[f"{session.name} {member.connection.address}"] = acked, received - unread
    return found


class Commands(LineOnlyReceiver):
    """Does what standard input says."""

    delimiter = b"\n"

    def __init__(self, service: P2PDistService) -> None:
        self.service = service

    def lineReceived(self, line: bytes) -> None:
        """Do one thing."""
        word, *values = line.decode().split()
        if word == "limits":
            up, down = (int(value) or None for value in values)
            self.service.set_limits(RateLimits(upload=up, download=down))
        state = {"seconds": time.monotonic(), "moved": moved(self.service)}
        self.sendLine(json.dumps(state).encode())

    def connectionLost(self, _reason: object = None) -> None:
        """End with whoever commands us."""
        core: Any = reactor
        with suppress(ReactorNotRunning):
            core.stop()


def main() -> None:
    """Run."""
    folder, role, node, *files = sys.argv[1:]
    nodes = () if node == "-" else (parse_host_port(node),)
    config = Config(directory=folder, port=0, listen=("127.0.0.1",), nodes=nodes)
    service = P2PDistService(config, real_machine(steady(reactor)))
    sessions = [
        service.add(DescriptorParser().parse_file(file), seed_only=role == "seed") for file in files
    ]
    service.privilegedStartService()
    service.startService()
    stdio.StandardIO(Commands(service))
    print(json.dumps({"port": service.port}), flush=True)
    if role == "seed":
        for session in sessions:
            session.complete.addCallback(lambda _: print(json.dumps({"complete": 1}), flush=True))
    core: Any = reactor
    core.addSystemEventTrigger("before", "shutdown", service.stopService)
    core.run()


if __name__ == "__main__":
    main()
