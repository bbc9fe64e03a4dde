"""A PostgreSQL server for one measurement, and what it costs."""

import os
import shutil
import socket
import subprocess
import tempfile

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# For a machine with 16 GiB that carries the server and those who load: what every guide says first.
TUNED = {
    "shared_buffers": "2GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min", "wal_compression": "on",
    "work_mem": "64MB", "maintenance_work_mem": "512MB",
}


def binaries():
    found = os.environ.get("SLUICE_PG_BIN")
    if found:
        return found
    folder = "/usr/lib/postgresql"
    return os.path.join(folder, max(os.listdir(folder), key=int), "bin")


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:  # it has gone meanwhile
        return ""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    def __init__(self, settings):
        self.settings = settings

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="sluice-loading-", dir="/var/tmp")
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
        self.port = free_port()
        data = os.path.join(self.folder, "data")
        self.run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        given = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder, **self.settings}
        options = " ".join(f"-c {name}={value}" for name, value in given.items())
        self.run("pg_ctl", "-D", data, "-l", os.path.join(self.folder, "server.log"), "-w", "-o", options, "start")
        self.pid = int(read(os.path.join(data, "postmaster.pid")).split()[0])
        return self

    def __exit__(self, *_):
        self.run("pg_ctl", "-D", os.path.join(self.folder, "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, name, *words):
        """PostgreSQL refuses to run as root, so root hands over to `postgres`."""
        command = [os.path.join(binaries(), name), *words]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def dsn(self):
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=bench"

    def psql(self, *commands, database="bench"):
        words = [word for command in commands for word in ("-c", command)]
        subprocess.run(["psql", "-qX", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", *words],
                       check=True, env={**os.environ, "PGOPTIONS": "-c client_min_messages=warning"})

    def fresh_database(self):
        self.psql("DROP DATABASE IF EXISTS bench", "CREATE DATABASE bench", "CHECKPOINT", database="postgres")

    def cpu_seconds(self):
        """User and system, of all its processes, those that have ended included."""
        parents, ticks = {}, {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            fields = read(f"/proc/{name}/stat").rpartition(")")[2].split()
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(name))
                # Source: proc_pid_stat(5); behind the name: 11 utime, 12 stime, 13 cutime, 14 cstime
                ticks[int(name)] = sum(map(int, fields[11:15]))
        found, at = [self.pid], 0
        while at < len(found):
            found += parents.get(found[at], [])
            at += 1
        return sum(ticks.get(pid, 0) for pid in found) / TICKS_PER_SECOND
