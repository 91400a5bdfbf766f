"""What the documentation's pictures are made with."""

import unittest
import xml.etree.ElementTree

import terminal_svg


class TerminalSvg(unittest.TestCase):
    def test_characters_keep_place_and_colour(self):
        screen = "\x1b[1mPATH  STATE\x1b[0m\na <b> \x1b[38;5;1mfailed\x1b[39m █▄\n\x1b[7mquit\x1b[0m\n"
        svg = xml.etree.ElementTree.fromstring(terminal_svg.draw(screen, 20, "top"))
        name = lambda kind: f"{{http://www.w3.org/2000/svg}}{kind}"
        words = {word.text: word.attrib for word in svg.iter(name("text"))}
        self.assertEqual(list(words), ["top", "PATH", "STATE", "a <b>", "failed", "quit"])
        self.assertEqual(words["STATE"]["font-weight"], "bold")
        column = lambda word: (float(words[word]["x"]) - terminal_svg.PAD) / terminal_svg.CELL
        self.assertAlmostEqual(column("STATE"), 6, places=1)
        self.assertAlmostEqual(column("failed"), 6, places=1)
        self.assertEqual(words["failed"]["fill"], terminal_svg.COLOURS[31])
        self.assertEqual(words["quit"]["fill"], terminal_svg.BACK)
        bars = [float(bar.attrib["height"]) for bar in svg.iter(name("rect"))
                if bar.attrib["width"] == f"{terminal_svg.CELL - 0.6:.1f}"]
        self.assertEqual(bars, [terminal_svg.LINE, terminal_svg.LINE / 2])

    def test_codes_without_a_picture_are_refused(self):
        with self.assertRaises(ValueError):
            terminal_svg.draw("\x1b[48m!", 20, "")
