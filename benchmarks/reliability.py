"""What `docs/reliability.md` promises, measured: one row after the other, each with its target.

    python benchmarks/reliability.py --list               the names of the rows
    python benchmarks/reliability.py --row churn --row stall
    python benchmarks/reliability.py --seed 1000          other seeds than the last time

Rows are in `rows_*.py`: simulated ones give the same figures on every machine, the others start
processes on loopback and want a quiet one.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback

from common import Report, options
from rows import ROWS, Setting

MODULES = ("rows_simulated", "rows_flood", "rows_process", "rows_storage")


def measured(name: str, report: Report, setting: Setting) -> None:
    """Measure one row; the others are worth having even if it breaks."""
    try:
        ROWS[name](report, setting)
    except (Exception, SystemExit):  # noqa: BLE001 -- shown, and counted as a failure
        traceback.print_exc()
        report.add(f"{name}: ended by an error", 1, "", at_most=0)


def main() -> None:
    """Run."""
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--row", action="append", default=[], help="only this row; may be repeated")
    more.add_argument("--list", action="store_true", help="name the rows and end")
    more.add_argument("--seed", type=int, default=0, help="first seed of what is drawn")
    chosen = options(__doc__, more)
    for module in MODULES:
        importlib.import_module(module)
    if chosen.list:
        print("\n".join(ROWS))
        return
    unknown = set(chosen.row) - set(ROWS)
    if unknown:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}")
    report = Report(seed=chosen.seed)
    setting = Setting(chosen.quick, chosen.seed)
    for name in chosen.row or ROWS:
        measured(name, report, setting)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
