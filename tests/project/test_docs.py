"""The documentation's pictures are what the merge says today, and every merge type has its section."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from cdc_merge.merge.types import TYPES

DOCS = Path(__file__).parents[2] / "docs"


def _drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", DOCS / "pictures" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw"] = module
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_drawn_from_todays_merge() -> None:
    drawing = _drawing()
    for story in drawing.STORIES:
        committed = (DOCS / "pictures" / f"{story.name}.svg").read_text()
        assert committed == drawing.picture(story), f"run python docs/pictures/draw.py: {story.name}.svg is old"


def test_every_merge_type_has_a_section_and_a_picture() -> None:
    text = (DOCS / "merge-types.md").read_text()
    missing = [name for name in (*TYPES, "map") if f"## `{name}`" not in text or f"pictures/{name}.svg" not in text]
    assert missing == []


def test_the_wrong_choice_and_the_right_one_never_say_the_same() -> None:
    drawing = _drawing()
    for story in drawing.STORIES:
        assert drawing.told(story, story.wrong) != drawing.told(story, story.right), story.name
