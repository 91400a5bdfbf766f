"""libiscsi's iscsi-test-cu: how it is run, and what it said of each test."""

import re
import subprocess

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

# What a program on the host and one in the guest call a disk differs; all else is the same.
OPTIONS = ["--dataloss", "--verbose"]


def verdicts(output):
    """Each test's verdict, by its suite and name."""
    found, suite = {}, ""
    for part in re.split(r"^(?=Suite: |  Test: )", output, flags=re.MULTILINE):
        head, _, rest = part.partition("\n")
        if head.startswith("Suite: "):
            suite = head.removeprefix("Suite: ").strip()
        elif head.startswith("  Test: "):
            name, _, first = head.removeprefix("  Test: ").partition(" ...")
            text = first + "\n" + rest
            if "only supported for iSCSI backends" in text:
                continue # it opens sessions itself, which a guest's disk has none of
            if re.search(r"FAILED", text):
                verdict = FAILED
            elif "[SKIPPED]" in text:
                verdict = SKIPPED
            else:
                verdict = PASSED if "passed" in text else FAILED
            found[f"{suite}.{name.strip()}"] = verdict
    return found


def count(found):
    """For a log: how many of each."""
    return ", ".join(f"{list(found.values()).count(verdict)} {verdict}" for verdict in (PASSED, FAILED, SKIPPED))


def direct(url, tests, timeout):
    """The verdicts of the array itself, on one path."""
    command = ["iscsi-test-cu", *OPTIONS, f"--test={tests}", url]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                         timeout=timeout, check=False)
    return verdicts(run.stdout)


def in_guest(guest, disk, tests, timeout):
    """The verdicts that a guest gets on a disk of its own."""
    script = f"iscsi-test-cu {' '.join(OPTIONS)} --test={tests} {disk}"
    return verdicts(guest.run(script, timeout=timeout, check=False))


def lost(direct_verdicts, ours):
    """Tests that the array passes and that do not pass through us. What speaks iSCSI itself is not among ours."""
    return sorted(f"{name}: {ours[name]}" for name, verdict in direct_verdicts.items()
                  if verdict == PASSED and ours.get(name, PASSED) != PASSED)
