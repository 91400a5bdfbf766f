"""What may differ between what a guest sees over one path and what it sees through us. Nothing else may."""

import difflib
import re
from dataclasses import dataclass

RELEASED = "Reservations released"

# On which array ("" is each), what, as what it is compared, and why.
ROWS = [
    ("", r",i,0x[0-9a-f]{12}", ",i,ISID", "each session is an initiator port of its own name"),
    ("", r"(\((?:CRH|SIP_C|ATP_C)\)): 1", r"\1: 0",
     "the guest has one port; RESERVE and RELEASE, of which CRH speaks, are refused"),
]

# Beside the rows:
#
# - A command that meets a unit attention over a path is done all the same, and the guest is told with its next command:
#   so there it may come one command later. What it says, to whom and how often must be the same.
# - tgtd tells of a release once for each registration but one, and to each nexus but that registration's, so that their
#   number depends on how many paths there are: SPC-5 5.14.11 has one, for those that remain registered.
# - LIO does not count an unregistering in PRGENERATION, as SPC-5 6.16.2 has it. Through us it counts.
DROPPED = {"tgtd": (RELEASED,)}
UNCOUNTED = ("LIO",)


@dataclass
class Entry:
    """One command and what came of it."""

    step: str
    lines: list

    @property
    def who(self):
        return self.step.split(":")[0]

    @property
    def is_good(self):
        return self.lines[-1] == "= 0"

    @property
    def attention(self):
        """The unit attention that it has met."""
        if "Sense key: Unit Attention" not in "\n".join(self.lines):
            return None
        return next(line for line in self.lines if line.startswith("Additional sense: ")).partition(": ")[2]


def entries(lines):
    found = []
    for line in lines:
        if line.startswith("# "):
            found.append(Entry(line[2:], []))
        else:
            found[-1].lines.append(line)
    return found


def unregisters(entry):
    """True for the guest's own unregistering, where it was registered."""
    words = entry.step.split()
    there = "--register-ignore" in words or "--register" in words and "--param-rk=0" not in words
    return words[0] == "us:" and "--param-sark=0" in words and there and entry.is_good


class View:
    """What one guest saw, as it is compared."""

    def __init__(self, array, lines, counts_all):
        """`counts_all`: PRGENERATION counts each command, on this array too."""
        self.lines, self.attentions = [], []
        uncounted, asked = 0, {}
        for entry in entries(lines):
            if entry.attention:
                if entry.attention not in DROPPED.get(array, ()):
                    self.attentions.append((entry.who, entry.attention, asked.get(entry.who, 0)))
                continue
            asked[entry.who] = asked.get(entry.who, 0) + 1
            uncounted += array in UNCOUNTED and not counts_all and unregisters(entry)
            text = "\n".join([f"# {entry.step}", *entry.lines])
            for where, what, instead, _ in ROWS:
                if where in ("", array):
                    text = re.sub(what, instead, text)
            text = re.sub(r"PR generation=0x([0-9a-f]+)", lambda found: f"PR generation={int(found[1], 16) + uncounted}", text)
            self.lines += text.splitlines()


def between(array, direct, ours):
    """The lines of `ours` that are not as in `direct`, each with what is around it."""
    expected, found = View(array, direct, False), View(array, ours, True)
    lines = list(difflib.unified_diff(expected.lines, found.lines, "on one path", "through us", n=12, lineterm=""))
    for who, late in (("us", 1), ("them", 0)):
        told, ours = ([rest for one, *rest in view.attentions if one == who] for view in (expected, found))
        same = [text for text, _ in told] == [text for text, _ in ours]
        if not same or any(not 0 <= after - before <= late for (_, before), (_, after) in zip(told, ours)):
            lines += [f"unit attentions of {who}, and after how many commands: {told} on one path, {ours} through us"]
    return lines
