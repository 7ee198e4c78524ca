"""What Prometheus reads: counts of this node, its contents and their fleets.

Job: a collector over ``Control``, in a registry of its own. Label values are bounded:
``limits.WEB_METRIC_CONTENTS`` contents are told apart, the others are added up as ``others``;
stages and reasons are words of ours. Names are conventions of Prometheus: units are bytes and
seconds, counters end in ``_total``. Tests: ``test_web_metrics``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from attrs import define
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from p2pdist import limits
from p2pdist.census.records import Reason
from p2pdist.control import Control, NoSuchContent, Result
from p2pdist.stages import Stage

CONTENT: Final = ("content",)
OTHERS: Final = "others"
MEASURES: Final[dict[str, tuple[type[Any], str, str]]] = {
    "content_bytes": (GaugeMetricFamily, "length", "Bytes of the content."),
    "content_have_bytes": (GaugeMetricFamily, "have_bytes", "Bytes of verified pieces."),
    "content_pieces": (GaugeMetricFamily, "pieces", "Pieces of the content."),
    "content_have_pieces": (GaugeMetricFamily, "have_pieces", "Verified pieces."),
    "content_peers": (GaugeMetricFamily, "peers", "Connections to peers."),
    "content_seeds": (GaugeMetricFamily, "seeds", "Connections to peers that have everything."),
    "content_received_bytes": (
        CounterMetricFamily,
        "downloaded_bytes",
        "Bytes of pieces received, wrong and stolen ones too.",
    ),
    "content_sent_bytes": (CounterMetricFamily, "uploaded_bytes", "Bytes of pieces sent."),
}
"""Of each content: metric, member of its status, help."""
HELP: Final = {
    "build_info": "Version of this node; always 1.",
    "contents": "Contents by stage.",
    "content_info": "Name of a content; always 1.",
    "fleet_nodes": "Machines of the content's swarm, but for those that left before the end.",
    "fleet_done_nodes": "Machines that have everything.",
    "fleet_silent_nodes": "Machines that should have been heard of again.",
    "fleet_limited_nodes": "Machines by what limits them.",
}


@define(eq=False)
class NodeCollector(Collector):
    """The metrics of one node.

    Args:
        control: that is asked.
    """

    _control: Control

    def describe(self) -> Iterator[Metric]:
        """Name the metrics, without asking for values."""
        yield from _families().values()

    def collect(self) -> Iterator[Metric]:
        """Return the values now."""
        status = self._control.look("status")
        found = _families()
        found["build_info"].add_metric([status["version"]], 1)
        stages = Counter(one["stage"] for one in status["contents"])
        stages["paused"] = len(status["paused"])
        for stage in (*(stage.value for stage in Stage), "paused"):
            found["contents"].add_metric([stage], stages[stage])
        contents = status["contents"]
        for one in contents[: limits.WEB_METRIC_CONTENTS]:
            _measure(found, one["hash_key"], [one])
            found["content_info"].add_metric([one["hash_key"], one["name"]], 1)
            found["fleet_nodes"].add_metric([one["hash_key"]], one["fleet"]["nodes"])
            found["fleet_done_nodes"].add_metric([one["hash_key"]], one["fleet"]["done"])
            self._fleet(found, one["hash_key"])
        if len(contents) > limits.WEB_METRIC_CONTENTS:
            _measure(found, OTHERS, contents[limits.WEB_METRIC_CONTENTS :])
        yield from found.values()

    def _fleet(self, found: dict[str, Any], content: str) -> None:
        try:
            hosts = self._control.look("fleet", content)["hosts"]
        except NoSuchContent:
            return
        there = [host for host in hosts if not host["left"]]
        reasons = Counter(host["reason"] for host in there)
        silent = sum(host["silent"] for host in there)
        found["fleet_silent_nodes"].add_metric([content], silent)
        for reason in Reason:
            name = reason.name.lower()
            found["fleet_limited_nodes"].add_metric([content, name], reasons[name])


def _families() -> dict[str, Any]:
    """Return every metric, empty."""
    labels = {
        "build_info": ("version",),
        "contents": ("stage",),
        "content_info": ("content", "name"),
        "fleet_limited_nodes": ("content", "reason"),
    }
    families: dict[str, Any] = {
        name: GaugeMetricFamily(f"p2pdist_{name}", text, labels=labels.get(name, CONTENT))
        for name, text in HELP.items()
    }
    for name, (kind, _, text) in MEASURES.items():
        families[name] = kind(f"p2pdist_{name}", text, labels=CONTENT)
    return families


def catalogue() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Return name as read, kind, labels and help of every metric of ours, in order of names."""
    rows = []
    for family in _families().values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((name, family.type, tuple(family._labelnames), family.documentation))  # noqa: SLF001 -- no other way to ask
    return sorted(rows)


def _measure(found: dict[str, Any], content: str, contents: list[Result]) -> None:
    for name, (_, member, _text) in MEASURES.items():
        found[name].add_metric([content], sum(one[member] or 0 for one in contents))


class Metrics:
    """The registry, and its text.

    Args:
        control: of the node.
    """

    def __init__(self, control: Control) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(NodeCollector(control))
        ProcessCollector(registry=self.registry)

    def text(self) -> tuple[str, bytes]:
        """Return what Prometheus reads, with its content type."""
        return CONTENT_TYPE_LATEST, generate_latest(self.registry)
