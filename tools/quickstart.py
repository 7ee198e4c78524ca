"""Do what the README tells a new user, word for word, and say how long it took.

``python tools/quickstart.py`` copies the tree into a new folder, runs there every command of the
README's first block, and compares the copy with the original. The first command installs, so pip
needs an index. Two things differ from the text: the port is a free one, and nodes listen on
loopback only.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS_MOST = 5
SECONDS_MOST = 120.0
ORIGINAL, COPY = "model.bin", "copy/model.bin"
UNSHIPPED = shutil.ignore_patterns(".git", ".venv*", "_build", "build", "dist", "*.egg-info")


def commands(readme: str) -> list[str]:
    """Return the commands of the first block that a new user meets."""
    block = re.search(r"^```console\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert block is not None, "the README has a block of commands"
    return re.findall(r"^\$ (.*)$", block[1], re.MULTILINE)


def local(command: str, port: int) -> str:
    """Return a command that stays on loopback and takes a port that is free."""
    command = command.replace("7667", str(port))
    return re.sub(r"(p2pdist (?:seed|get) \S+)", r"\1 --listen 127.0.0.1", command)


def free_port() -> int:
    """Return a port of loopback that nobody has now, for UDP and TCP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
    return port


def run(folder: Path, lines: Iterable[str], *, timeout_s: float) -> str:
    """Type commands in one shell, then compare; return everything that was printed.

    Raises:
        subprocess.CalledProcessError: a command failed, or the copy differs.
    """
    ends = "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"
    script = "\n".join(["set -e", ends, *lines, f"cmp {ORIGINAL} {COPY}"])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, script, done.stdout)
    return done.stdout


def main() -> int:
    """Run it all; the exit code is 0 if it worked within the bounds."""
    typed = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="p2pdist-quickstart-") as name:
        folder = Path(name) / "p2pdist"
        shutil.copytree(ROOT, folder, ignore=UNSHIPPED)
        began = time.monotonic()
        try:
            print(run(folder, (local(line, port) for line in typed), timeout_s=900), end="")
        except subprocess.CalledProcessError as error:
            print(f"{error.output}\nit ended with {error.returncode}")
            return 1
        seconds = time.monotonic() - began
        size = (folder / ORIGINAL).stat().st_size
    print(f"{len(typed)} commands, {size / 2**20:.0f} MiB, equal copies, {seconds:.1f} s in all")
    return 0 if len(typed) <= COMMANDS_MOST and seconds <= SECONDS_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
