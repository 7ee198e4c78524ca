"""What Prometheus reads."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from p2pdist import limits
from p2pdist.census.records import Reason
from p2pdist.control import Result
from p2pdist.stages import Stage
from p2pdist.test.test_docs import document, rows
from p2pdist.test.webworld import KEY, WebCase
from p2pdist.web.metrics import Metrics, catalogue


class MetricsTests(WebCase):
    """The metrics of a downloader."""

    def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Return every sample by name and label values."""
        answer = self.ask("GET", "/metrics", KEY)
        self.assertEqual(200, answer.status)
        self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }

    def test_values(self):
        """They are those of the status and of the fleet."""
        self.world.run_until(lambda: self.leech.session.stage is Stage.SEEDING, timeout=60)
        self.world.run(3)
        found = self.samples()
        one = (self.key,)
        length = found["p2pdist_content_bytes", one]
        self.assertEqual(length, found["p2pdist_content_have_bytes", one])
        self.assertEqual(length, found["p2pdist_content_received_bytes_total", one])
        self.assertEqual(2.0, found["p2pdist_fleet_nodes", one])
        self.assertEqual(2.0, found["p2pdist_fleet_done_nodes", one])
        self.assertEqual(2.0, found["p2pdist_fleet_limited_nodes", (self.key, "done")])
        self.assertEqual(1.0, found["p2pdist_contents", ("seeding",)])
        self.assertEqual(0.0, found["p2pdist_contents", ("failed",)])
        self.assertEqual(1.0, found["p2pdist_content_info", (self.key, self.leech.session.name)])
        self.assertIn(("process_cpu_seconds_total", ()), found)

    def test_paused(self):
        """A paused content is counted, and has no metrics of its own."""
        self.world.wait_for(self.control.call("pause", {}))
        found = self.samples()
        self.assertEqual(1.0, found["p2pdist_contents", ("paused",)])
        self.assertNotIn(("p2pdist_content_bytes", (self.key,)), found)

    def test_labels_are_bounded(self):
        """Beyond WEB_METRIC_CONTENTS contents are added up under one label."""
        look = self.control.look

        def many(question: str, content: str | None = None) -> Result:
            answer = look(question, self.key if content else None)
            if question == "status":
                one = answer["contents"][0]
                answer["contents"] = [
                    {**one, "hash_key": f"b3:{number:064x}", "peers": 1}
                    for number in range(limits.WEB_METRIC_CONTENTS + 7)
                ]
            return answer

        self.patch(self.control, "look", many)
        found = self.samples()
        labels = {values for name, values in found if name == "p2pdist_content_peers"}
        self.assertEqual(limits.WEB_METRIC_CONTENTS + 1, len(labels))
        self.assertEqual(7.0, found["p2pdist_content_peers", ("others",)])

    def test_names(self):
        """Names have our prefix and a unit; counters, and only they, end in _total when read."""
        for family in Metrics(self.control).registry.collect():
            if family.name.startswith(("process_", "python_")):
                continue
            self.assertTrue(family.name.startswith("p2pdist_"))
            self.assertTrue(family.documentation.endswith("."))
            for sample in family.samples:
                self.assertEqual(family.type == "counter", sample.name.endswith("_total"))


class DocumentTests(WebCase):
    """What the documents say of metrics."""

    def setUp(self):
        """Nothing is needed."""

    def test_table(self):
        """The table of docs/page.md has every metric, with its kind, labels and meaning."""
        told = [
            (row[0].strip("`"), row[1], row[2].replace("`", ""), row[3])
            for row in rows(document("docs/page.md"))
            if row[0].startswith("`p2pdist_")
        ]
        known = [
            (name, kind, ", ".join(labels), help_text)
            for name, kind, labels, help_text in catalogue()
        ]
        self.assertEqual(known, told)

    def test_alerts(self):
        """The example rules ask for metrics and reasons that there are."""
        text = document("docs/examples/alerts.yml")
        names = {name for name, _, _, _ in catalogue()}
        told = set(re.findall(r"\bp2pdist_\w+", text))
        self.assertGreater(len(told), 6)
        self.assertLessEqual(told, names)
        reasons = {reason.name.lower() for reason in Reason}
        self.assertLessEqual(set(re.findall(r'reason="(\w+)"', text)), reasons)
        stages = {stage.value for stage in Stage}
        self.assertLessEqual(set(re.findall(r'stage="(\w+)"', text)), stages)
