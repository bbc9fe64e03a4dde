"""The real servers of one measurement, in a folder of their own, and what each process costs."""

import os
import re
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
NATIVE = os.path.join(REPOSITORY, "compose", "native")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:  # it has gone meanwhile
        return ""


def processes_below(pid):
    """A process and all that it started: PostgreSQL's backends are children of its first process."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = read(f"/proc/{name}/stat").rpartition(")")[2].split()
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(name))
    found, at = [pid], 0
    while at < len(found):
        found += parents.get(found[at], [])
        at += 1
    return found


def cpu_seconds(pid, with_waited_for=False):
    """User and system. `with_waited_for`: children that have ended count, too."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields:
        return 0.0
    # Source: proc_pid_stat(5); behind the name: 11 utime, 12 stime, 13 cutime, 14 cstime
    return sum(map(int, fields[11 : 15 if with_waited_for else 13])) / TICKS_PER_SECOND


def rss_peak_mib(pid):
    """The kernel's own high-water mark. Source: proc_pid_status(5), VmHWM."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", read(f"/proc/{pid}/status"), re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


class Stack:
    def __init__(self, folder):
        self.state = os.path.join(folder, "stack")
        self.environment = {}

    def __enter__(self):
        subprocess.run([NATIVE, "install"], check=True)
        subprocess.run([NATIVE, "up", "--state", self.state], check=True)
        for line in read(os.path.join(self.state, "settings.env")).splitlines():
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self.environment[name] = value
        return self

    def __exit__(self, *_):
        subprocess.run([NATIVE, "down", "--state", self.state], check=True)

    def delete_raw_objects(self):
        """Behind the gateway's back: nobody reads them any more."""
        shutil.rmtree(os.path.join(self.state, "raw", "objects", "raw", "transactions"), ignore_errors=True)

    def pids(self):
        """First process of each server."""
        names = ["kafka", "raw", "lake", "postgres"]
        return {name: int(read(os.path.join(self.state, "run", f"{name}.pid")).split()[0]) for name in names}

    def cpu_seconds(self):
        """Of each server so far, with processes that have ended."""
        return {name: sum(cpu_seconds(each, True) for each in processes_below(pid)) for name, pid in self.pids().items()}

    def rows(self, query):
        """Of the catalog: a list of lists of texts."""
        command = ["psql", self.environment["SLUICE_CATALOG__DSN"], "-qAt", "-F", "\t", "-c", query]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return [line.split("\t") for line in output.splitlines()]
