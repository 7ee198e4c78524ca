"""Record a rollout as it runs, and draw it as an animated SVG: ``python tools/record.py FILE.svg``.

Job: start one node with a file and five that fetch it, real ``twistd`` processes on loopback with
speed limits of their own; type commands into a pseudo-terminal and keep everything they print, with
its times; draw the screens. Commands are typed and pauses shortened for the reader; nothing else is
made up, only the scratch folder's name is written as ``/srv``. Standard library only, beside the
package. Tests: ``test_record``.
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import select
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path
from socket import SOCK_DGRAM, socket

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS = 98, 16
SIZE = 320 * 1024 * 1024
MACHINES = {"web-1": "60MB", "web-2": "48MB", "web-3": "40MB", "web-4": "33MB", "web-5": "28MB"}
"""Downloaders and what each may receive a second, so that they differ as machines do."""
UPLOAD = "64MB"
"""What each machine may send a second."""
SHOWN_AS = "/srv"
KEY_S, READ_S, GAP_S, END_S = 0.04, 1.6, 1.2, 5.0
"""Seconds of a key; after a command's end; the longest pause that is kept; the last screen."""

# --- the screen ---

Cell = tuple[str, str]
"""A character, and its look: any of ``b`` (bold), ``d`` (dim) and a digit 1 to 7 (colour)."""
BLANK: Cell = (" ", "")
_ESCAPE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>]")


@dataclass
class Screen:
    """As much of a terminal as our commands use: cursor, erasing, colours, scrolling."""

    columns: int = COLUMNS
    rows: int = ROWS
    cells: list[list[Cell]] = field(default_factory=list)
    row: int = 0
    column: int = 0
    look: str = ""

    def __post_init__(self) -> None:
        self.cells = [self._blank() for _ in range(self.rows)]

    def _blank(self) -> list[Cell]:
        return [BLANK] * self.columns

    def write(self, text: str) -> None:
        """Show what a program printed; escape sequences come whole."""
        at = 0
        while at < len(text):
            found = _ESCAPE.match(text, at)
            if found is not None:
                self._obey(found[1] or "", found[2] or "")
                at = found.end()
                continue
            self._put(text[at])
            at += 1

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
        elif char == "\b":
            self.column = max(0, self.column - 1)
        elif char.isprintable():
            if self.column == self.columns:
                self.row, self.column = self.row + 1, 0
            self._scroll()
            self.cells[self.row][self.column] = (char, self.look)
            self.column += 1
        self._scroll()

    def _scroll(self) -> None:
        while self.row >= self.rows:
            self.cells = [*self.cells[1:], self._blank()]
            self.row -= 1

    def _obey(self, given: str, command: str) -> None:
        numbers = [int(word) for word in given.split(";") if word.isdigit()]
        first = numbers[0] if numbers else 0
        if command in "JK" and command:
            self._erase(command, first)
        elif command == "m":
            for number in numbers or [0]:
                self._paint(number)
        else:
            self._move(command, first, (*numbers, 1, 1)[:2])

    def _move(self, command: str, count: int, place: tuple[int, ...]) -> None:
        steps = max(count, 1)
        down, right = {"A": (-steps, 0), "B": (steps, 0), "C": (0, steps)}.get(command, (0, 0))
        row, column = self.row + down, self.column + right
        if command == "G":
            column = steps - 1
        elif command == "H":
            row, column = place[0] - 1, place[1] - 1
        self.row = min(max(row, 0), self.rows - 1)
        self.column = min(max(column, 0), self.columns)

    def _erase(self, command: str, how: int) -> None:
        line = self.cells[self.row]
        ends = ((self.column, None), (0, self.column + 1), (0, None))[min(how, 2)]
        line[slice(*ends)] = [BLANK] * len(line[slice(*ends)])
        if command == "J":
            for row in range(0 if how == 2 else self.row + 1, self.rows):
                self.cells[row] = self._blank()

    def _paint(self, number: int) -> None:
        looks = set(self.look)
        if number == 0:
            looks = set()
        elif number in {1, 2}:
            looks.add("bd"[number - 1])
        elif number == 22:
            looks -= {"b", "d"}
        elif number == 39 or 30 <= number <= 37 or 90 <= number <= 97:
            looks -= set("1234567")
            if number != 39 and number % 10:
                looks.add(str(number % 10))
        self.look = "".join(sorted(looks))

    def picture(self) -> tuple[tuple[Cell, ...], ...]:
        """Return the cells as they are now."""
        return tuple(tuple(line) for line in self.cells)


Picture = tuple[tuple[Cell, ...], ...]


@dataclass
class Film:
    """Screens and when each was shown.

    Attributes:
        frames: seconds since the start, and the screen from then on.
    """

    screen: Screen = field(default_factory=Screen)
    frames: list[tuple[float, Picture]] = field(default_factory=list)
    now: float = 0.0

    def show(self, text: str, seconds: float) -> None:
        """Write to the screen ``seconds`` after what came before."""
        self.now += seconds
        self.screen.write(text)
        picture = self.screen.picture()
        if self.frames and self.frames[-1][1] == picture:
            return
        if self.frames and self.now - self.frames[-1][0] < 0.02:
            self.frames.pop()  # one redraw, written in parts
        self.frames.append((self.now, picture))

    def type(self, command: str) -> None:
        """Show a prompt and a command being typed."""
        self.show("\x1b[1;32m$\x1b[0m ", 0.3)
        for char in command:
            self.show(char, KEY_S)
        self.show("\r\n", 0.3)


# --- running ---


def run(film: Film, command: str, folder: Path, environment: dict[str, str], stop: str) -> None:
    """Run a command on a pseudo-terminal and film it.

    Args:
        film: to go on with.
        command: as typed.
        folder: where it runs; its name is shown as ``/srv``.
        environment: of the command.
        stop: interrupt it two seconds after it printed this; else it ends by itself.
    """
    film.type(command)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("sh", ["sh", "-c", f"exec {command}"], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    last, text, stop_at = time.monotonic(), "", float("inf")
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.05)
        now = time.monotonic()
        if now > stop_at:
            os.write(terminal, b"\x03")
            stop_at = float("inf")
        if not ready:
            continue
        try:
            part = os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # its end
            break
        if not part:
            break
        part = part.replace(str(folder), SHOWN_AS).replace("^C", "")
        film.show(part, min(now - last, GAP_S))
        last, text = now, (text + part)[-4000:]
        if stop and stop_at == float("inf") and re.search(stop, text):
            stop, stop_at = "", now + 2
    os.close(terminal)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    if film.screen.column:
        film.show("\r\n", 0)
    film.now += READ_S


def free_port() -> int:
    """Return the usual port if nobody has it on loopback, else any other that is free."""
    for wanted in (7667, 0):
        with socket() as tcp, socket(type=SOCK_DGRAM) as udp, suppress(OSError):
            tcp.bind(("127.0.0.1", wanted))
            port: int = tcp.getsockname()[1]
            udp.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


@contextmanager
def node(name: str, folder: Path, environment: dict[str, str], options: str) -> Iterator[None]:
    """Run ``twistd -n p2pdist`` as a machine of the rollout."""
    (folder / name).mkdir(exist_ok=True)
    state = environment.get("STATE_DIRECTORY") or str(folder / f"{name}.state")
    command = (
        f"twistd -n --pidfile= p2pdist --listen 127.0.0.1 --name {name} --descriptor "
        f"model.bin.desc --upload-limit {UPLOAD} --state-dir {shlex.quote(state)} {options}"
    )
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            shlex.split(command), cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def rollout(folder: Path, programs: Path) -> Film:
    """Run the rollout in a folder, with the commands in ``programs``, and film it."""
    film = Film()
    port = free_port()
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm-256color",
        "STATE_DIRECTORY": str(folder / "alpha.state"),
    }
    chance = random.Random(7)
    with (folder / "model.bin").open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(chance.randbytes(1 << 20))
    with ExitStack() as running:
        make = f"p2pdist make model.bin --node 127.0.0.1:{port}"
        run(film, make, folder, environment, "")
        film.show("\x1b[2m# here, and on five machines with the descriptor:\x1b[0m\r\n", 0.3)
        film.type("twistd -n p2pdist --descriptor model.bin.desc &")
        running.enter_context(node("alpha", folder, environment, f"--directory . --port {port}"))
        wait_for(folder / "alpha.log", "is complete at")
        others = {k: v for k, v in environment.items() if k != "STATE_DIRECTORY"}
        for name, rate in MACHINES.items():
            options = f"--directory {name} --port 0 --download-limit {rate}"
            running.enter_context(node(name, folder, others, options))
        film.now += READ_S / 2
        count = len(MACHINES) + 1
        done = rf"{count}/{count} machines done"
        run(film, "p2pdist status --fleet --watch", folder, environment, done)
        run(film, f"p2pdist wait --nodes {count}", folder, environment, "")
        for name in MACHINES:
            wait_for(folder / f"{name}.log", "complete and verified")
    return film


def wait_for(log: Path, words: str) -> None:
    """Wait until a log says so, at most a minute."""
    ends = time.monotonic() + 60
    while words not in log.read_text():
        if time.monotonic() > ends:
            raise TimeoutError(f"{log.name} never said {words!r}")
        time.sleep(0.1)


# --- drawing ---

WIDTH, HEIGHT, BASE = 8.43, 19.0, 14.0
EDGE, BAR = 16.0, 34.0
COLOURS = {
    "1": "#f47067",
    "2": "#57c28b",
    "3": "#e0b34c",
    "4": "#6cb6ff",
    "5": "#c79bf2",
    "6": "#58c4c4",
    "7": "#f3f6fa",
}


def draw_line(line: tuple[Cell, ...]) -> str:
    """Return one line's text; ``""`` when it is blank."""
    parts, column = [], 0
    for look, run_ in groupby(line, key=lambda cell: cell[1]):
        text = "".join(char for char, _ in run_)
        for piece in re.finditer(r"\S+(?: \S+)*", text):
            x = (column + piece.start()) * WIDTH
            wide = len(piece[0]) * WIDTH
            style = f' class="{" ".join("k" + one for one in look)}"' if look else ""
            parts.append(
                f'<tspan x="{x:.1f}" textLength="{wide:.1f}"{style}>{escape(piece[0])}</tspan>'
            )
        column += len(text)
    return f"<text>{''.join(parts)}</text>" if parts else ""


def draw(film: Film, title: str, still: float) -> str:
    """Return the film as SVG.

    Each different line is drawn once. A frame is a list of references to lines; frames stand one
    below the other, and a stepped CSS animation shows one at a time.

    Args:
        film: what to draw.
        title: above the screen.
        still: share of the film, 0 to 1, that is shown where nothing moves.
    """
    end = film.frames[-1][0] + END_S
    lines: dict[tuple[Cell, ...], str] = {}
    frames, steps = [], []
    tall = ROWS * HEIGHT
    for number, (at, picture) in enumerate(film.frames):
        uses = []
        for row, line in enumerate(picture):
            if all(cell == BLANK for cell in line):
                continue
            name = lines.setdefault(line, f"l{len(lines)}")
            uses.append(f'<use href="#{name}" y="{row * HEIGHT:g}"/>')
        frames.append(f'<g transform="translate(0 {number * tall:g})">{"".join(uses)}</g>')
        steps.append(f"{100 * at / end:.2f}%{{transform:translateY({-number * tall:g}px)}}")
    shown = max(i for i, (at, _) in enumerate(film.frames) if at <= still * end)
    width, height = COLUMNS * WIDTH + 2 * EDGE, tall + BAR + EDGE
    paints = "".join(f".k{key}{{fill:{colour}}}" for key, colour in COLOURS.items())
    defs = "".join(f'<g id="{name}">{draw_line(line)}</g>' for line, name in lines.items())
    dots = "".join(
        f'<circle cx="{18 + 18 * i}" cy="17" r="5.5" fill="{colour}"/>'
        for i, colour in enumerate(("#f47067", "#e0b34c", "#57c28b"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><style>"
        "text{font:14px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#d3dae3;"
        f"white-space:pre}}.kb{{font-weight:700}}.kd{{fill:#8a97a8}}{paints}"
        f".f{{transform:translateY({-shown * tall:g}px);animation:f {end:.1f}s steps(1,end) "
        "infinite}@media(prefers-reduced-motion:reduce){.f{animation:none}}"
        f"@keyframes f{{{''.join(steps)}}}</style>"
        f'<rect width="100%" height="100%" rx="10" fill="#1c2128"/>{dots}'
        f'<text x="{width / 2:.0f}" y="22" text-anchor="middle" class="kd">{escape(title)}</text>'
        f"<defs>{defs}</defs>"
        f'<svg x="{EDGE:g}" y="{BAR:g}" width="{COLUMNS * WIDTH:.0f}" height="{tall:g}" '
        f'viewBox="0 {-BASE:g} {COLUMNS * WIDTH:.0f} {tall:g}"><g class="f">'
        f"{''.join(frames)}</g></svg></svg>\n"
    )


def main(arguments: list[str]) -> int:
    """Record, and write the file that was named."""
    if len(arguments) != 1:
        print("usage: python tools/record.py FILE.svg")
        return 2
    with tempfile.TemporaryDirectory(prefix="p2pdist-record-") as name:
        programs = Path(name) / "bin"
        programs.mkdir()
        for program, code in {
            "p2pdist": "from p2pdist.faces.cli.main import main; main()",
            "twistd": "from twisted.scripts.twistd import run; run()",
        }.items():
            path = programs / program
            path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
            path.chmod(0o755)
        folder = Path(name) / "rollout"
        folder.mkdir()
        film = rollout(folder, programs)
    title = "p2pdist: one file, five machines"
    Path(arguments[0]).write_text(draw(film, title, 0.62), encoding="utf-8")
    size = Path(arguments[0]).stat().st_size
    print(f"{len(film.frames)} screens, {film.now:.0f} s, {size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
