"""Draws the pictures of docs/merge-types.md from the merge's own results: `python docs/pictures/draw.py`.

Each story is merged twice: first with a type that does not fit, then with the one that does. tests/project/test_docs.py compares the
committed pictures with newly drawn ones.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.fold import fold
from cdc_merge.merge.views import merged
from cdc_merge.model import UNKNOWN, Change, Copy, Json, Place, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan
from cdc_merge.queries.documents import value_json

HERE = Path(__file__).parent
LANES = {"crm": 70, "erp": 140}
LEFT, STEP, WIDTH = 110, 150, 860


@dataclass(frozen=True)
class Step:
    """At one moment one system comes to hold a value. `copied`: a sync job wrote it."""

    source: str
    value: Any
    copied: bool = False


@dataclass(frozen=True)
class Story:
    name: str
    start: Any
    steps: Sequence[Step]
    wrong: tuple[str, Mapping[str, Any]]
    right: tuple[str, Mapping[str, Any]]


ORDER = ["draft", "confirmed", "shipped"]
STORIES = (
    Story("mv", "138…1", (Step("crm", "138…2"), Step("erp", "138…3")), ("lww", {}), ("mv", {})),
    Story("lww", "old remark", (Step("crm", "call back"), Step("erp", "paid")), ("mv", {}), ("lww", {})),
    Story("priority", "B", (Step("crm", "A"), Step("erp", "C")), ("lww", {}), ("priority", {"order": ["crm", "erp"]})),
    Story("counter", 10, (Step("crm", 9), Step("erp", 9)), ("mv", {}), ("counter", {})),
    Story("max", 5, (Step("crm", 9), Step("erp", 7)), ("lww", {}), ("max", {})),
    Story("min", 5, (Step("crm", 2), Step("erp", 4)), ("lww", {}), ("min", {})),
    Story("set", ("a",), (Step("crm", ("a", "b")), Step("erp", ())), ("lww", {}), ("set", {})),
    Story(
        "map",
        Json('{"city":"Wuhan","zip":"1"}'),
        (Step("crm", Json('{"city":"Xian","zip":"1"}')), Step("erp", Json('{"city":"Wuhan","zip":"7"}'))),
        ("lww", {}),
        ("map", {}),
    ),
    Story("flag", None, (Step("crm", value=True), Step("erp", value=False)), ("lww", {}), ("flag", {"wins": True})),
    Story(
        "lattice",
        "draft",
        (Step("crm", "shipped"), Step("erp", "confirmed")),
        ("lww", {}),
        ("lattice", {"order": ORDER}),
    ),
    Story("append", "1;", (Step("crm", "1;2;"), Step("erp", "1;3;")), ("lww", {}), ("append", {})),
    Story("immutable", "T-1", (Step("crm", "T-2"),), ("lww", {}), ("immutable", {})),
)


def outcome(story: Story, merge: tuple[str, Mapping[str, Any]]) -> tuple[str, list[str]]:
    """(merged value, conflicts in words) of a story under one merge type."""
    plan = FieldPlan("value", merge[0], dict(merge[1]))
    sources = tuple(LANES)
    entity = EntityPlan("thing", sources, dict.fromkeys(sources, frozenset(("value",))), {"value": plan})
    record = fold(entity, changes(story))
    conflicts = [
        f"{found.kind}: " + " or ".join(f"{c.source} {shown(c.value)}" for c in found.candidates)
        for found in merge_conflicts(record)
    ]
    return shown(merged(record).values.get("value", UNKNOWN)), conflicts


def changes(story: Story) -> list[Change]:
    first = [_change(source, 0, "snapshot", story.start, copied=False) for source in LANES]
    rest = [_change(s.source, at + 1, "update", s.value, copied=s.copied) for at, s in enumerate(story.steps)]
    return [*first, *rest]


def _change(source: str, at: int, operation: str, value: Any, *, copied: bool) -> Change:
    place = Place(source, 1, at + 1, "thing", 0)
    fields = {"value": (UNKNOWN, value)}
    return Change(
        "thing", "1", Stamp(at * 1_000_000, 0, source), place, operation, fields, None, Copy() if copied else None
    )


def shown(value: Any) -> str:
    if value is UNKNOWN:
        return "—"
    plain = value_json(value)
    return plain if isinstance(plain, str) else str(plain).replace("'", "")


# ---------------------------------------------------------------- drawing


def picture(story: Story) -> str:
    parts = [
        *_lanes(story),
        *_verdict(story, story.wrong, 190, "#b3261e"),
        *_verdict(story, story.right, 250, "#1b6e3c"),
    ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 310" font-family="sans-serif" font-size="14" '
        f'role="img" aria-label="Two systems edit; {escape(story.name)}">\n'
        f'<rect width="{WIDTH}" height="310" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _lanes(story: Story) -> list[str]:
    parts = [
        _text(16, 28, f"Two systems edit at the same time, before either has seen the other: {story.name}", "#222222")
    ]
    for source, y in LANES.items():
        parts.append(_text(16, y + 5, source, "#222222"))
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - 20}" y2="{y}" stroke="#888888"/>')
        parts += _dot(LEFT, y, story.start, "#888888")
    for at, step in enumerate(story.steps):
        parts += _dot(LEFT + STEP * (at + 1), LANES[step.source], step.value, "#0b57d0")
    return parts


def _dot(x: int, y: int, value: Any, colour: str) -> list[str]:
    return [f'<circle cx="{x}" cy="{y}" r="6" fill="{colour}"/>', _text(x - 6, y - 12, shown(value), "#222222")]


def _verdict(story: Story, merge: tuple[str, Mapping[str, Any]], y: int, colour: str) -> list[str]:
    value, conflicts = outcome(story, merge)
    head = f"merge: {merge[0]}  →  {value}"
    return [
        f'<rect x="12" y="{y}" width="{WIDTH - 24}" height="50" rx="6" fill="none" stroke="{colour}"/>',
        _text(24, y + 20, head, colour),
        _text(24, y + 40, "conflict: " + "; ".join(conflicts) if conflicts else "no conflict", "#222222"),
    ]


def _text(x: int, y: int, text: str, colour: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}">{escape(text)}</text>'


def main() -> int:
    for story in STORIES:
        (HERE / f"{story.name}.svg").write_text(picture(story))
    return 0


if __name__ == "__main__":
    sys.exit(main())
