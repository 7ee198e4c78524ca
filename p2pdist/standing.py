"""How one descriptor stands, as values. Tests: ``test_session``."""

from __future__ import annotations

from attrs import frozen

from p2pdist.overlay.bootstrap import EntryReport
from p2pdist.stages import Stage
from p2pdist.swarm.progress import Progress


@frozen(kw_only=True)
class SessionStatus:
    """How one descriptor stands.

    Attributes:
        name: of the content, or the first digits of its key while that is not known.
        hash_key: as text.
        stage: see :mod:`p2pdist.stages`.
        progress: of the transfer.
        checked: bytes hashed and bytes in all while checking, else ``None``.
        joined: peers joined in the overlay.
        nodes: how the descriptor's ``nodes`` stand.
        waiting_for: what keeps it from moving, or ``""``.
        path: where the content is or will be, or ``None`` while that is not known.
        error: why it failed, or ``""``.
    """

    name: str
    hash_key: str
    stage: Stage
    progress: Progress
    checked: tuple[int, int] | None
    joined: int
    nodes: tuple[EntryReport, ...]
    waiting_for: str
    path: str | None
    error: str
