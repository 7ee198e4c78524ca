"""p2pdist: one big file on N machines, without tracker or server.

Programs use :func:`distribute`, :func:`fetch` and :class:`Swarm`; they are in :mod:`p2pdist.api`,
and imported when first asked for: commands that need none of it start faster.

The rooms, top to bottom (a module imports only from its own floor or below):

``faces``    the twistd plugin and the ``p2pdist`` command
``api``      the library: Deferreds around the service
``service``  what starts, in which order, and how it stops; ``config``, ``machine``
``session``  one descriptor's life: resolving, finding, joining, leeching, seeding
``swarm``    the file itself over TCP: framing, piece choice, uploading, transfer
``overlay``  finding peers over UDP: envelope, messages, RPC, routing, lookup
``storage``  pieces on disk: geometry, state file, store
the words    ``descriptor``, ``content``, ``keys``, ``ids``, ``addresses``, ``limits``, ``errors``
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pdist.api import Config, RateLimits, Swarm, distribute, fetch

__version__ = "0.1.0"
__all__ = ["Config", "RateLimits", "Swarm", "__version__", "distribute", "fetch"]


def __getattr__(name: str) -> Any:
    """Import the library when a program asks for a part of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("p2pdist.api"), name)
