"""Runs every benchmark script, and passes `--quick` and `--json` on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common import options

SCRIPTS = (
    "startup.py",
    "footprint.py",
    "hashing.py",
    "main_job.py",
    "transfer.py",
    "rate_limits.py",
    "rpc.py",
    "rpc_steps.py",
    "memory.py",
    "real_overlay.py",
    "junk.py",
    "forgery.py",
    "private.py",
    "tls_paths.py",
    "reliability.py",
    "soak.py",
    "reflection.py",
    "forwarding.py",
    "joining.py",
    "census.py",
    "page.py",
    "choices.py",
    "scale.py",
    "large.py",
    "kills.py",
    "parsers.py",
    "overlay.py",
    "strategy.py",
    "swarm.py",
)


def main() -> None:
    """Run all; the exit code is 1 if one of them failed."""
    chosen = options(__doc__)
    flags = [f"--{name}" for name in ("json", "quick") if getattr(chosen, name)]
    failed = False
    for script in SCRIPTS:
        if not chosen.json:
            print(f"# {script}", flush=True)
        path = Path(__file__).with_name(script)
        failed |= bool(subprocess.run([sys.executable, str(path), *flags], check=False).returncode)
    sys.exit(failed)


if __name__ == "__main__":
    main()
