"""`mpathctl report`, as a browser shows it."""

import os
import re
import unittest
from html.parser import HTMLParser

import browser
from scene import Scene, wait_until

VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Texts by the class of an element around them, and counts of elements."""

    def __init__(self, html):
        super().__init__()
        self.count, self.text, self._open = {}, {}, []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self._open.append((dict(attributes).get("class") or tag).split())

    def handle_endtag(self, tag):
        if tag not in VOID:
            self._open.pop()

    def handle_data(self, data):
        for name in {name for names in self._open for name in names}:
            self.text[name] = self.text.get(name, "") + data + " "


@unittest.skipUnless(browser.PROGRAM.exists() or "TESTS_RUN" in os.environ,
                     "no chromium; tests/install browser installs it")
class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Scene("report") as scene:
            scene.backend.cut("ctl-a:1")
            scene.backend.wait_path_state("ctl-a:1", "failed")
            before = scene.answered()
            history = lambda: scene.backend.control.execute("query-history")
            wait_until(lambda: scene.answered() > before and len(history()["times"]) > 5, "some history")
            cls.history = history()
            cls.file = scene.directory / "report.html"
            cls.said = scene.backend.mpathctl("report", "-o", str(cls.file))
        cls.page = Page(browser.dom(cls.file))

    def test_browser_reads_all_of_it(self):
        self.assertEqual(self.said, f"{self.file}\n")
        text, count = self.page.text, self.page.count
        self.assertIn("degraded", text["badge"])
        self.assertRegex(text["verdict"], r"ctl-a:1\s+has been failed for \d+s \(")
        for path in ("ctl-a:1", "ctl-a:2", "ctl-b:1", "ctl-b:2"):
            for place in ("topology", "paths", "timeline", "counters"):
                self.assertIn(path, text[place])
        self.assertIn("is out of use, since it does not work", text["why"])
        self.assertRegex(text["events"], r"PATH_STATE_CHANGED\s+ctl-a:1: up -> failed")
        self.assertRegex(text["events"], r"LUN_STATE_CHANGED\s+healthy -> degraded")
        self.assertIn("FAILOVER", text["events"])
        self.assertRegex(text["settings"], r"path_timeout\s+5 s")
        self.assertGreaterEqual(count["figure"], 3, "histograms of the LUN and of the paths that were used")
        self.assertNotIn("script", count)

    def test_history_tells_what_happened(self):
        times, lun = self.history["times"], self.history["lun"]
        paths = {path["name"]: path for path in self.history["paths"]}
        self.assertEqual(times, sorted(times))
        self.assertEqual(lun["state"][-1], "degraded")
        self.assertEqual(paths["ctl-a:1"]["state"][-1], "failed")
        self.assertGreater(max(filter(None, paths["ctl-a:2"]["commands"])), 0)
        self.assertGreaterEqual(max(filter(None, paths["ctl-a:2"]["longest-us"])), 2000, "each takes 2 ms at least")
        for path in paths.values():
            for column in ("state", "commands", "bytes", "errors", "mean-us", "longest-us", "silent-us"):
                self.assertEqual(len(path[column]), len(times), column)

    def test_light_dark_and_paper_differ(self):
        pictures = {}
        for name, option in (("light", browser.LIGHT), ("dark", browser.DARK)):
            picture = self.file.with_name(f"{name}.png")
            browser.screenshot(self.file, picture, option, height=800)
            pictures[name] = browser.corner(picture)
        self.assertGreater(min(pictures["light"]), 200)
        self.assertLess(max(pictures["dark"]), 60)
        paper = self.file.with_name("report.pdf")
        browser.pdf(self.file, paper)
        self.assertTrue(paper.read_bytes().startswith(b"%PDF-"))
        pages = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
        self.assertGreaterEqual(pages, 2)
