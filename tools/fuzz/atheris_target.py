"""Fuzz one parser, guided by coverage: needs `pip install atheris` (Python 3.11 to 3.13).

    python tools/fuzz/atheris_target.py TARGET [SECONDS]        default: 600
    python tools/fuzz/atheris_target.py --list

Seconds are those of the processor: a busy machine takes longer, and fuzzes as much.

Starts from the target's samples and its corpus (`corpus/TARGET.txt`, one input a line in hex), and
afterwards adds what reached new code to the corpus, small inputs first, at most CORPUS of them. An
input that the parser does not refuse as it should is printed and ends the run with code 77; put it
into the corpus, where every `make test` replays it, and mend the parser.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = 120
CORPUS_BYTES = 600
"""Largest input that is kept."""
INPUT_BYTES = 4096
STUCK_S = 900
"""An input that takes so long hangs the parser; the machine may stand still for a while."""
sys.path.insert(0, str(HERE.parents[1]))


def corpus_of(name: str) -> Path:
    """Return the file of a target's kept inputs."""
    return HERE / "corpus" / f"{name}.txt"


def unpack(name: str, folder: Path) -> None:
    """Write samples and kept inputs as files of their own."""
    from p2pdist.test.fuzztargets import TARGETS

    kept = corpus_of(name)
    lines = kept.read_text().split("\n") if kept.exists() else []
    inputs = [*TARGETS[name].samples(), *(bytes.fromhex(line) for line in lines if line)]
    for number, data in enumerate(inputs):
        (folder / f"{number:04}").write_bytes(data)


def pack(name: str, folder: Path) -> int:
    """Keep what libFuzzer's merge found to matter; return how many inputs that is."""
    found = {path.read_bytes() for path in folder.iterdir()}
    small = sorted((d for d in found if 0 < len(d) <= CORPUS_BYTES), key=lambda d: (len(d), d))
    corpus_of(name).parent.mkdir(exist_ok=True)
    corpus_of(name).write_text("".join(f"{data.hex()}\n" for data in small[:CORPUS]))
    return len(small[:CORPUS])


def fuzz(name: str, script: str, arguments: list[str]) -> None:
    """Be the fuzzer; never returns. libFuzzer starts ``script`` again when it merges."""
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["p2pdist"]):
        from p2pdist.test.fuzztargets import TARGETS
    atheris.Setup([script, *arguments], TARGETS[name].run)
    atheris.Fuzz()


def spent_s() -> float:
    """Return the processor time of all children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Run one target for a while, then keep what it found."""
    if sys.argv[1:] == ["--list"]:
        from p2pdist.test.fuzztargets import TARGETS

        print("\n".join(TARGETS))
        return 0
    if len(sys.argv) > 2 and sys.argv[2] == "--inside":
        fuzz(sys.argv[1], sys.argv[3], sys.argv[4:])
    name, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600
    with tempfile.TemporaryDirectory(prefix="p2pdist-fuzz-") as top:
        script = Path(top, "target")
        own = [str(script)]
        command = f"{sys.executable} {Path(__file__).resolve()} {name} --inside"
        script.write_text(f'#!/bin/sh\nexec {command} "$0" "$@"\n')
        script.chmod(0o700)
        seeds, merged = Path(top, "seeds"), Path(top, "merged")
        seeds.mkdir()
        merged.mkdir()
        unpack(name, seeds)
        bounds = [f"-max_len={INPUT_BYTES}", "-rss_limit_mb=1024", f"-artifact_prefix={top}/"]
        bounds += [f"-timeout={STUCK_S}", "-print_final_stats=1"]
        code, rest = 0, float(seconds)
        while code == 0 and rest > 0:
            limit = f"-max_total_time={math.ceil(rest)}"
            code = subprocess.run([*own, *bounds, limit, str(seeds)], check=False).returncode
            rest = seconds - spent_s()
        for path in Path(top).glob("[cto]*-*"):  # crash-, timeout-, oom-
            print(f"{name}: {path.name}: {path.read_bytes().hex()}")
        took = seconds - rest
        subprocess.run([*own, "-merge=1", str(merged), str(seeds)], check=False)
        kept = pack(name, merged)
        print(f"{name}: exit code {code} after {took:.0f} s of CPU, {kept} inputs kept")
    return code


if __name__ == "__main__":
    sys.exit(main())
