"""The project's own files: one lock for pip and uv, no addresses of one machine, nothing left out unsaid."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(r"(?m)^([a-z0-9-]+)==(\S+)(?: ; (.+?))? \\$")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked() -> dict[str, str]:
    return {name: version for name, version, _ in LOCKED.findall((ROOT / "requirements.lock").read_text())}


def requested() -> list[Requirement]:
    described = project()
    extras = described["project"]["optional-dependencies"].values()
    own = described["project"]["dependencies"] + [line for extra in extras for line in extra]
    return [Requirement(line) for line in own + described["build-system"]["requires"]]


@pytest.mark.parametrize("requirement", requested(), ids=str)
def test_every_requirement_is_locked_in_a_version_that_fits(requirement: Requirement) -> None:
    version = locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), "run: make lock"


def test_every_locked_version_has_a_digest() -> None:
    entries = re.split(r"(?m)^(?=[a-z0-9-]+==)", (ROOT / "requirements.lock").read_text())[1:]
    assert len(entries) == len(LOCKED.findall((ROOT / "requirements.lock").read_text())) > 30
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml", "Makefile", ".ci/run"])
def test_no_build_file_contains_a_package_index_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"https?://|--(?:extra-)?index-url\b|--find-links\b", text) == []


def test_the_version_of_the_package_is_the_one_of_the_changelog() -> None:
    version = re.search(r'__version__ = "(.+?)"', (ROOT / "cdc_merge" / "__init__.py").read_text())
    assert version is not None
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("target", ["demo", "test", "setup", "check", "bench"])
def test_make_has_the_recipes_of_the_contract(target: str) -> None:
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text())


SKIPPING = "import pytest\n\ndef test_it():\n    pytest.skip('NoSuchServer is not installed: get it')\n"


@pytest.mark.parametrize(("required", "code"), [("1", 1), ("", 0)])
def test_skipped_tests_are_listed_and_fail_the_run_where_everything_is_required(
    required: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    environment = os.environ | {"CDC_MERGE_REQUIRE_ALL": required, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.left_out", "--rootdir", str(tmp_path), str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == code, ended.stdout
    assert "left out" in ended.stdout
    assert "1 × NoSuchServer is not installed: get it" in ended.stdout
    assert re.search(r"1 skipped in", ended.stdout.splitlines()[-1])


def test_the_wheel_has_types_and_runs_as_a_module(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    assert {"cdc_merge/py.typed", "cdc_merge/__main__.py"} <= set(zipfile.ZipFile(wheel).namelist())
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    command = [sys.executable, "-m", "cdc_merge", "--version"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout.split()[0]) == (0, "cdc-merge,"), ended.stderr
