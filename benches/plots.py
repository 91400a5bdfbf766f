"""The sweep as SVG."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT = 560, 300, 70, 16, 44, 46
# Neutral: readable on a white page and on a black one.
TEXT, LINE = "#808080", "#80808060"
COLOURS = {"emulated": "#3b8bd6", "null": "#5aa469", "vhost-device-scsi": "#d9822b"}


def text(x, y, words, size=12, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{TEXT}">{words}</text>'


def line(x1, y1, x2, y2, colour=LINE):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def nice(most):
    """A round number above `most`, and the step to it."""
    step = 10 ** len(str(int(most))) / 10
    while most / step < 3 and step > 0.01:
        step /= 2
    return (int(most / step) + 1) * step, step


def chart(title, axis, labels, series):
    """Lines over the same few places; `series` is name to values, None where there is none."""
    most = max((value for values in series.values() for value in values if value is not None), default=1)
    top, step = nice(most)

    def x(place):
        return LEFT + (place + 0.5) / len(labels) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - FOOT - value / top * (HEIGHT - TOP - FOOT)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
             ' font-family="sans-serif">', text(LEFT, 16, title, 14)]
    value = 0
    while value <= top + step / 2:
        parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value)), text(LEFT - 6, y(value) + 4, f"{value:,.10g}", 11, "end")]
        value += step
    parts += [text(x(place), HEIGHT - FOOT + 18, label, 11, "middle") for place, label in enumerate(labels)]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, axis, 12, "middle"))
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS.get(name, TEXT)
        points = [(x(place), y(value)) for place, value in enumerate(values) if value is not None]
        path = "L".join(f"{at:.1f},{up:.1f}" for at, up in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += [f'<circle cx="{at:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>' for at, up in points]
        parts += [f'<rect x="{LEFT + number * 150}" y="24" width="10" height="10" fill="{colour}"/>',
                  text(LEFT + number * 150 + 14, 33, name, 11)]
    return "\n".join(parts + ["</svg>\n"])


def all_of(results):
    """Name to SVG of each plot for which there are figures."""
    found, points = {}, results.get("sweep", [])

    def pick(key, places, field, **wanted):
        series = {}
        for name in COLOURS:
            values = [next((point[field] for point in points if point["side"] == name and point[key] == place
                            and all(point[other] == value for other, value in wanted.items())), None) for place in places]
            if any(value is not None for value in values):
                series[name] = values
        return series

    plain = {"order": "random", "mix": "read", "queues": 1}
    depths, sizes = (1, 8, 32, 128), (4096, 65536, 131072)
    for name, field, title in (("commands", "commands_per_second", "commands per second"),
                               ("cpu", "cpu_us", "CPU of the backend per command, microseconds"),
                               ("p99", "p99_us", "99 of 100 commands within, microseconds")):
        if series := pick("depth", depths, field, size=4096, **plain):
            found[f"{name}-by-depth"] = chart(f"4k random reads: {title}", "commands under way", depths, series)
        if series := pick("size", sizes, field, depth=32, **plain):
            found[f"{name}-by-size"] = chart(f"random reads, depth 32: {title}", "KiB of a command",
                                             [size // 1024 for size in sizes], series)
    for what, counts in (("paths", (1, 2, 4, 16, 64)), ("queues", (1, 2, 4, 8, 16))):
        figures = [results["figures"].get(f"null, {count} {what}") for count in counts]
        if any(figures):
            values = [figure and figure["commands_per_second"] for figure in figures]
            found[f"scaling-{what}"] = chart(f"null:, depth 32 in each queue: commands per second", what, counts, {"null": values})
    return found
