"""A clean Debian in a directory, and systemd running in it."""

import os
import pathlib
import shutil
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
TARGET = PROJECT / os.environ.get("CARGO_TARGET_DIR", "target")
FOLDER = TARGET / "package-test"
# cargo's; "dev" is quicker to build.
PROFILE = os.environ.get("PACKAGE_PROFILE", "release")
RELEASE = "bookworm"
# What a host has anyway; everything else is for the package to ask for.
INCLUDED = "systemd,systemd-sysv,dbus,udev,ca-certificates"
CGROUPS = [pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/sys/fs/cgroup/unified")]


def run(*command, check=True, **options):
    """Runs a command; its output in one string."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def mirror():
    """Where this machine takes its Debian from."""
    found = run("apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {RELEASE}").split()
    return found[0] if found else "http://deb.debian.org/debian"


class Root:
    """A root directory of Debian's smallest kind, made once and copied for each use."""

    def __init__(self, name):
        base = FOLDER / f"base-{RELEASE}"
        if not base.exists():
            FOLDER.mkdir(parents=True, exist_ok=True)
            half = FOLDER / "base.half"
            shutil.rmtree(half, ignore_errors=True)
            run("debootstrap", "--variant=minbase", f"--include={INCLUDED}", RELEASE, half, mirror())
            half.rename(base)
        self.path = FOLDER / name
        shutil.rmtree(self.path, ignore_errors=True)
        run("cp", "-a", "--reflink=auto", base, self.path)
        # As this machine reaches its mirror.
        for part in ["apt/apt.conf.d", "apt/sources.list", "apt/sources.list.d", "resolv.conf", "hosts"]:
            there = pathlib.Path("/etc") / part
            if there.is_dir():
                shutil.copytree(there, self.path / "etc" / part, dirs_exist_ok=True)
            elif there.exists():
                shutil.copy(there, self.path / "etc" / part)
        for key in [*pathlib.Path("/usr/share/keyrings").glob("*"), *pathlib.Path("/etc/apt/trusted.gpg.d").glob("*")]:
            target = self.path / key.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(key, target)

    def inside(self, *command, check=True):
        """Runs a command in it, without systemd."""
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        return run("chroot", self.path, *command, check=check, env=environment)

    def files(self):
        """All of them, but for what apt and dpkg keep for themselves."""
        own = ("var/lib/dpkg", "var/lib/apt", "var/cache", "var/log", "run", "tmp", "etc/ld.so.cache")
        names = (str(file.relative_to(self.path)) for file in self.path.rglob("*"))
        return {name for name in names if not name.startswith(own)}

    def remove(self):
        """Leaves nothing behind."""
        shutil.rmtree(self.path)


class Machine:
    """systemd, started in a root."""

    def __init__(self, root):
        cgroup = next(folder for folder in reversed(CGROUPS) if (folder / "cgroup.procs").exists())
        self.cgroup = cgroup / f"package-test-{os.getpid()}"
        self.cgroup.mkdir()
        words = ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--net", "--kill-child",
                 "--propagation", "private", str(HERE / "boot"), str(root.path)]
        # The group first, so that it is the root of what systemd sees.
        enter = f"echo $$ >'{self.cgroup}/cgroup.procs' && exec \"$@\""
        self.log = open(FOLDER / "boot.log", "w")
        self.process = subprocess.Popen(["sh", "-c", enter, "sh", *words], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT)
        self.wait(lambda: self.pid() and self.systemctl("is-system-running", check=False).strip() in
                  ("running", "degraded"), "systemd does not come up", 120)

    def pid(self):
        """The first process, once it is systemd."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in (children.read_text().split() if children.exists() else []):
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return child
        return None

    def inside(self, *command, check=True):
        """Runs a command in it."""
        return run("nsenter", "-t", self.pid(), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", *command, check=check,
                   timeout=120)

    def systemctl(self, *words, check=True):
        """Asks systemd."""
        return self.inside("systemctl", "--no-pager", *words, check=check)

    def show(self, unit, name):
        """One property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit).strip()

    def file(self, path):
        """A file of it, as it is seen from here."""
        return pathlib.Path(f"/proc/{self.pid()}/root{path}")

    @staticmethod
    def wait(holds, complaint, seconds=30):
        """Waits until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(complaint() if callable(complaint) else complaint)
            time.sleep(0.1)

    def close(self):
        """Ends all of it: with unshare its first process dies, and with that one the others."""
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.wait(self.is_empty, "processes are left")

    def is_empty(self):
        """Removes the control groups, if nobody is in them any more."""
        folders = [folder for folder in self.cgroup.rglob("*") if folder.is_dir()]
        try:
            for folder in sorted(folders, reverse=True) + [self.cgroup]:
                folder.rmdir()
        except OSError:
            return False
        return True
