"""Certificates for tests, made by the openssl program: authorities of our own, and what they issue."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from cdc_merge.demo.binaries import account


class Issued(NamedTuple):
    """A certificate and its key, PEM files; the key is readable by its owner alone."""

    certificate: Path
    key: Path


def authority(directory: Path, name: str) -> Issued:
    """A certificate authority of the test alone."""
    made = Issued(directory / f"{name}.crt", directory / f"{name}.key")
    _openssl(*_KEY, "-x509", "-days", "2", "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate)
    return made


def issued(directory: Path, name: str, by: Issued, days: int = 2) -> Issued:
    """A certificate for the host or person `name`. The servers' user owns the key."""
    made = Issued(directory / f"{name}.crt", directory / f"{name}.key")
    request, extensions = directory / f"{name}.csr", directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{name}\n")
    _openssl(*_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
    signed_by = ("-CA", by.certificate, "-CAkey", by.key, "-CAcreateserial", "-extfile", extensions)
    _openssl("x509", "-req", "-days", str(days), "-in", request, "-out", made.certificate, *signed_by)
    made.key.chmod(0o600)
    return made


def give_to_server(made: Issued) -> None:
    """The server's own user must own its key."""
    who = account()
    if who.uid is not None and who.gid is not None:
        shutil.chown(made.key, who.uid, who.gid)


_KEY = ("req", "-new", "-newkey", "rsa:2048", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
