"""Runs a process with all that it starts, and says what they cost together.

CPU-seconds are those of wait4, user and system, of the process, its children, and orphans: this process makes itself the
subreaper of what it starts, so that a child that outlives its parent (PySpark's Java) is waited for and counted
too. Peak memory is that of the whole tree at one time, looked at twenty times a second, or of its largest
process where that is more; pages that processes share count once in each.
"""

import ctypes
import os
import signal
import subprocess
import threading
import time

PR_SET_CHILD_SUBREAPER = 36  # Source: prctl(2)
SAMPLE_SECONDS = 0.05
ORPHAN_SECONDS_MAX = 30
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    pass


def become_subreaper():
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "could not become a subreaper")


def tree_rss_bytes(session):
    """Resident bytes of all processes of a session."""
    total = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:  # it has gone meanwhile
            continue
        if int(fields[3]) == session:
            total += int(fields[21]) * PAGE_BYTES
    return total


class Watch(threading.Thread):
    def __init__(self, session):
        super().__init__(daemon=True)
        self.session, self.peak, self.done = session, 0, threading.Event()

    def run(self):
        while not self.done.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, tree_rss_bytes(self.session))


def reap_orphans(session):
    """Waits for what the process left behind; ends by its id what does not end by itself."""
    usages, deadline = [], time.monotonic() + ORPHAN_SECONDS_MAX
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return usages
        if pid:
            usages.append(usage)
        elif time.monotonic() > deadline:
            os.killpg(session, signal.SIGKILL)
            deadline = float("inf")
        else:
            time.sleep(0.02)


def run(command, log, environment=None, timeout_seconds=3600):
    """Standard output, and what it cost. Raises Failed with the end of the log."""
    with open(log, "wb") as errors:
        began = time.monotonic()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        watch = Watch(child.pid)
        watch.start()
        alarm = threading.Timer(timeout_seconds, lambda: os.killpg(child.pid, signal.SIGKILL))
        alarm.start()
        with child.stdout:
            output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        usages = [usage] + reap_orphans(child.pid)
        alarm.cancel()
        watch.done.set()
        watch.join()
    if child.returncode != 0:
        with open(log, errors="replace") as errors:
            tail = "".join(errors.readlines()[-15:])
        raise Failed(f"exit code {child.returncode} of {' '.join(command[:3])} …\n{tail}")
    return output.decode(), {
        "seconds": seconds,
        "cpu_seconds": sum(each.ru_utime + each.ru_stime for each in usages),
        "user_seconds": sum(each.ru_utime for each in usages),
        "rss_bytes_max": max([watch.peak] + [each.ru_maxrss * 1024 for each in usages]),
        "load_average": os.getloadavg()[0],
    }
