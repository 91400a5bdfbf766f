"""A script of sg_persist commands of two initiators, and how a guest says what it sees of it."""

from dataclasses import dataclass

# The guest's key, another initiator's, and one that nobody has.
KEYS = {"us": "a1", "them": "b2"}
NOBODYS = "c3"

WE, EA, WE_RO, EA_RO, WE_AR, EA_AR = TYPES = (1, 3, 5, 6, 7, 8) # SPC-5 table 64


@dataclass(frozen=True)
class Step:
    """One command of one of the initiators; `tool` is sg_persist, or what reads or writes a block."""

    who: str
    words: str
    tool: str = "persist"

    def __str__(self):
        return f"{self.who}: {self.words or self.tool}"


def asked(*actions, who="us"):
    return [Step(who, f"--in --{action}") for action in actions]


def out(who, action, rk=None, **parameters):
    """A PERSISTENT RESERVE OUT; without `rk` the initiator's own key is its RESERVATION KEY."""
    parameters = {"param_rk": rk or KEYS[who], **parameters}
    words = (f"--{name.replace('_', '-')}={value}" for name, value in parameters.items())
    return Step(who, f"--out --{action} {' '.join(words)}")


def register(who, key=None, old="0", action="register"):
    return out(who, action, old, param_sark=key or KEYS[who])


def look():
    return asked("read-keys", "read-reservation", "read-full-status")


def held():
    return asked("read-reservation", "read-full-status")


def use(*initiators):
    """Whether each initiator may read and write."""
    return [Step(who, "", tool) for who in initiators for tool in ("read", "write")]


def unregistered():
    return [
        *look(), *asked("report-capabilities"),
        out("us", "reserve", prout_type=WE), out("us", "release", prout_type=WE), out("us", "clear"),
        out("us", "preempt", param_sark=KEYS["them"], prout_type=WE),
        register("us", old=NOBODYS), register("us", "0"), *look()]


def registering():
    own = KEYS["us"]
    return [
        register("us"), *look(), register("us"), register("us", old=NOBODYS), *look(),
        register("us", NOBODYS, own), *look(), register("us", own, NOBODYS),
        register("us", NOBODYS, action="register-ignore"), *look(), register("us", action="register-ignore"),
        register("them"), *look(),
        # Another initiator with the same key is still another one.
        register("them", own, KEYS["them"]), *look(), register("them", old=own), register("us", "0", action="register-ignore"), *look(), *use("us"),
        register("us", action="register-ignore"), register("us", "0", own), register("us"), *look(),
        Step("us", f"--out --register --param-rk={own} --param-sark={own} --param-aptpl"), *look(),
        *asked("report-capabilities"), register("us", own, own), *asked("report-capabilities"),
        # Fewer bytes than there are to say. What sg_persist makes of a READ FULL STATUS that was cut is chance.
        *(Step("us", f"--in {action} --alloc-length={length}") for length in (8, 10)
          for action in ("--read-keys", "--read-reservation", "--report-capabilities"))]


def reserving(kind):
    """As the holder, beside another holder, and as nobody."""
    other = WE if kind != WE else EA
    return [
        out("us", "reserve", NOBODYS, prout_type=kind), out("us", "reserve", prout_type=kind), *look(),
        out("us", "reserve", prout_type=kind), out("us", "reserve", prout_type=other),
        out("them", "reserve", prout_type=kind), *use("us", "them"),
        register("them", "0", KEYS["them"]), *use("us", "them"), register("them"),
        out("us", "release", NOBODYS, prout_type=kind), out("us", "release", prout_type=other),
        out("us", "release", prout_type=kind), *held(), *use("us", "them"), out("us", "release", prout_type=kind),
        out("them", "reserve", prout_type=kind), *held(), out("us", "reserve", prout_type=kind), *use("us", "them"),
        out("us", "release", prout_type=kind), *asked("read-reservation"), register("us", "0", KEYS["us"]), *use("us"),
        register("us"), out("them", "release", prout_type=kind), *held()]


def unregistering_holder(kind):
    return [
        out("us", "reserve", prout_type=kind), register("us", "0", KEYS["us"]), *look(), *use("us", "them"),
        register("us"), register("them", "0", KEYS["them"]), *held(), *use("us", "them"), register("them")]


def preempting(kind, action):
    def of(victim):
        return {"param_sark": KEYS.get(victim, victim), "prout_type": kind}

    return [
        # Of another one: the holder, a registrant, nobody.
        out("us", "reserve", prout_type=kind), out("them", action, NOBODYS, **of("us")), out("them", action, **of("us")),
        *look(), *use("us", "them"), out("us", "reserve", prout_type=kind), out("us", action, **of("them")),
        register("us"), out("us", action, **of("them")), *look(), *use("us", "them"), register("them"),
        out("us", action, **of("them")), *held(), *use("us", "them"), register("them"),
        out("us", action, **of(NOBODYS)), out("us", action, **of("0")), *look(),
        # Of oneself: the holder, with another type; and one that holds nothing.
        out("us", action, param_sark=KEYS["us"], prout_type=WE_RO), *look(),
        out("us", "release", prout_type=WE_RO), out("us", "release", prout_type=kind),
        register("us", action="register-ignore"), register("them", action="register-ignore"), *look(),
        out("us", action, **of("us")), *look(), register("us", action="register-ignore"),
        out("us", "clear"), register("us"), register("them"), *use("us", "them")]


def clearing():
    return [
        out("us", "reserve", prout_type=WE), out("us", "clear", NOBODYS), out("them", "clear"), *look(),
        *use("us", "them"), out("us", "clear"), register("us"), register("them"), out("them", "reserve", prout_type=EA),
        out("us", "clear"), *look(), *use("us", "them")]


def refused_by_all():
    return [
        register("us"), out("us", "reserve", prout_type=2), out("us", "reserve", prout_type=15),
        out("us", "preempt", param_sark=KEYS["us"], prout_type=4), out("us", "release", prout_type=WE), *look(),
        register("us", "0", KEYS["us"])]


# Between the first part and the last, both are registered and nothing is reserved where a part begins.
SCRIPT = [
    *unregistered(), *registering(),
    *(step for kind in TYPES for step in reserving(kind)),
    *(step for kind in (WE, WE_RO, EA_AR) for step in unregistering_holder(kind)),
    *preempting(EA, "preempt"), *preempting(WE_AR, "preempt"), *preempting(WE_RO, "preempt-abort"),
    *clearing(), *refused_by_all()]

# What the guest is refused and an array may have: it is about ports that the guest does not have.
ELSEWHERE = "--transport-id=iqn.2003-01.org.example:elsewhere"
REFUSED = {
    f"--out --register-move --param-rk=a1 --param-sark=b2 --relative-target-port=1 {ELSEWHERE}": "Invalid field in cdb",
    "--out --replace-lost --param-rk=0 --param-sark=a1": "Invalid field in cdb",
    f"--out --register --param-rk=a1 --param-sark=b2 {ELSEWHERE}": "Invalid field in parameter list",
    "--out --register --param-rk=a1 --param-sark=b2 --param-alltgpt": "Invalid field in parameter list",
}

# tell LABEL COMMAND...: runs it, and says all that it says and its exit code; again after a unit attention.
SHELL = """
tell() {
  label=$1
  shift
  for try in 1 2 3 4 5 6 7 8; do
    echo "# $label"
    "$@" 2>&1
    code=$?
    echo "= $code"
    [ $code = 6 ] || break
  done
}
"""
BLOCK = "00 00 00 00 00 00 00 01 00"
TOOLS = {
    "persist": "sg_persist --no-inquiry --verbose {words} {device}",
    "read": f"sg_raw --request=512 --outfile=/dev/null {{device}} 28 {BLOCK}",
    "write": f"sg_raw --send=512 --infile=/dev/zero {{device}} 2a {BLOCK}",
}


def start(guest, steps, devices):
    """The steps in `guest`, in which the initiators are these devices, as a script that runs. Those of initiators
    that there are not are left out."""
    lines = [SHELL]
    for step in steps:
        if step.who in devices:
            command = TOOLS[step.tool].format(words=step.words, device=devices[step.who])
            lines.append(f"tell '{step}' {command}")
    return guest.start("\n".join(lines))
