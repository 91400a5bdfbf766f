"""The sweep and the scaling as SVG."""

import math

# Neutral: readable on a white page and on a black one.
TEXT, LINE = "#808080", "#80808060"
COLOURS = {"emulated": "#3b8bd6", "null": "#5aa469", "vhost-device-scsi": "#d9822b", "read": "#3b8bd6", "mixed": "#8e6bbf",
           "write": "#c2544f", "1 queue": "#9cc4ea", "2 queues": "#3b8bd6", "4 queues": "#1f5a94"}
NAMES = {"emulated": "this backend", "null": "null:"}
HEIGHT, LEFT, RIGHT, TOP, FOOT = 300, 52, 12, 64, 46
PANEL = 400
DEPTHS, SIZES = (1, 8, 32, 128), (4096, 65536, 131072)
PLAIN = {"order": "random", "mix": "read", "queues": 1}
PERCENTILES = {"p50_us": "half", "p99_us": "99 of 100", "p999_us": "999 of 1000"}


def text(x, y, words, size=12, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{TEXT}">{words}</text>'


def line(x1, y1, x2, y2, colour=LINE, width=1):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def page(title, width, names, parts):
    """A whole plot: its title, and below it which colour is whose."""
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"'
            ' font-family="sans-serif">', text(16, 18, title, 14)]
    at = 16
    for name in names:
        words = NAMES.get(name, name)
        head += [f'<rect x="{at}" y="28" width="10" height="10" fill="{COLOURS.get(name, TEXT)}"/>', text(at + 14, 37, words, 11)]
        at += 34 + 6.5 * len(words)
    return "\n".join(head + parts + ["</svg>\n"])


def short(value, digits):
    """Not more digits than there is room for."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{float(f'{value / unit:.{digits}g}'):g}{name}"
    return f"{float(f'{value:.{digits}g}'):g}"


def place(left, number, count):
    return left + LEFT + (number + 0.5) / count * (PANEL - LEFT - RIGHT)


def labels_below(left, axis, labels):
    found = [text(place(left, number, len(labels)), HEIGHT - FOOT + 18, label, 11, "middle")
             for number, label in enumerate(labels)]
    return found + [text(left + (LEFT + PANEL - RIGHT) / 2, HEIGHT - 8, axis, 12, "middle")]


def bars(left, title, axis, labels, series):
    """Bars beside each other, each with its value: the panel that begins at `left`."""
    floor, most = HEIGHT - FOOT, max(value for values in series.values() for value in values if value is not None)
    parts = [text(left + LEFT, 56, title, 12), line(left + LEFT, floor, left + PANEL - RIGHT, floor)]
    each = (PANEL - LEFT - RIGHT) / len(labels) * 0.84 / len(series)
    for number, (name, values) in enumerate(series.items()):
        for at, value in enumerate(values):
            if value is not None:
                x = place(left, at, len(labels)) + (number - len(series) / 2) * each
                high = value / most * (floor - TOP - 14)
                parts += [f'<rect x="{x + 1:.1f}" y="{floor - high:.1f}" width="{each - 2:.1f}" height="{high:.1f}"'
                          f' fill="{COLOURS.get(name, TEXT)}"/>',
                          text(x + each / 2, floor - high - 4, short(value, 3 if each > 26 else 2), 10, "middle")]
    return parts + labels_below(left, axis, labels)


def latencies(left, title, axis, labels, series):
    """From the middle to the slowest of a thousand: a line with three marks for each place and side, on a scale of powers."""
    values = [value for places in series.values() for marks in places if marks for value in marks if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def y(value):
        return HEIGHT - FOOT - (math.log10(max(value, 10 ** low)) - low) / (high - low) * (HEIGHT - TOP - FOOT)

    parts = [text(left + LEFT, 56, title, 12)]
    for power in range(low, high + 1):
        parts += [line(left + LEFT, y(10 ** power), left + PANEL - RIGHT, y(10 ** power)),
                  text(left + LEFT - 6, y(10 ** power) + 4, f"{10 ** power:,}", 11, "end")]
    for number, (name, places) in enumerate(series.items()):
        colour = COLOURS.get(name, TEXT)
        for at, marks in enumerate(places):
            if marks:
                x = place(left, at, len(labels)) + (number - (len(series) - 1) / 2) * 30
                middle, most, last = map(y, marks)
                parts += [line(x, middle, x, last, colour, 2), line(x - 7, last, x + 7, last, colour, 2),
                          f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="5" fill="{colour}"/>',
                          f'<rect x="{x - 4:.1f}" y="{most - 4:.1f}" width="8" height="8" fill="{colour}"/>']
    return parts + labels_below(left, axis, labels)


def marks_explained(left):
    """What the three marks of `latencies` are."""
    x, parts = left + 12, []
    for up, words in ((90, "999 of 1000 within"), (120, "99 of 100 within"), (150, "half within")):
        parts.append(text(x + 18, up + 4, words, 11))
    return parts + [line(x, 90, x, 150, TEXT, 2), line(x - 7, 90, x + 7, 90, TEXT, 2),
                    f'<rect x="{x - 4}" y="116" width="8" height="8" fill="{TEXT}"/>',
                    f'<circle cx="{x}" cy="150" r="5" fill="{TEXT}"/>']


def pick(points, key, places, value_of, sides, **wanted):
    """For each side its values at these places of `key`, `None` where it has none; a side without any is left out."""
    series = {}
    for name, which in sides.items():
        wants = {**wanted, **which}
        found = [next((value_of(point) for point in points if point[key] == at
                       and all(point[other] == value for other, value in wants.items())), None) for at in places]
        if any(value is not None for value in found):
            series[name] = found
    return series


def of_sweep(points):
    """Name to SVG of the plots of the sweep."""
    sides = {name: {"side": name} for name in ("emulated", "vhost-device-scsi")}
    found, kib = {}, [size // 1024 for size in SIZES]

    def field(name):
        return lambda point: point[name]

    def panels(name, title, *panels_of_it):
        """Panels side by side, each a function, its title, axis, labels and series."""
        if all(series for *_, series in panels_of_it):
            parts = [part for at, (draw, *rest) in enumerate(panels_of_it) for part in draw(at * PANEL, *rest)]
            names = dict.fromkeys(side for *_, series in panels_of_it for side in series)
            found[name] = page(title, len(panels_of_it) * PANEL, names, parts)

    depth = {"size": 4096, **PLAIN}
    panels("sweep-depths", "Random reads of 4 KiB, one queue, by the number of commands under way",
           (bars, "commands per second: more is better", "commands under way", DEPTHS,
            pick(points, "depth", DEPTHS, field("commands_per_second"), sides, **depth)),
           (bars, "CPU per command, microseconds: less is better", "commands under way", DEPTHS,
            pick(points, "depth", DEPTHS, field("cpu_us"), sides, **depth)))
    size = {"depth": 32, **PLAIN}
    panels("sweep-sizes", "Random reads, one queue, 32 commands under way, by size",
           (bars, "gigabytes per second: more is better", "KiB of a command", kib,
            pick(points, "size", SIZES, lambda point: point["commands_per_second"] * point["size"] / 1e9, sides, **size)),
           (bars, "CPU per command, microseconds: less is better", "KiB of a command", kib,
            pick(points, "size", SIZES, field("cpu_us"), sides, **size)))
    if series := pick(points, "depth", DEPTHS, lambda point: [point[share] for share in PERCENTILES], sides, **depth):
        found["sweep-latency"] = page("How long commands take: random reads of 4 KiB, one queue", PANEL + 160, series, latencies(
            0, "microseconds: less is better", "commands under way", DEPTHS, series) + marks_explained(PANEL))
    if any(point["mix"] != "read" for point in points):
        ours = {"side": "emulated", "size": 4096, "order": "random"}
        panels("sweep-mixes", "This backend, random commands of 4 KiB: commands per second",
               (bars, "one queue: reads, 7 reads to 3 writes, writes", "commands under way", DEPTHS,
                pick(points, "depth", DEPTHS, field("commands_per_second"),
                     {mix: {"mix": mix} for mix in ("read", "mixed", "write")}, queues=1, **ours)),
               (bars, "reads, more queues", "commands under way in each queue", DEPTHS,
                pick(points, "depth", DEPTHS, field("commands_per_second"),
                     {f"{queues} queue{'s' * (queues > 1)}": {"queues": queues} for queues in (1, 2, 4)}, mix="read", **ours)))
    return found


def all_of(results):
    """Name to SVG of each plot for which there are figures."""
    found = of_sweep(results.get("sweep", []))
    for what, counts in (("paths", (1, 2, 4, 16, 64)), ("queues", (1, 2, 4, 8, 16))):
        figures = [results["figures"].get(f"null, {count} {what}") for count in counts]
        if any(figures):
            values = [figure and figure["commands_per_second"] for figure in figures]
            found[f"scaling-{what}"] = page("null:, depth 32 in each queue", PANEL, [], bars(
                0, "commands per second", what, counts, {"null": values}))
    return found
