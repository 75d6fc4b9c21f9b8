"""Local PostgreSQL servers for the demo, the benchmarks and the tests.

Rules: a server listens on a unix socket only, unless its settings differ, trusts every client of that socket, and never
outlives this process (atexit; on Linux PR_SET_PDEATHSIG, so that it ends even after a SIGKILL). Root runs it as an
unprivileged user, who must be able to enter its directory.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final

import psycopg

from cdc_merge.demo.binaries import account, binaries
from cdc_merge.errors import CdcMergeError

SETTINGS: Final[Mapping[str, str]] = {
    "wal_level": "logical",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "listen_addresses": "",
    "port": "5432",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
START_LIMIT_S: Final = 60.0  # initdb and start take about 3 s; a loaded machine may need ten times that
STOP_LIMIT_S: Final = 30.0
SOCKET_PATH_LIMIT: Final = 100  # sockaddr_un holds 108 bytes on Linux, 104 on macOS
STOP_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
PR_SET_PDEATHSIG: Final = 1

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_running: set[DemoServer] = set()


class ServerFailed(CdcMergeError):
    """A server could not be created, started or stopped; its log has the reason."""


# ---------------------------------------------------------------- processes


class _Spawner:
    """Starts processes from one thread that lives as long as this process: PR_SET_PDEATHSIG watches the starting *thread*."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, job: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="postgres-spawner", daemon=True)
                self._thread.start()
        started: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, started))
        return started.result()

    def _work(self) -> None:
        while True:
            job, started = self._jobs.get()
            try:
                started.set_result(job())
            except OSError as error:
                started.set_exception(error)


_spawner = _Spawner()


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return inherited | {"LC_ALL": "C", "HOME": "/"}


class DemoServer:
    """One PostgreSQL server with one data directory. Created by `start_server`; a context manager that stops it."""

    def __init__(self, directory: Path, bin_directory: Path, port: int) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.bin = bin_directory
        self.port = port
        self._socket_directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DemoServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    @property
    def socket_directory(self) -> Path:
        return self._socket_directory

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None while the server is down."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def dsn(self, dbname: str = "postgres", user: str | None = None) -> str:
        """A libpq connection string over the unix socket; the superuser is `postgres`."""
        return f"host={self._socket_directory} port={self.port} dbname={dbname} user={user or 'postgres'}"

    def start(self) -> None:
        """Start the server and wait until it answers; no effect while it runs. The hint of ServerFailed has the log."""
        if self.pid is not None:
            return
        self._place_socket()
        deadline = time.monotonic() + START_LIMIT_S
        while not self._try_start(deadline):  # after a SIGKILL the old shared memory may be in use for a moment
            if time.monotonic() > deadline:
                raise ServerFailed(f"a server in {self.directory} did not start", hint=f"Read {self.log}.")
            time.sleep(0.2)
        _running.add(self)

    def stop(self, mode: str = "fast") -> None:
        """Stop as `pg_ctl stop -m <mode>` does (smart, fast, immediate); killed when that takes longer than 30 s."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(STOP_SIGNALS[mode])
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL the postmaster and all its children, as a power failure would."""
        process = self._process
        if process is None:
            return
        children = _children(process.pid)
        process.kill()
        for child in children:
            _kill(child)
        process.wait()
        self._forget()

    def _forget(self) -> None:
        self._process = None
        _running.discard(self)
        if self._socket_directory != self.directory:
            shutil.rmtree(self._socket_directory, ignore_errors=True)

    def _place_socket(self) -> None:
        if len(f"{self.directory}/.s.PGSQL.{self.port}.lock") > SOCKET_PATH_LIMIT:
            self._socket_directory = Path(tempfile.mkdtemp(prefix="cdcm-", dir="/tmp"))
            _give(self._socket_directory)

    def _try_start(self, deadline: float) -> bool:
        sockets = f"unix_socket_directories={self._socket_directory}"
        arguments = [str(self.bin / "postgres"), "-D", str(self.data), "-c", sockets]
        with self.log.open("ab") as log:
            self._process = _spawner.run(lambda: _popen(arguments, log.fileno()))
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            try:
                psycopg.connect(self.dsn(), connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.03)
            else:
                return True
        return False


def _popen(arguments: Sequence[str], log: int) -> subprocess.Popen[bytes]:
    who = account()
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=_environment(),
        cwd="/",
        start_new_session=True,  # Ctrl-C in the terminal must not reach the servers
        preexec_fn=_die_with_parent,
        user=who.uid,
        group=who.gid,
        extra_groups=None if who.uid is None else [],
    )


def _children(pid: int) -> list[int]:
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = entry.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            children.append(int(entry.parent.name))
    return children


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _stop_all() -> None:
    for server in list(_running):
        server.stop("immediate")


atexit.register(_stop_all)


# ---------------------------------------------------------------- creation


def new_directory(prefix: str = "cdc-merge-") -> Path:
    """A new temporary directory that the servers' account may enter. The caller removes it."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    directory.chmod(0o755)
    return directory


def start_server(directory: Path, *, settings: Mapping[str, str] | None = None, version: str = "18") -> DemoServer:
    """A running server in `directory` (created when missing; data of an earlier run there is used again).

    `settings` are added to postgresql.conf over SETTINGS; with `listen_addresses` and no `port` a free port is chosen.
    ServerFailed when Postgres `version` is not installed or the servers' account cannot enter the directory.
    """
    directory = directory.absolute()
    bin_directory = binaries(version)
    existing = next(parent for parent in directory.parents if parent.exists())
    if not account().may_enter(existing):
        raise ServerFailed(
            f"Postgres does not run as root, and other users may not enter {existing}",
            hint="Choose a directory below /tmp, or run as a normal user.",
        )
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {**SETTINGS, **_with_port(settings or {})}
    server = DemoServer(directory, bin_directory, int(wanted["port"]))
    _give(directory)
    if not (server.data / "PG_VERSION").exists():
        _initdb(server)
    lines = "".join(f"{name} = '{value}'\n" for name, value in wanted.items())
    (server.data / "cdc_merge.conf").write_text(lines, encoding="utf-8")
    server.start()
    return server


def start_servers(
    directories: Mapping[str, Path], *, settings: Mapping[str, str] | None = None
) -> dict[str, DemoServer]:
    """Several servers at once, each with its own system identifier; all or none."""
    with ThreadPoolExecutor(len(directories)) as pool:
        started = {name: pool.submit(start_server, at, settings=settings) for name, at in directories.items()}
    failed = next((error for future in started.values() if (error := future.exception())), None)
    if failed is None:
        return {name: future.result() for name, future in started.items()}
    for future in started.values():
        if future.exception() is None:
            future.result().stop("immediate")
    raise failed


def _with_port(settings: Mapping[str, str]) -> Mapping[str, str]:
    if not settings.get("listen_addresses") or "port" in settings:
        return settings
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {**settings, "port": str(probe.getsockname()[1])}


def _give(directory: Path) -> None:
    who = account()
    if who.uid is not None and who.gid is not None:
        os.chown(directory, who.uid, who.gid)


def _initdb(server: DemoServer) -> None:
    initdb = str(server.bin / "initdb")
    options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
    with server.log.open("ab") as log:
        process = _spawner.run(lambda: _popen([initdb, "-D", str(server.data), *options], log.fileno()))
        if process.wait(START_LIMIT_S) != 0:
            raise ServerFailed(f"initdb failed in {server.directory}", hint=f"Read {server.log}.")
    with (server.data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("\ninclude_if_exists = 'cdc_merge.conf'\n")
