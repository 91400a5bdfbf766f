"""The queries of the dashboard for Grafana, on a Prometheus that scrapes a backend."""

import json
import math
import os
import shutil
import tempfile
import unittest
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from scene import PATHS, Process, Scene, free_port, wait_until

DASHBOARD = Path(__file__).resolve().parents[2] / "packaging" / "grafana" / "vhost-user-scsi-mpath.json"
# What Grafana puts in place of its variables: with "All" chosen, and a rate over some scrapes.
VARIABLES = {"$backend": ".*", "$__rate_interval": "15s"}
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs: [{{job_name: mpath, static_configs: [{{targets: ["{target}"]}}]}}]
"""


class Prometheus:
    """A Prometheus of our own, which scrapes `target`."""

    def __init__(self, directory, target):
        self._data = tempfile.TemporaryDirectory(prefix="prometheus-")
        config = directory / "prometheus.yml"
        config.write_text(CONFIG.format(target=target), encoding="utf-8")
        self._address = f"127.0.0.1:{free_port()}"
        self._process = Process(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self._data.name}",
                                 f"--web.listen-address={self._address}"], directory / "prometheus.log")
        try:
            wait_until(self._ready, "Prometheus is ready")
        except BaseException:
            self.close()
            raise

    def _ready(self):
        """Whether it answers queries; it listens before it does, and says 503 meanwhile."""
        self._process.check()
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            return False

    def get(self, what, **parameters):
        """What the HTTP API returns; an error of it is one."""
        url = f"http://{self._address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode(errors='replace')}") from error

    def values(self, expression):
        """The samples of a query that are numbers, with their labels."""
        result = self.get("query", query=expression)["result"]
        samples = [(sample["metric"], float(sample["value"][1])) for sample in result]
        return [sample for sample in samples if math.isfinite(sample[1])]

    def close(self):
        self._process.stop()
        self._data.cleanup()


def substituted(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


class Form(unittest.TestCase):
    def test_dashboard_is_whole(self):
        dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
        ids = [panel["id"] for panel in dashboard["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        taken = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, f"{panel['title']} lies on another panel")
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            taken |= cells
        self.assertIn("heatmap", [panel["type"] for panel in dashboard["panels"]])
        for panel in panels(dashboard):
            self.assertEqual(panel["datasource"]["uid"], "${datasource}", panel["title"])
            self.assertTrue(panel["targets"], panel["title"])
        self.assertEqual([variable["name"] for variable in dashboard["templating"]["list"]], ["datasource", "backend"])


@unittest.skipUnless(shutil.which("prometheus") or "TESTS_RUN" in os.environ,
                     "no prometheus; tests/install metrics installs it")
class Queries(unittest.TestCase):
    def test_every_query_has_a_result(self):
        dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
        queries = [(panel["title"], target["expr"]) for panel in panels(dashboard) for target in panel["targets"]]
        queries += [(annotation["name"], annotation["expr"]) for annotation in dashboard["annotations"]["list"]]
        self.assertGreater(len(queries), 20)
        with Scene("dashboard") as scene:
            prometheus = Prometheus(scene.directory, scene.metrics)
            try:
                wait_until(lambda: prometheus.values('mpath_path_state{state="up"} == 1'), "a first scrape")
                scene.backend.cut("ctl-a:1")
                scene.backend.wait_path_state("ctl-a:1", "failed")
                for title, expression in queries:
                    expression = substituted(expression)
                    self.assertNotIn("$", expression, f"{title}: a variable that nobody knows")
                    wait_until(lambda: prometheus.values(expression), f"{title}: {expression}")
                self.check(prometheus, dashboard)
                backends = prometheus.get("label/backend/values", **{"match[]": "mpath_lun_info"})
                self.assertEqual(backends, ["lun"])
            finally:
                prometheus.close()

    def check(self, prometheus, dashboard):
        """The results mean what the panels say."""
        queries = {panel["title"]: substituted(panel["targets"][0]["expr"]) for panel in panels(dashboard)}
        result = lambda title: prometheus.values(queries[title])
        states = lambda: {labels["path"]: int(value) for labels, value in result("State of each path")}
        timeline = next(panel for panel in dashboard["panels"] if panel["type"] == "state-timeline")
        words = {int(code): mapped["text"]
                 for code, mapped in timeline["fieldConfig"]["defaults"]["mappings"][0]["options"].items()}
        expected = {path: "failed" if path == "ctl-a:1" else "up" for path in PATHS}
        wait_until(lambda: {path: words[code] for path, code in states().items()} == expected, "the states in words")
        self.assertEqual([value for _, value in result("Paths that are not up")], [1])
        self.assertEqual([value for _, value in result("LUNs that are not healthy")], [1])
        # Each command takes 2 ms at least: nothing is below, and much is right above.
        buckets = sorted((float(labels["le"]), value) for labels, value in result("Latency of commands"))
        self.assertEqual(max(value for bound, value in buckets if bound < 0.002), 0)
        self.assertGreater(buckets[-1][1], 0)
        self.assertGreaterEqual(result("99th percentile of the latency")[0][1], 0.002)
