"""Run the checks of ``make test`` and end with the line that says how it went.

    python tools/gate.py [CHECK ...]        without names: all, in the order below

Every check runs even when an earlier one failed, so that one run shows everything. The last line
is ``N passed, N failed, N skipped``: the tests trial ran, where each failed check counts as one
more failure. The exit code is 0 when nothing failed. Only the standard library is used.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRIAL_WORKERS = 2
CHECKS: dict[str, list[str]] = {
    "lint": ["-m", "ruff", "check", "."],
    "format": ["-m", "ruff", "format", "--check", "."],
    "types": ["-m", "mypy"],
    "layers": ["-c", "from importlinter.cli import lint_imports_command as run; run()"],
    "unit": ["-m", "coverage", "run", "-m", "twisted.trial", f"-j{TRIAL_WORKERS}"],
    "coverage": ["-m", "coverage", "report"],
}
_SUMMARY = re.compile(r"^(?:PASSED|FAILED)(?: \((.*)\))?$")


@dataclass
class Tally:
    """What the closing line counts."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def read_summary(output: str) -> Tally | None:
    """Count the tests from trial's last summary line, or return ``None`` if there is none.

    A test expected to fail counts as skipped when it does and as failed when it passes.
    """
    for line in reversed(output.splitlines()):
        match = _SUMMARY.match(line)
        if match is not None:
            pairs = (part.split("=") for part in (match[1] or "").split(", ") if part)
            counts = {key: int(value) for key, value in pairs}
            return Tally(
                passed=counts.get("successes", 0),
                failed=sum(counts.get(k, 0) for k in ("failures", "errors", "unexpectedSuccesses")),
                skipped=counts.get("skips", 0) + counts.get("expectedFailures", 0),
            )
    return None


def run(command: list[str]) -> tuple[int, str]:
    """Run Python with these arguments, show what it prints, return exit code and output."""
    print(f"$ python {' '.join(command)}", flush=True)
    lines = []
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def run_unit(command: list[str]) -> Tally:
    """Run the tests in an order of their own and gather their coverage.

    Trial's folder is a fresh one, so that two runs never wait for each other.
    """
    seed = random.randrange(1, 1 << 32)
    subprocess.run([sys.executable, "-m", "coverage", "erase"], cwd=ROOT, check=False)
    with tempfile.TemporaryDirectory(prefix="p2pdist-trial-") as folder:
        where = f"--temp-directory={folder}/trial"
        code, output = run([*command, f"--random={seed}", where, "p2pdist"])
    subprocess.run([sys.executable, "-m", "coverage", "combine", "--quiet"], cwd=ROOT, check=False)
    tally = read_summary(output) or Tally(failed=1)
    if code != 0 and tally.failed == 0:
        tally.failed = 1
    if tally.passed == 0 and tally.failed == 0:
        print("no test ran")
        tally.failed = 1
    return tally


def main(names: list[str]) -> int:
    """Run the named checks, or all; return the exit code."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"no such check: {', '.join(unknown)}; there are {', '.join(CHECKS)}")
        return 2
    total = Tally()
    verdicts = []
    for name in names or list(CHECKS):
        began = time.monotonic()
        if name == "unit":
            tally = run_unit(CHECKS[name])
            total = Tally(tally.passed, total.failed + tally.failed, tally.skipped)
            ok = tally.failed == 0
        else:
            ok = run(CHECKS[name])[0] == 0
            total.failed += not ok
        verdicts.append(f"{name:9}{'ok' if ok else 'FAILED':8}{time.monotonic() - began:6.1f} s")
    print("\n" + "\n".join(verdicts))
    print(total)
    return 0 if total.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
