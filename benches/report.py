"""The results as Markdown."""

SWEPT = ("commands_per_second", "cpu_us", "p99_us")
WORDS = {True: "met", False: "not met", None: "open"}


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}".rstrip("0").rstrip(".")


def figures(results):
    columns = {"commands/s": "commands_per_second", "p50 us": "p50_us", "p99 us": "p99_us", "p99.9 us": "p999_us",
               "CPU us": "cpu_us", "the machine's CPU us": "machine_us",
               "read and write calls": "reads_and_writes", "sleeps": "sleeps", "kicks": "kicks",
               "notifications": "notifications", "RssAnon KiB": "rss_anon_kib"}
    rows = [(name, *(number(found[key]) if key in found else "" for key in columns.values()))
            for name, found in results["figures"].items() if "commands_per_second" in found or "p50_us" in found]
    return table(["what", *columns], rows)


def sweep(points):
    """Our reads beside the peer's, and our own commands, by the number under way."""
    depths = sorted({point["depth"] for point in points})
    by = {tuple(point[key] for key in ("side", "size", "order", "mix", "queues", "depth")): point for point in points}

    def rows(names, cell):
        """A row for each combination of which there is a cell."""
        for which in dict.fromkeys(key[1:5] for key in by):
            cells = [cell(*(by.get((name, *which, depth)) for name in names)) for depth in depths]
            if any(cells):
                size, order, mix, queues = which
                yield (f"{size // 1024} KiB, {order}, {mix}" + (f", {queues} queues" if queues > 1 else ""), *cells)

    def beside(ours, peer):
        if not ours or not peer:
            return ""
        return ", ".join(f"{ours[key] / peer[key]:.2f}" for key in SWEPT if peer[key])

    def alone(ours):
        return ours and ", ".join(number(ours[key]) for key in SWEPT)

    parts = []
    for words, names, cell in (
            ("This backend for each of vhost-device-scsi's, on one image in memory, one queue, by the number of commands under"
             " way: commands/s, CPU per command, p99:", ("emulated", "vhost-device-scsi"), beside),
            ("This backend on an image in memory, by the number of commands under way in each queue: commands/s; CPU per"
             " command and p99, in microseconds:", ("emulated",), alone)):
        if found := list(rows(names, cell)):
            parts.append(f"{words}\n\n" + table(["", *map(str, depths)], found) + "\n")
    return "\n".join(parts)


def page(results):
    machine = results["machine"]
    versions = "; ".join(f"{name} {version}" for name, version in results["versions"].items())
    busy = f"{machine['busy_before']:.0%} before and {machine.get('busy_after', 0):.0%} after"
    parts = [f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, kept busy by others: {busy}."
             f" Guests by {machine.get('guests', 'nobody')}. {results.get('minutes', '')} minutes.\n\n{versions}.\n"]
    if results["bars"]:
        rows = [(bar["what"], bar["bar"], bar["measured"], WORDS[bar["met"]] + (f": {bar['note']}" if bar["note"] else ""))
                for bar in results["bars"]]
        parts.append(table(["what", "bar", "measured", ""], rows) + "\n")
    if results["figures"]:
        parts.append("Each command's share, medians:\n\n" + figures(results) + "\n")
    if counted := results["figures"].get("instructions"):
        parts.append("Instructions per command: " + ", ".join(f"{name} {value:.0f}" for name, value in counted.items()) + ".\n")
    if results.get("sweep"):
        parts.append(sweep(results["sweep"]))
    if results["missing"]:
        parts.append("Missing:\n\n" + "\n".join(f"* {missing}" for missing in results["missing"]) + "\n")
    return "\n".join(parts)
