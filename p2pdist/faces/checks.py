"""What ``p2pdist doctor`` looks at on this machine: ports, folders, clock, limits, ways out.

Job: one question each, asked of the system and answered in a sentence with what to do about it.
Changes nothing: sockets are opened and closed, no file is written. It does NOT speak to other nodes
(``reaching``). Tests: ``test_checks``.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from collections.abc import Iterable

from attrs import frozen

from p2pdist import limits
from p2pdist.addresses import Address, is_ipv6

OK, HINT, BAD = "ok", "hint", "bad"
"""Verdicts: nothing to do; works, but; does not work."""
IP_MTU = 14
IPV6_MTU = 24
"""Socket options of Linux, which Python does not name."""
MTU_WANTED = limits.DATAGRAM_BYTES + 48
"""The largest datagram with the headers of UDP and IPv6."""
FILES_WANTED = 1024
BEFORE = 1_767_225_600
"""2026: a clock that shows less is not set."""


@frozen
class Finding:
    """One answer.

    Attributes:
        subject: what was looked at.
        verdict: :data:`OK`, :data:`HINT` or :data:`BAD`.
        text: what was found.
        remedy: what to do about it, or ``""``.
        exit_code: of a bad one (decision 28).
    """

    subject: str
    verdict: str
    text: str
    remedy: str = ""
    exit_code: int = 4


def check_port(port: int, hosts: Iterable[str], *, ours: bool) -> Finding:
    """Whether UDP and TCP can be opened; ``ours`` if a node of ours is known to have them."""
    subject = f"port {port}"
    for host in hosts:
        for kind, word in ((socket.SOCK_DGRAM, "UDP"), (socket.SOCK_STREAM, "TCP")):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                with socket.socket(family, kind) as one:
                    if (
                        kind == socket.SOCK_STREAM
                    ):  # as the node itself: ports in TIME_WAIT are free
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    one.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE and ours:
                    return Finding(subject, OK, "the node that runs has it")
                if error.errno == errno.EAFNOSUPPORT:
                    return Finding(subject, HINT, "this machine has no IPv6")
                remedy = "choose another --port, or stop the program that has it"
                if error.errno in {errno.EACCES, errno.EPERM}:
                    remedy = "choose a --port above 1023, or use p2pdist.socket"
                return Finding(subject, BAD, f"{word} {host}: {error.strerror}", remedy)
    return Finding(subject, OK, "UDP and TCP can be opened")


def check_folder(path: str, needed: int) -> Finding:
    """Whether downloads can go to a folder, and ``needed`` more bytes have room."""
    subject = f"folder {path}"
    if not os.path.isdir(path):  # noqa: PTH112 -- text
        return Finding(subject, BAD, "is not there", "make it first")
    if not os.access(path, os.W_OK | os.X_OK):
        text = f"user {os.getuid()} may not write to it; complete files in it can be seeded"
        return Finding(subject, HINT if not needed else BAD, text, "change its owner or its mode")
    free = shutil.disk_usage(path).free
    if free < needed:
        short = needed - free
        return Finding(subject, BAD, f"{short} bytes short of {needed}", "make room")
    return Finding(subject, OK, f"writable, {free} bytes free, {needed} needed at most")


def check_state(path: str) -> Finding:
    """Whether a node can keep its key and records."""
    subject = f"state directory {path}"
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- text
    except FileNotFoundError:
        above = os.path.dirname(path)  # noqa: PTH120 -- text
        while above and not os.path.isdir(above) and above != "/":  # noqa: PTH112 -- text
            above = os.path.dirname(above)  # noqa: PTH120 -- text
        if os.access(above or "/", os.W_OK | os.X_OK):
            return Finding(subject, OK, "is made at the first start")
        return Finding(subject, BAD, f"cannot be made in {above}", "name another --state-dir")
    except OSError as error:
        return Finding(subject, BAD, str(error.strerror), "name another --state-dir")
    if mode & 0o022:
        return Finding(subject, BAD, "others may write to it", f"chmod 700 {path}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(subject, BAD, f"user {os.getuid()} may not use it", "change its owner")
    return Finding(subject, OK, "can be used")


def check_clock(now: float) -> Finding:
    """Whether the time of day can be right; signatures' validity is held against it."""
    if now < BEFORE:
        text = "shows a time before this software was made"
        return Finding("clock", BAD, text, "set it; signatures are not valid yet", exit_code=1)
    return Finding("clock", OK, "can be right; only signatures that expire depend on it")


def check_files() -> Finding:
    """Whether the process may open enough files and connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_WANTED:
        remedy = f"ulimit -n {FILES_WANTED}, or LimitNOFILE= in the unit"
        return Finding("open files", HINT, f"{soft} allowed, {hard} at most", remedy)
    return Finding("open files", OK, f"{soft} allowed")


def check_mtu(address: Address) -> Finding:
    """Whether whole datagrams leave this machine towards an address; sends nothing.

    The kernel knows its own interface and what routers told it lately, no more.
    """
    subject = f"way to {address.host}"
    family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
    level, name = (
        (socket.IPPROTO_IPV6, IPV6_MTU) if is_ipv6(address) else (socket.IPPROTO_IP, IP_MTU)
    )
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            mtu = probe.getsockopt(level, name)
    except OSError as error:
        return Finding(subject, BAD, str(error.strerror), "look at routes and addresses", 1)
    if mtu < MTU_WANTED:
        text = f"packets have at most {mtu} bytes there, datagrams need {MTU_WANTED}"
        return Finding(subject, HINT, text, "raise the MTU; larger datagrams are cut or lost")
    return Finding(subject, OK, f"packets of {mtu} bytes, datagrams need {MTU_WANTED}")
