"""The closing line of ``make test``, which says whether a change may land.

Job: show that ``tools/gate.py`` counts what trial reports. Skipped where only the package is
installed, without the tree around it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest import SkipTest

from p2pdist.test.support import TestCase

GATE = Path(__file__).resolve().parent.parent.parent / "tools" / "gate.py"


def load_gate() -> ModuleType:
    """Import the script, which lies outside the package."""
    if not GATE.exists():
        raise SkipTest("the source tree is not here")
    spec = importlib.util.spec_from_file_location("p2pdist_gate", GATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up while it is being executed
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


class SummaryTests(TestCase):
    """Reading trial's summary."""

    def counted(self, *lines: str) -> str:
        """Return the closing line for an output of these lines."""
        return str(load_gate().read_summary("\n".join(lines)))

    def test_success(self) -> None:
        """All is well: every test passed or was skipped."""
        self.assertEqual(
            "12 passed, 0 failed, 2 skipped",
            self.counted("Ran 14 tests in 1.000s", "", "PASSED (skips=2, successes=12)"),
        )

    def test_failures(self) -> None:
        """Failures, errors and tests that should have failed all count as failed."""
        self.assertEqual(
            "3 passed, 4 failed, 2 skipped",
            self.counted(
                "FAILED (skips=1, expectedFailures=1, failures=1, errors=2, "
                "unexpectedSuccesses=1, successes=3)"
            ),
        )

    def test_only_the_last_summary_counts(self) -> None:
        """What a test prints that looks like a summary does not count."""
        self.assertEqual(
            "1 passed, 0 failed, 0 skipped",
            self.counted("PASSED (successes=99)", "...", "PASSED (successes=1)", ""),
        )

    def test_nothing_ran(self) -> None:
        """An empty run counts nothing, and a run that broke off has no summary."""
        self.assertEqual("0 passed, 0 failed, 0 skipped", self.counted("PASSED"))
        self.assertEqual("None", self.counted("Segmentation fault"))
