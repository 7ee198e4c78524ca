"""``p2pdist status`` and ``p2pdist why``: how a running node and its fleet stand.

Tests: ``test_cli_remote``.
"""

from __future__ import annotations

from typing import Any

import click

from p2pdist.faces.cli.output import (
    Output,
    format_bytes,
    format_duration,
    format_rate,
    printable,
    reports_errors,
)
from p2pdist.faces.cli.remote import (
    Remote,
    counts,
    fleets,
    labels,
    pause,
    state_option,
    trouble,
)

WATCH_S = 1.0
BAR_CHARACTERS = 12
SHOWN = 20
"""Hosts listed unless --all asks for every one."""
SOURCES = 4
"""Machines named of those that bytes came from."""


@click.command()
@click.argument("content", required=False, metavar="[NAME|b3:KEY]")
@click.option("--fleet", is_flag=True, help="Every machine, stragglers first.")
@click.option("--all", "everybody", is_flag=True, help=f"List more than {SHOWN} machines.")
@click.option("--watch", is_flag=True, help="Show it again every second until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@state_option
@reports_errors
def status(
    content: str | None,
    *,
    fleet: bool,
    everybody: bool,
    watch: bool,
    as_json: bool,
    state_dir: str | None,
) -> None:
    """Show how the running node stands, or with --fleet everybody in the swarm of each content.

    With --fleet and --json each content is a line. Of a fleet, and of one content, the only one or
    the one named, it also says which machines this node's bytes came from.
    """
    output = Output(as_json)
    remote = Remote(state_dir)
    try:
        while True:
            answers, lines = look(remote, content, fleet=fleet, everybody=everybody)
            if watch and not as_json:
                click.clear()  # only now: a screen that waits for an answer stays as it was
            for answer in answers:
                output.result(answer)
            for line in lines:
                output.line(line)
            if not watch:
                return
            pause(WATCH_S)
    except KeyboardInterrupt:
        if not watch:
            raise


def look(
    remote: Remote, content: str | None, *, fleet: bool, everybody: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Ask the node; return its answers, and the same in lines for people."""
    if fleet:
        found = fleets(remote, content)
        served = {one["hash_key"]: one for one in remote.ask("status")["contents"]}
        for each in found:  # what was removed meanwhile has none
            here = served.get(each["hash_key"])
            each["sources"] = sources(remote, here, each["hosts"]) if here else []
        most = None if everybody else SHOWN
        return found, [line for one in found for line in fleet_lines(one, most)]
    answer = remote.ask("status")
    page = remote.ask("page")["url"]  # it holds a key: not in JSON
    if content is not None and not any(content == one["name"] for one in answer["paused"]):
        key = remote.ask("peers", content=content)["hash_key"]
        answer["contents"] = [one for one in answer["contents"] if one["hash_key"] == key]
        answer["paused"] = []
    elif content is not None:
        answer["contents"] = []
        answer["paused"] = [one for one in answer["paused"] if content == one["name"]]
    if len(answer["contents"]) == 1:
        (one,) = answer["contents"]
        one["sources"] = []
        if one["downloaded_bytes"]:
            hosts = remote.ask("fleet", content=one["hash_key"])["hosts"]
            one["sources"] = sources(remote, one, hosts)
    return [answer], status_lines(answer) + [f"page: {page}"] * bool(page)


def status_lines(answer: dict[str, Any]) -> list[str]:
    """Return what one node says of itself, for people."""
    lines = [f"node {answer['node'][:8]} on port {answer['port']}, p2pdist {answer['version']}"]
    if not answer["contents"] and not answer["paused"]:
        lines.append("serves no content: a bare node for others to ask")
    for one in answer["contents"]:
        lines += content_lines(one)
    lines += [
        f"{printable(one['name'] or one['hash_key'][:11])}: paused" for one in answer["paused"]
    ]
    return lines


def sources(
    remote: Remote, one: dict[str, Any], hosts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return where the bytes of a content came from in this run, by machine, most first.

    Connections that are gone are the last, without a name.

    Args:
        remote: the node.
        one: the content, as the node tells it.
        hosts: its fleet, for names.
    """
    if not one["downloaded_bytes"]:
        return []
    asked = remote.ask("peers", content=one["hash_key"])["peers"]
    peers = [peer for peer in asked if peer["received_bytes"]]
    names = {host["node"]: host["name"] for host in hosts}
    found = [
        {
            "name": names.get(peer["node"]) or peer["address"],
            "node": peer["node"],
            "received_bytes": peer["received_bytes"],
        }
        for peer in sorted(peers, key=lambda peer: -peer["received_bytes"])
    ]
    rest = one["downloaded_bytes"] - sum(source["received_bytes"] for source in found)
    return found + [{"name": None, "node": None, "received_bytes": rest}] * (rest > 0)


def sources_line(found: list[dict[str, Any]]) -> str:
    """Return the same in a line for people, the first few by name."""
    total = sum(source["received_bytes"] for source in found)
    named = [source for source in found if source["name"]][:SOURCES]
    words = [
        f"{printable(source['name'], 40)} {100 * source['received_bytes'] // total}%"
        for source in named
    ]
    rest = total - sum(source["received_bytes"] for source in named)
    return "came from " + ", ".join(words + [f"others {100 * rest // total}%"] * (rest > 0))


def content_lines(one: dict[str, Any]) -> list[str]:
    """Return how one content stands."""
    name = printable(one["name"])
    if one["error"]:
        return [f"{name}: failed: {printable(one['error'], None)}"]
    percent = 100 * one["have_bytes"] // one["length"] if one["length"] else 0
    size = f" of {format_bytes(one['length'])}" if one["length"] else ""
    words = [f"{name}: {one['stage']}, {percent}%{size}"]
    if one["download_bytes_per_s"] or one["upload_bytes_per_s"]:
        down, up = format_rate(one["download_bytes_per_s"]), format_rate(one["upload_bytes_per_s"])
        words.append(f"down {down}, up {up}")
    if one["eta_s"]:
        words.append(f"{format_duration(one['eta_s'])} left")
    words.append(f"{one['peers']} peer{'' if one['peers'] == 1 else 's'}")
    words.append(f"{one['fleet']['done']}/{one['fleet']['nodes']} machines done")
    lines = [", ".join(words)]
    if one.get("sources"):
        lines.append(f"  {sources_line(one['sources'])}")
    if one["waiting_for"]:
        lines.append(f"  waits for {printable(one['waiting_for'], None)}")
    return lines


def fleet_lines(answer: dict[str, Any], most: int | None) -> list[str]:
    """Return how a fleet stands, stragglers first."""
    hosts = [host for host in answer["hosts"] if counts(host)]
    done = sum(host["complete"] for host in hosts)
    eta = fleet_eta(hosts, answer["length"])
    lines = [f"{printable(answer['name'])}: {done}/{len(hosts)} machines done{eta}"]
    names = labels(hosts)[:most]
    wide = max(map(len, names), default=0)
    for name, host in zip(names, hosts, strict=False):
        percent = 100 * host["have_pieces"] // host["pieces"] if host["pieces"] else 0
        silent = host["silent"] and not host["left"] and not host["lost"]
        said = f", silent for {format_duration(host['age_s'])}" if silent else ""
        rate = "" if host["lost"] else f" {format_rate(host['download_bytes_per_s'])},"
        done_words = "done, left" if host["left"] else "done"
        state = done_words if host["complete"] else f"{percent:3}%{rate} {trouble(host)}"
        lines.append(f"  {name:{wide}} {bar(percent)} {state}{said}")
    if most is not None and len(hosts) > most:
        lines.append(f"  and {len(hosts) - most} more; --all lists them")
    if answer["sources"]:
        lines.append(f"  what is here {sources_line(answer['sources'])}")
    return lines


def bar(percent: int) -> str:
    """Return a share of a whole as people see it at a glance."""
    full = BAR_CHARACTERS * percent // 100
    return "━" * full + "╌" * (BAR_CHARACTERS - full)


def fleet_eta(hosts: list[dict[str, Any]], length: int | None) -> str:
    """Return when the last machine is done at the present speeds, as the end of a sentence."""
    lost = sum(host["lost"] for host in hosts)
    told = f", {lost} lost" if lost else ""
    lefts = [
        ((1 - host["have_pieces"] / host["pieces"]) * (length or 0), host["download_bytes_per_s"])
        for host in hosts
        if host["pieces"] and not host["complete"] and not host["lost"]
    ]
    stuck = sum(not rate for _, rate in lefts)
    if stuck:
        return f"{told}, {stuck} of the others receive nothing now"
    if not lefts or not length:
        return told
    longest = format_duration(max(left / rate for left, rate in lefts))
    return f"{told}, {'the others' if lost else 'all'} in about {longest}"


@click.command()
@click.argument("content", required=False, metavar="[NAME|b3:KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@state_option
@reports_errors
def why(content: str | None, *, as_json: bool, state_dir: str | None) -> None:
    """Say for every machine that is not done what holds it up; with --json a line per content."""
    output = Output(as_json)
    found = fleets(Remote(state_dir), content)
    for answer in found:
        named = zip(labels(answer["hosts"]), answer["hosts"], strict=True)
        late = [(name, host) for name, host in named if not host["left"] and not host["complete"]]
        output.result({"name": answer["name"], "hosts": [host for _, host in late]})
        content_name = printable(answer["name"])
        of = f"{content_name}: " if len(found) > 1 else ""
        for name, host in late:
            output.line(f"{of}{name} {trouble(host)}")
            if host["lost"]:
                output.line(f"  before that it {host['why']}; is it running, can it be reached?")
        if not late:
            output.line(f"{content_name}: everybody known is done")
