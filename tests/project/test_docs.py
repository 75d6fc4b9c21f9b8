"""The documentation's pictures are the merge's present results, every merge type has its section, and every file that a page names exists."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cdc_merge.merge.types import TYPES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "bench" / "LOG.md"])
FILE = re.compile(r"`([a-z_./]+/)?([A-Za-z0-9_]+\.(?:py|sql))(?::\d+)?`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
# These pages describe the past: they may name deleted files.
PAST = {"CHANGELOG.md", "LOG.md"}


def _drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", DOCS / "pictures" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw"] = module
    spec.loader.exec_module(module)
    return module


def test_every_committed_picture_equals_the_drawing_of_the_merge() -> None:
    drawing = _drawing()
    for story in drawing.STORIES:
        committed = (DOCS / "pictures" / f"{story.name}.svg").read_text()
        assert committed == drawing.picture(story), f"run python docs/pictures/draw.py: {story.name}.svg is old"


def test_every_merge_type_has_a_section_and_a_picture() -> None:
    text = (DOCS / "merge-types.md").read_text()
    missing = [name for name in (*TYPES, "map") if f"## `{name}`" not in text or f"pictures/{name}.svg" not in text]
    assert missing == []


def test_the_wrong_and_the_right_merge_type_give_different_results() -> None:
    drawing = _drawing()
    for story in drawing.STORIES:
        assert drawing.outcome(story, story.wrong) != drawing.outcome(story, story.right), story.name


def _exists(directory: str, name: str) -> bool:
    places = (ROOT / "cdc_merge", ROOT / "tests", ROOT / "bench", ROOT / "deploy", ROOT / "docs", ROOT / "grafana")
    return (ROOT / directory / name).exists() or any(
        path.as_posix().endswith("/" + directory + name) for place in places for path in place.rglob(name)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set() if page.name in PAST else set(FILE.findall(text))
    assert [directory + name for directory, name in sorted(names) if not _exists(directory, name)] == []
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_every_room_that_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("Reserved")[0]
    rooms = set(re.findall(r"`((?:[a-z_]+/)+)`", text)) - {"types/"}
    homes = (ROOT / "cdc_merge", ROOT / "cdc_merge" / "sources", ROOT)
    assert [room for room in sorted(rooms) if not any((home / room).is_dir() for home in homes)] == []


def test_the_architecture_is_one_page() -> None:
    lines = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 145
