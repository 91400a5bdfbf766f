"""What sg_persist says in a guest, over one path to an array and through us over several, line by line."""

import shutil
import sys
import unittest
from contextlib import ExitStack
from pathlib import Path

import transcript
from arrays import OUT, BuiltInArray, LioArray, TgtdArray
from bench import Bench
from differences import between, entries

from process import tail # after arrays, which says where it is
from runner import long

AROUND = 100 # lines of a difference that are shown


class Transcripts(unittest.TestCase):
    def compare(self, array):
        directory = OUT / self.id().rsplit(".", 1)[-1]
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            with ExitStack() as stack:
                self.compare_on(Bench(stack, directory, array), directory)
        except BaseException:
            for log in sorted(Path(directory).rglob("*.log")):
                print(f"--- the end of {log}\n{tail(log, lines=12)}", file=sys.stderr)
            raise

    def compare_on(self, bench, directory):
        scripts = [transcript.start(bench.guest, transcript.SCRIPT, devices) for _, devices in bench.views]
        for (title, _), script in zip(bench.views, scripts):
            script.wait(timeout=180)
            (directory / f"{title.replace(' ', '-')}.txt").write_text("\n".join(script.lines) + "\n")
        reference = scripts[0].lines
        for (title, devices), script in list(zip(bench.views, scripts))[1:]:
            lines = between(bench.array.name, reference, script.lines)
            self.assertEqual(lines, [], f"{title}:\n" + "\n".join(lines[:AROUND]))
            self.refuses(bench.guest, devices)
        print(f"\n    {bench.array.name}: {len(entries(reference))} commands, {len(reference)} lines of each ", end="")

    def refuses(self, guest, devices):
        """What is refused through us, and an array may have."""
        def run(*steps):
            lines = transcript.start(guest, steps, {"us": devices["us"]}).wait().splitlines()
            return [entry for entry in entries(lines) if not entry.attention]

        run(transcript.register("us"))
        before = run(*transcript.look())
        found = run(*(transcript.Step("us", words) for words in transcript.REFUSED))
        for entry, sense in zip(found, transcript.REFUSED.values(), strict=True):
            self.assertIn("Sense key: Illegal Request", "\n".join(entry.lines), entry.step)
            self.assertIn(f"Additional sense: {sense}", entry.lines, entry.step)
        self.assertEqual(run(*transcript.look()), before)
        run(transcript.register("us", "0", transcript.KEYS["us"]))

    def test_transcript_on_tgtd(self):
        self.compare(TgtdArray)

    def test_transcript_on_the_built_in_array(self):
        self.compare(BuiltInArray)

    @long
    def test_transcript_on_lio(self):
        self.compare(LioArray)
