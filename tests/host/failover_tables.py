"""The measurements of failover.py as tables in Markdown."""


def seconds(value):
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def longest(report, kind):
    """Of the commands that ended after the fault."""
    return max((phase[kind]["longest"] or 0 for phase in report["phases"][1:]), default=None)


def stall(report):
    text = f"{seconds(longest(report, 'reads'))} / {seconds(longest(report, 'writes'))}"
    return text + (f", {report['errors']}{'+' if report['errors'] >= 1000 else ''} errors" if report["errors"] else "")


def percentile(report, phase):
    return seconds(report["phases"][phase]["reads"]["p99"]) if len(report["phases"]) > phase else "-"


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


def tables(results, faults):
    """`results` as failover.json has them; `faults` give the rows and their words."""
    titles = [result["title"] for result in results.values()]
    legend = "".join(f"- {letter}: {title}.\n" for letter, title in zip("ABCDEF", titles))
    letters = [letter for letter, _ in zip("ABCDEF", titles)]
    rows = []
    for fault, (words, *_) in faults.items():
        reports = [result["faults"].get(fault) for result in results.values()]
        if any(reports):
            rows.append([words, *(stall(report) if report else "not measured" for report in reports)])
    text = f"{legend}\nThe longest time that one command took, reads / writes:\n\n{table(['fault', *letters], rows)}"
    reports = [result["faults"].get("slow") for result in results.values()]
    if any(reports):
        phases = (("before it is slow", 0), ("in the first 2 s", 1), ("from 2 s on", 2))
        slow = [[name, *(percentile(report, phase) if report else "not measured" for report in reports)]
                for name, phase in phases]
        text += f"\np99 of reads while one path is slow:\n\n{table(['', *letters], slow)}"
    return text
