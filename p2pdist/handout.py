"""What to type on the machines that want a content: the last line of whatever sends.

Job: the command, from the descriptor and from where this node listens. Does NOT look for the
machine's addresses, which are given. The link never holds a secret, so a private content's
receivers need the file that has it. Tests: ``test_foreground``, ``test_control``.
"""

from __future__ import annotations

import os
import shlex

from attrs import evolve

from p2pdist import limits
from p2pdist.addresses import ANY, HostPort
from p2pdist.descriptor import URI_SCHEME, Descriptor


def receiver_command(
    what: str,
    descriptor: Descriptor,
    port: int,
    listen: tuple[str, ...],
    own: tuple[str, ...],
    secret_file: str | None = None,
) -> str:
    """Return what to type on the machines that want a content seeded here.

    Args:
        what: the descriptor's file, or the link, as it was given.
        descriptor: what it says; if it names no node, this machine is named in its place.
        port: of the node.
        listen: addresses the node listens on; empty for all.
        own: addresses of this machine that others may reach.
        secret_file: that an option named, as neither descriptor nor link does; they need it too.
    """
    is_link = what.startswith(URI_SCHEME)
    here = () if descriptor.nodes else _here(port, listen, own)
    if descriptor.private and not is_link:
        words = [os.path.basename(what)]  # noqa: PTH119 -- text
        words += [word for node in here for word in ("--node", str(node))]
    else:
        words = [evolve(descriptor, nodes=descriptor.nodes or here).to_uri()]
    if secret_file is not None:
        words += ["--secret-file", os.path.basename(secret_file)]  # noqa: PTH119 -- text
    return shlex.join(["p2pdist", "get", *words])


def _here(port: int, listen: tuple[str, ...], own: tuple[str, ...]) -> tuple[HostPort, ...]:
    """Return this node's addresses, at most ``limits.OWN_ADDRESSES_TOLD``."""
    hosts = tuple(ip for ip in listen if ip not in ANY) or own
    return tuple(HostPort(ip, port) for ip in hosts[: limits.OWN_ADDRESSES_TOLD])
