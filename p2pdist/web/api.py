"""The routes of the API: which question or command of ``Control`` each one is.

Job: a table of routes, and the checks of what a request's body may hold. Whatever the command line
can ask and tell goes the same way, through :class:`~p2pdist.control.Control`. It does NOT know HTTP
(``site``). Threat: whoever has the key may do what the owner may, from a browser: so no request can
name a file, and a content is added by its link only. Tests: ``test_web_api``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from p2pdist.control import Control, Result
from p2pdist.errors import ConfigurationError
from p2pdist.web.history import Logbook, Rates

PREFIX: Final = "/api/v1"
METRICS: Final = "/metrics"
EVENTS: Final = f"{PREFIX}/events"
ONE: Final = f"{PREFIX}/contents/{{content}}"
CONTENT: Final = re.compile(r"b3:[0-9a-f]{64}")


@frozen
class Sources:
    """What routes answer from.

    Attributes:
        control: of the service.
        rates: over time.
        log: the last lines of it.
    """

    control: Control
    rates: Rates
    log: Logbook


Act = Callable[[Sources, Result], Deferred[Result]]


@frozen
class Route:
    """One thing to ask or tell.

    Attributes:
        method: ``GET`` asks, ``POST`` tells.
        path: with ``{content}`` where a hash_key stands.
        act: does it, given what the path and the body name.
        body: what the body may name.
    """

    method: str
    path: str
    act: Act
    body: tuple[str, ...] = ()


def _call(method: str) -> Act:
    return lambda sources, params: sources.control.call(method, params)


def _add(sources: Sources, params: Result) -> Deferred[Result]:
    link = params.get("link")
    if not isinstance(link, str) or not link.startswith("p2pdist:"):
        raise ConfigurationError("link: expected the line that make and seed print, p2pdist:b3:...")
    return sources.control.call("add", {"descriptor": link})


RATES: Final = ("upload", "download")
ROUTES: Final = (
    Route("GET", f"{PREFIX}/status", _call("status")),
    Route("GET", f"{PREFIX}/rates", lambda have, _: succeed({"samples": have.rates.rows()})),
    Route("GET", f"{PREFIX}/log", lambda have, _: succeed({"lines": have.log.since(0)})),
    Route("GET", f"{ONE}/fleet", _call("fleet")),
    Route("GET", f"{ONE}/pieces", _call("pieces")),
    Route("GET", f"{ONE}/peers", _call("peers")),
    Route("POST", f"{PREFIX}/limit", _call("limit"), RATES),
    Route("POST", f"{PREFIX}/contents", _add, ("link",)),
    Route("POST", f"{ONE}/limit", _call("limit"), RATES),
    Route("POST", f"{ONE}/pause", _call("pause")),
    Route("POST", f"{ONE}/resume", _call("resume")),
    Route("POST", f"{ONE}/remove", _call("remove")),
)
"""Besides these there are ``EVENTS`` and ``METRICS``, which are no JSON."""


def match(path: str) -> tuple[dict[str, Route], dict[str, str]]:
    """Return the routes of a path by method, and the content that it names."""
    parts = [unquote(part) for part in path.split("/")]
    named: dict[str, str] = {}
    if len(parts) > 4 and CONTENT.fullmatch(parts[4]):
        named["content"] = parts[4]
        parts[4] = "{content}"
    template = "/".join(parts)
    if ("{content}" in template) != bool(named):
        return {}, {}
    return {route.method: route for route in ROUTES if route.path == template}, named


def check_body(route: Route, body: Any) -> Result:
    """Return what a body names.

    Raises:
        ConfigurationError: it is no object, or names something else.
    """
    if not isinstance(body, dict):
        raise ConfigurationError("a request is one JSON object")
    unknown = sorted(str(key)[:40] for key in body.keys() - set(route.body))
    if unknown:
        there = ", ".join(route.body) or "nothing"
        raise ConfigurationError(f"{unknown[0]!a}: not known here; there is {there}")
    return body
