"""One failover, on our backend and on dm-multipath, as a plot: the age of the oldest command under way.

    python3 -B tests/host/failover_plot.py RESULTS.json [FAULT] >PLOT.svg
"""

import json
import sys
from pathlib import Path

WIDTH, LEFT, RIGHT, TOP, ROW, GAP, FOOT = 860, 64, 16, 40, 110, 34, 46
BEFORE, AFTER = 2, 30 # seconds around the fault
# Neutral: readable on a white page and on a black one.
TEXT, LINE, READS, WRITES, FAULT_COLOUR = "#808080", "#80808060", "#3b8bd6", "#d9822b", "#d04545"
WORDS = {"silent": "one of two paths goes silent", "reset": "one of two paths is reset and refuses",
         "held": "the answers of one of two paths are held back"}


def text(x, y, words, size=12, anchor="start", colour=TEXT):
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def line(x1, y1, x2, y2, colour=LINE, extra=""):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {extra}/>'


def steps(report):
    """(seconds since the fault, age of the oldest read and of the oldest write) for each step in the window."""
    width, fault = report["step"], report["phases"][1]["from"]
    for number in range(round((fault - BEFORE) / width), round((fault + AFTER) / width)):
        oldest = report["oldest"]
        yield number * width - fault, oldest[number] if 0 <= number < len(oldest) else [0, 0]


def curve(points, colour):
    path = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.4" stroke-linejoin="round"/>'


def row(report, title, top, x, most):
    def y(value):
        return top + ROW - value / most * ROW

    parts = [text(LEFT, top - 6, title), line(LEFT, top + ROW, WIDTH - RIGHT, top + ROW, TEXT)]
    for seconds in range(0, int(most) + 1, 5):
        parts += [line(LEFT, y(seconds), WIDTH - RIGHT, y(seconds)),
                  text(LEFT - 6, y(seconds) + 4, f"{seconds} s", 11, "end")]
    for kind, colour in ((1, WRITES), (0, READS)):
        parts.append(curve([(x(at), y(ages[kind])) for at, ages in steps(report)], colour))
    parts.append(line(x(0), top, x(0), top + ROW, FAULT_COLOUR, 'stroke-width="1.5" stroke-dasharray="4 3"'))
    return parts


def draw(results, fault="silent"):
    """The plot as SVG; all systems have the same scale."""
    rows = [(result["title"].split(":")[0], result["faults"][fault])
            for result in results.values() if "oldest" in result["faults"].get(fault, {})]
    height = TOP + len(rows) * (ROW + GAP) + FOOT
    most = max((max(ages) for _, report in rows for _, ages in steps(report)), default=1) or 1

    def x(at):
        return LEFT + (at + BEFORE) / (BEFORE + AFTER) * (WIDTH - LEFT - RIGHT)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
             ' font-family="sans-serif">',
             text(LEFT, 16, f"For how long the guest has waited, while {WORDS.get(fault, fault)} (dashed)", 14)]
    for place, (label, colour) in enumerate((("oldest read", READS), ("oldest write", WRITES))):
        at = WIDTH - RIGHT - 210 + place * 104
        parts += [f'<rect x="{at}" y="7" width="10" height="10" fill="{colour}"/>', text(at + 14, 16, label)]
    for number, (title, report) in enumerate(rows):
        parts += row(report, title, TOP + GAP / 2 + number * (ROW + GAP), x, most)
    bottom = TOP + GAP / 2 + (len(rows) - 1) * (ROW + GAP) + ROW
    for at in range(0, AFTER + 1, 5):
        parts.append(text(x(at), bottom + 18, str(at), 11, "middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 38, "seconds since the fault", 12, "middle"))
    return "\n".join(parts + ["</svg>\n"])


if __name__ == "__main__":
    sys.stdout.write(draw(json.loads(Path(sys.argv[1]).read_text()), *sys.argv[2:3]))
