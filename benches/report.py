"""The results as Markdown."""

WORDS = {True: "met", False: "not met", None: "open"}


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}".rstrip("0").rstrip(".")


def figures(results):
    columns = {"commands/s": "commands_per_second", "p50 us": "p50_us", "p99 us": "p99_us", "p99.9 us": "p999_us",
               "CPU us": "cpu_us", "read and write calls": "reads_and_writes", "sleeps": "sleeps", "kicks": "kicks",
               "notifications": "notifications", "RssAnon KiB": "rss_anon_kib"}
    rows = [(name, *(number(found[key]) if key in found else "" for key in columns.values()))
            for name, found in results["figures"].items() if "commands_per_second" in found or "p50_us" in found]
    return table(["what", *columns], rows)


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
    if results["missing"]:
        parts.append("Missing:\n\n" + "\n".join(f"* {missing}" for missing in results["missing"]) + "\n")
    return "\n".join(parts)
