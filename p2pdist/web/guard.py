"""Who may ask the page's port what: the rules before anything is done. Pure.

Job: look at a request's head, say which refusal it gets, if any, and name the headers every answer
carries. It does NOT know routes. Threat: every web site that the operator's browser has open can
send requests to this port, some as if they came from it (DNS rebinding), and everybody on this
machine can. So: the Host header is checked first, for static files too; what a page of another
origin sends is refused; data and changes need the key. Tests: ``test_web_guard``.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Sequence
from typing import Final

from attrs import define, field, frozen

from p2pdist import limits

METHODS: Final = frozenset({b"GET", b"POST"})
SITES: Final = frozenset({b"none", b"same-origin"})
JSON: Final = b"application/json"
SCHEME: Final = b"Bearer "

HEADERS: Final = {
    b"Content-Security-Policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    b"X-Content-Type-Options": b"nosniff",
    b"X-Frame-Options": b"DENY",
    b"Referrer-Policy": b"no-referrer",
    b"Cache-Control": b"no-store",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Cross-Origin-Opener-Policy": b"same-origin",
}
"""Of every answer, refusals too. There is no CORS header, ever."""

REASONS: Final = {
    400: "this request cannot be understood",
    401: "the page's key is needed; p2pdist status prints the address with it",
    403: "requests of other sites are refused",
    404: "there is nothing here",
    405: "this can only be read, or only be told",
    409: "this cannot be done now",
    413: "the request is too large",
    415: "a request is application/json",
    421: "this is no name of the page; open it as 127.0.0.1, localhost or [::1]",
    500: "a bug; the node's log says more",
    503: "too many pages are open",
}
"""What each refusal says."""


@frozen(kw_only=True)
class Head:
    """What counts of a request's head; every value of a repeated header.

    Attributes:
        method: such as ``GET``.
        hosts: of Host.
        origins: of Origin.
        sites: of Sec-Fetch-Site.
        authorizations: of Authorization.
        types: of Content-Type.
    """

    method: bytes
    hosts: Sequence[bytes] = ()
    origins: Sequence[bytes] = ()
    sites: Sequence[bytes] = ()
    authorizations: Sequence[bytes] = ()
    types: Sequence[bytes] = ()


def names_of(port: int) -> frozenset[bytes]:
    """Return what Host may be for a page on this port."""
    names = (b"127.0.0.1", b"localhost", b"[::1]")
    bare = names if port == 80 else ()
    return frozenset([*(name + b":%d" % port for name in names), *bare])


def stranger(head: Head, names: frozenset[bytes]) -> int | None:
    """Return the refusal of a request that no page of ours and no command sends, else ``None``.

    Args:
        head: of it.
        names: that Host may be.
    """
    if len(head.hosts) != 1 or head.hosts[0].lower() not in names:
        return 421
    own = b"http://" + head.hosts[0].lower()
    if any(origin.lower() != own for origin in head.origins):
        return 403
    if any(site not in SITES for site in head.sites) or head.method == b"OPTIONS":
        return 403
    if head.method not in METHODS:
        return 405
    return None


def knows(head: Head, token: str) -> bool:
    """Tell whether the request brings the key."""
    if len(head.authorizations) != 1:
        return False
    given = head.authorizations[0]
    return given.startswith(SCHEME) and hmac.compare_digest(given[len(SCHEME) :], token.encode())


def is_json(head: Head) -> bool:
    """Tell whether the body says that it is JSON; a plain form of another site cannot."""
    return len(head.types) == 1 and head.types[0].partition(b";")[0].strip().lower() == JSON


@define
class Patience:
    """Slows down whoever tries keys: after some wrong ones in a minute each try takes a second."""

    _failures: deque[float] = field(factory=lambda: deque(maxlen=limits.WEB_KEY_FAILURES))

    def failed(self, now: float) -> float:
        """Note a wrong key; return the seconds to wait before saying so."""
        full = len(self._failures) == limits.WEB_KEY_FAILURES
        hurried = full and now - self._failures[0] < 60.0
        self._failures.append(now)
        return limits.WEB_KEY_DELAY_S if hurried else 0.0
