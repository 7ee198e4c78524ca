"""Asking a running node: the client of its control socket. Tests: ``test_cli_remote``.

Job: find the socket, ask, turn refusals into errors with their exit code. Blocking: commands that
ask have nothing else to do, and need no reactor.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import click

from p2pdist.config import default_state_dir
from p2pdist.control import socket_path
from p2pdist.errors import ConfigurationError, P2PDistError
from p2pdist.faces.cli.output import format_duration, printable
from p2pdist.sockpath import short_way

PATIENCE_S: Final = 30.0
"""For one answer: a node that stops a content closes its files first."""
ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Five thousand hosts, and some."""


class NotRunning(P2PDistError):
    """Nobody listens where the node should."""

    exit_code = 1


class BadRequest(P2PDistError):
    """The node cannot use what it was told, such as a descriptor."""

    exit_code = 2


REFUSALS: Final[dict[int, type[P2PDistError]]] = {2: BadRequest, 4: ConfigurationError}
"""How a node's refusal ends a command, by the exit code it names; any other is 1."""


def state_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--state-dir``, which says which node is meant."""
    return click.option(
        "--state-dir",
        "-s",
        type=click.Path(file_okay=False),
        help="The running node's.  [default: $STATE_DIRECTORY, or ~/.local/state/p2pdist]",
    )(command)


class Remote:
    """A running node.

    Args:
        state_dir: of it; ``None`` for where nodes keep it by default.
    """

    def __init__(self, state_dir: str | None) -> None:
        self.path = socket_path(state_dir or default_state_dir(dict(os.environ)))

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the node's answer.

        Raises:
            NotRunning: no node there.
            P2PDistError: what was asked cannot be done.
        """
        request = {
            "method": method,
            "params": {name: value for name, value in params.items() if value is not None},
        }
        try:
            with short_way(self.path) as way, socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE_S)
                connection.connect(way)
                connection.sendall(json.dumps(request).encode() + b"\n")
                line = _read_line(connection)
            answer = json.loads(line)
        except FileNotFoundError as error:
            raise NotRunning(self._absent("is not there")) from error
        except ConnectionRefusedError as error:
            raise NotRunning(self._absent("is of a node that ended")) from error
        except PermissionError as error:
            raise ConfigurationError(
                f"{self.path}: permission denied for user {os.getuid()}; run it as the node's user"
            ) from error
        except (OSError, ValueError) as error:
            raise NotRunning(f"{self.path}: no answer of the node: {error}") from error
        if "error" in answer:
            refusal = answer["error"]
            raise REFUSALS.get(int(refusal["code"]), P2PDistError)(str(refusal["message"]))
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    def _absent(self, how: str) -> str:
        return (
            f"{self.path} {how}: no node runs with this state directory; "
            "name that of the running one with --state-dir"
        )


def fleets(remote: Remote, content: str | None) -> list[dict[str, Any]]:
    """Return the fleet of the content that is named, or of each that is served.

    Raises:
        P2PDistError: as :meth:`Remote.ask`; there is none of that name, or none at all.
    """
    keys: list[str | None] = [content]
    if content is None:
        keys = [one["hash_key"] for one in remote.ask("contents")["contents"]] or keys
    return [remote.ask("fleet", content=key) for key in keys]


def labels(hosts: list[dict[str, Any]]) -> list[str]:
    """Return what to call each machine: its name, and its id where others have the same name."""
    often = Counter(host["name"] for host in hosts)
    return [
        printable(host["name"], 40) + f" ({host['node'][:8]})" * (often[host["name"]] > 1)
        for host in hosts
    ]


def counts(host: dict[str, Any]) -> bool:
    """Tell whether a machine is one of the fleet: it is there, or was done when it left."""
    return bool(not host["left"] or host["complete"])


def trouble(host: dict[str, Any]) -> str:
    """Return what holds up a machine that is not done, to be read after its name."""
    if host["lost"]:
        return f"is lost: not heard of for {format_duration(host['age_s'])}"
    return str(host["why"])


def _read_line(connection: socket.socket) -> bytes:
    """Return what comes until the line ends."""
    parts: list[bytes] = []
    size = 0
    while not (parts and parts[-1].endswith(b"\n")):
        part = connection.recv(65536)
        if not part:
            raise OSError("it hung up")
        size += len(part)
        if size > ANSWER_BYTES:
            raise OSError("it says too much")
        parts.append(part)
    return b"".join(parts)


def now() -> float:
    """Return seconds of a clock that only goes forward."""
    return time.monotonic()  # noqa: TID251 -- a command's own waiting


def pause(seconds: float) -> None:
    """Let time pass."""
    time.sleep(seconds)  # noqa: TID251 -- a command has nothing else to do
