"""Draw what `transfer.py` and `swarm.py` measured, from the objects that they printed.

    python benchmarks/swarm.py --json > swarm.json
    python benchmarks/transfer.py --json > transfer.json
    python benchmarks/plots.py --swarm swarm.json --transfer transfer.json

Several files of `swarm.py` may be given: one for each scenario, say. The SVGs go to `docs/`, for
which the `benchmarks` extra brings matplotlib.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
COLORS: Final = {
    "p2pdist": "#0b6e4f",
    "libtorrent": "#c05621",
    "libtorrent v1": "#c05621",
    "libtorrent v2": "#e0935f",
    "libtorrent-super": "#e0935f",
    "aria2": "#718096",
    "transmission": "#b9c3d0",
    "verified copy": "#a9cbb7",
}
MAKESPAN: Final = re.compile(r"(?P<row>.+): (?P<client>[\w-]+), makespan / bound")
TRANSFER: Final = re.compile(
    r"(?P<medium>\w+): (?P<client>[\w .]+), (?P<what>wall|downloader|seeder)"
)
Values = dict[tuple[str, str], float]


def read(files: list[Path], pattern: re.Pattern[str]) -> list[tuple[re.Match[str], float]]:
    """Return the figures whose whole names match, in their order; spreads in brackets are cut."""
    found = []
    for file in files:
        figures: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["figures"]
        for figure in figures:
            match = pattern.fullmatch(re.sub(r" \(\d+ to \d+\)$", "", figure["name"]))
            if match and figure["value"] is not None:
                found.append((match, figure["value"]))
    return found


def axes(columns: int) -> tuple[Any, Any]:
    """Return a figure and its axes, drawn alike on every machine."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "p2pdist", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    return plt.subplots(1, columns, figsize=(9, 3.6))


def save(figure: Any, name: str) -> None:
    """Write an SVG that is the same for the same figures."""
    figure.tight_layout()
    figure.savefig(DOCS / name, metadata={"Date": None, "Creator": None})


def draw_swarm(files: list[Path]) -> None:
    """Bars of the makespan over the bound: scenarios, and in each the clients."""
    values: Values = {(m["row"], m["client"]): value for m, value in read(files, MAKESPAN)}
    rows = list(dict.fromkeys(row for row, _ in values))
    clients = [name for name in COLORS if any(client == name for _, client in values)]
    figure, plot = axes(1)
    width = 0.8 / len(clients)
    for number, client in enumerate(clients):
        shown = [
            (at, values[row, client]) for at, row in enumerate(rows) if (row, client) in values
        ]
        places = [at + (number - (len(clients) - 1) / 2) * width for at, _ in shown]
        bars = plot.bar(places, [v for _, v in shown], width, color=COLORS[client], label=client)
        plot.bar_label(bars, fmt="%.2f", fontsize=6)
    plot.axhline(1.0, color="black", linewidth=0.8)
    plot.set_xticks(range(len(rows)), [row.replace(", ", "\n") for row in rows], fontsize=7)
    plot.set_title("time until everybody has the file, over the fluid bound (1.0)", fontsize=9)
    plot.legend(frameon=False, ncols=len(clients), fontsize=7)
    plot.set_ylim(top=1.15 * max(values.values()))
    save(figure, "swarm.svg")


def draw_transfer(files: list[Path]) -> None:
    """Bars of speed, and of CPU seconds of both sides."""
    values: dict[str, Values] = {}
    for match, value in read(files, TRANSFER):
        values.setdefault(match["what"], {})[match["medium"], match["client"]] = value
    figure, plots = axes(2)
    rows = list(values["wall"])
    colors = [COLORS[client] for _, client in rows]
    names = [f"{client}, {medium}" for medium, client in rows]
    speed, cpu = plots
    bars = speed.barh(names, [values["wall"][row] for row in rows], color=colors)
    speed.bar_label(bars, fmt="%.0f", fontsize=7)
    speed.set_title("MiB/s", fontsize=9)
    down = [values["downloader"][row] for row in rows]
    up = [values["seeder"][row] for row in rows]
    cpu.barh(names, down, color=colors)
    bars = cpu.barh(names, up, left=down, color=colors, alpha=0.5)
    cpu.bar_label(bars, [f"{a + b:.1f}" for a, b in zip(down, up, strict=True)], fontsize=7)
    cpu.set_title("CPU seconds for a GiB: downloader, and seeder (pale)", fontsize=9)
    cpu.set_yticks([])
    for plot in plots:
        plot.invert_yaxis()
        plot.margins(x=0.12)
    save(figure, "transfer.svg")


def main() -> None:
    """Draw what was given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swarm", type=Path, nargs="+", metavar="FILE", help="of swarm.py --json")
    parser.add_argument("--transfer", type=Path, nargs="+", metavar="FILE", help="of transfer.py")
    chosen = parser.parse_args()
    if chosen.swarm:
        draw_swarm(chosen.swarm)
    if chosen.transfer:
        draw_transfer(chosen.transfer)


if __name__ == "__main__":
    main()
