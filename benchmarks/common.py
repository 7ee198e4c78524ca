"""What all benchmark scripts share: figures, machine, options, output."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from attrs import asdict, define, field

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every child compiles the package anew

PACKAGES = ("twisted", "msgpack", "cryptography", "blake3")


@define
class Figure:
    """One measured value.

    Attributes:
        name: what was measured.
        value: how much, or ``None`` if skipped.
        unit: of the value.
        target: what it should be, as text, or ``""``.
        holds: whether it is; ``None`` without target, or if skipped.
        skipped: why it was not measured.
    """

    name: str
    value: float | None
    unit: str
    target: str = ""
    holds: bool | None = None
    skipped: str = ""


@define
class Report:
    """The figures of one run.

    Attributes:
        seed: of whatever chance there was.
    """

    seed: int = 0
    figures: list[Figure] = field(factory=list)

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Add a figure; with ``at_most`` or ``at_least`` it has a target."""
        target, holds = "", None
        if at_most is not None:
            target, holds = f"<= {at_most:g}", value <= at_most
        elif at_least is not None:
            target, holds = f">= {at_least:g}", value >= at_least
        self.figures.append(Figure(name, round(value, 4), unit, target, holds))

    def skip(self, name: str, unit: str, why: str) -> None:
        """Add a figure that this run does not measure."""
        self.figures.append(Figure(name, None, unit, skipped=why))

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        rows = [asdict(figure) for figure in self.figures]
        for row in rows:
            if not row["skipped"]:
                del row["skipped"]
        return {
            "figures": rows,
            "machine": f"{platform.platform()}, {os.cpu_count()} cores",
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in PACKAGES},
            },
            "seed": self.seed,
        }

    def print(self, *, as_json: bool) -> None:
        """Print everything, for people or programs."""
        if as_json:
            print(json.dumps(self.to_json()))
            return
        width = max(len(figure.name) for figure in self.figures)
        for figure in self.figures:
            value = figure.skipped or f"{figure.value:g} {figure.unit}"
            verdict = {True: "holds", False: "DOES NOT HOLD", None: ""}[figure.holds]
            print(f"{figure.name:{width}}  {value:>16}  {figure.target:10} {verdict}".rstrip())


def options(
    description: str | None, more: argparse.ArgumentParser | None = None
) -> argparse.Namespace:
    """Parse ``--json`` and ``--quick``, and what ``more`` adds."""
    parser = argparse.ArgumentParser(description=description, parents=[more] if more else [])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="at most 45 seconds on two cores")
    return parser.parse_args()
