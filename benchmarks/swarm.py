"""How long until all members of a swarm have their copies, on shaped links, beside BitTorrent.

Network namespaces on this machine, 10 Mbit/s each way and a round trip of 5 ms unless a scenario
says otherwise (``links.py``); one seed, and leechers that all begin at once. What counts is the
makespan, the time until the last copy is complete and right, against the fluid bound

    T* = max(F / us, F / dmin, N F / (us + sum of ui))

with the rates that one TCP connection reaches on the same links in the same run. Contestants
(``swarm_clients.py``) take turns. Bytes on the wire are those of IP packets, headers and
acknowledgements included: a copy received costs 1.04 to 1.06 F at best.

With ``--quick`` four leechers fetch 4 MiB by p2pdist alone. Needs root, iproute2, /dev/net/tun and
a C compiler, else everything is skipped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from common import Report, options
from links import goodput, missing
from netlab import signals_as_exit
from swarm_clients import CLIENTS, P2PDist
from swarm_run import RATE, Outcome, Scenario, preferred, run

OURS = "p2pdist"
CPU_OF = "libtorrent"
PEER_MAX = 0.80
CPU_MAX = 1.5
SEED_SENT_MAX = 1.20
RECEIVED_MAX = 1.06
RESTARTED_MAX = 1.10
POISON_MAX = 0.10
SCENARIOS = {
    "8x48": Scenario("N=8, 48 MiB", 8, 48, 1.15, against_peers=True),
    "8x16": Scenario("N=8, 16 MiB", 8, 16, 1.25, against_peers=True),
    "16x48": Scenario("N=16, 48 MiB", 16, 48, 1.25),
    "mixed": Scenario("half of N=8 with 1/4 upload", 8, 16, 1.40, poor=True),
    "restart": Scenario("leecher restarted, N=8", 8, 16, every_s=2.0, restarts=True),
    "seed-killed": Scenario("seed killed, N=8", 8, 16, 1.25, seed_dies=1.1),
    "poisoner": Scenario("one poisoner, N=8", 8, 16, 1.25, poisoner=True),
    "lossy": Scenario("80 ms, 5 % loss, N=8", 8, 16, 2.5, rtt_s=0.08, loss=0.05),
}
QUICK = Scenario("N=4, 4 MiB", 4, 4)


def median_of(runs: list[Outcome], what: str) -> float:
    """Return the median of one of the figures."""
    return float(statistics.median(getattr(outcome, what) for outcome in runs))


def add(
    report: Report, scenario: Scenario, label: str, client: str, runs: list[Outcome], bound_s: float
) -> None:
    """Add the figures of one client in one scenario: medians of its runs."""

    def median(what: str) -> float:
        return median_of(runs, what)

    ours = client == OURS
    name = f"{label}: {client}"
    report.add(f"{name}, makespan / bound", median("makespan_s") / bound_s, "ratio",
               at_most=scenario.bound_max if ours else None)  # fmt: skip
    if len(runs) > 1:
        for word, of in (("best", min), ("worst", max)):
            ratio = of(outcome.makespan_s for outcome in runs) / bound_s
            report.add(f"{name}, makespan / bound, {word} of {len(runs)}", ratio, "ratio")
    report.add(f"{name}, mean / bound", median("mean_s") / bound_s, "ratio")
    complete = min(outcome.complete for outcome in runs)
    report.add(f"{name}, copies complete", complete, f"of {scenario.leechers}",
               at_least=scenario.leechers if ours else None)  # fmt: skip
    wrong = max(outcome.wrong for outcome in runs)
    report.add(f"{name}, copies wrong", wrong, "", at_most=0 if ours else None)
    bytes_count = ours and scenario.against_peers
    report.add(f"{name}, seed sent / F", median("seed_sent"), "ratio",
               at_most=SEED_SENT_MAX if bytes_count else None)  # fmt: skip
    report.add(f"{name}, received / (N F)", median("received"), "ratio",
               at_most=RECEIVED_MAX if bytes_count else None)  # fmt: skip
    report.add(f"{name}, CPU of a leecher", median("cpu_s"), "s")
    report.add(f"{name}, neighbours at half of the bound", median("neighbours"), "")
    report.add(f"{name}, waited for a core", median("waited_s"), "s")
    if scenario.restarts:
        report.add(f"{name}, restarted one received / F", median("restarted"), "ratio",
                   at_most=RESTARTED_MAX if ours else None)  # fmt: skip
    if scenario.poisoner:
        report.add(f"{name}, poisoner sent / F", median("poison"), "ratio",
                   at_most=POISON_MAX if ours else None)  # fmt: skip
    report.add(f"{name}, packets 2 ms late", 100 * median("late"), "%")


def compare(report: Report, scenario: Scenario, label: str, runs: dict[str, list[Outcome]]) -> None:
    """Add what is relative to the others of the same run."""
    if OURS not in runs or len(runs) < 2:
        return

    def median(client: str, what: str) -> float:
        return median_of(runs[client], what)

    peers = {client: median(client, "makespan_s") for client in runs if client != OURS}
    best = min(peers, key=lambda client: peers[client])
    report.add(f"{label}: makespan / best peer's ({best})",
               median(OURS, "makespan_s") / peers[best], "ratio",
               at_most=PEER_MAX if scenario.against_peers else None)  # fmt: skip
    if CPU_OF in runs:
        report.add(f"{label}: CPU of a leecher / {CPU_OF}'s",
                   median(OURS, "cpu_s") / median(CPU_OF, "cpu_s"), "ratio",
                   at_most=CPU_MAX if scenario.against_peers else None)  # fmt: skip


def chosen_options() -> argparse.Namespace:
    """Parse the options."""
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--scenario", help=f"of {', '.join(SCENARIOS)}; commas between  [all]")
    more.add_argument("--client", help=f"of {', '.join(CLIENTS)}; commas between  [all]")
    more.add_argument("--rounds", type=int, default=1, help="runs of each  [1]")
    more.add_argument("--mib", type=float, help="another size of the content")
    more.add_argument("--against", type=Path, help="another tree of p2pdist that takes part")
    more.add_argument("--known", action="store_true", help="p2pdist is told all addresses")
    more.add_argument("--congestion", default="cubic", help="TCP's congestion control  [cubic]")
    more.add_argument("--logs", type=Path, help="folder where the members' logs are kept")
    chosen = options(__doc__, more)
    for name, known in (("scenario", SCENARIOS), ("client", CLIENTS)):
        words = (getattr(chosen, name) or ",".join(known)).split(",")
        if not set(words) <= set(known):
            more.error(f"--{name}: one of {', '.join(known)}")
        setattr(chosen, name, words)
    return chosen


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """Run everything that was chosen."""
    scenarios = [QUICK] if chosen.quick else [SCENARIOS[name] for name in chosen.scenario]
    clients = {name: CLIENTS[name] for name in ([OURS] if chosen.quick else chosen.client)}
    if chosen.against is not None:
        other = P2PDist(f"{OURS} of {chosen.against.name}", root=chosen.against.resolve())
        clients[other.name] = other
    for client in clients.values():
        if isinstance(client, P2PDist):
            client.known = chosen.known
    share = goodput(RATE, 0.005, 2 if chosen.quick else 5) * 8 / RATE
    report.add("TCP goodput / link rate", share, "ratio")
    for scenario in scenarios:
        mib = chosen.mib or scenario.mib
        label = scenario.title if mib == scenario.mib else f"{scenario.title} ({mib:g} MiB)"
        bound_s = scenario.bound_s(int(mib * 2**20), share)
        report.add(f"{label}: bound", bound_s, "s")
        runs: dict[str, list[Outcome]] = {}
        for turn in range(chosen.rounds):
            for name, client in clients.items():
                if client.missing():
                    continue
                outcome = run(
                    scenario, client, mib, share, turn + 1, chosen.congestion, chosen.logs
                )
                runs.setdefault(name, []).append(outcome)
                print(f"{label}: {name}: {outcome}", file=sys.stderr, flush=True)
        for name, client in clients.items():
            if name in runs:
                add(report, scenario, label, name, runs[name], bound_s)
            else:
                why = client.missing()
                report.skip(f"{label}: {name}, makespan / bound", "ratio", why)
        compare(report, scenario, label, runs)


def main() -> None:
    """Run."""
    chosen = chosen_options()
    report = Report(seed=1)
    why = missing()
    if why:
        report.skip("makespan / bound", "ratio", why)
    else:
        with signals_as_exit(), preferred():
            measure(report, chosen)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
