"""The two pages of a record for people: what it means and what each source says of it; and all that happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final
from urllib.parse import quote

from cdc_merge.console.pages.layout import link, page, record_path, row, table
from cdc_merge.model import RecordKey
from cdc_merge.queries.cell_text import ABSENT, cell_of, items, objects, shown, word_of
from cdc_merge.queries.documents import Fields
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import history_document, record_document

# More than a person reads on one page; a link leads to what came later.
CHANGES_SHOWN: Final = 200

HISTORY_HEADINGS: Final = (
    "Committed 提交时间",
    "Source 来源",
    "Kind 类型",
    "Actor 操作人",
    "Changes 变更",
    "Stamp 时间戳",
)


def record_page(reading: QueryPort, key: RecordKey) -> str:
    """The record with every source's view. NotFound if there is none."""
    document = record_document(reading, key, None)
    views = objects(document, "sources")
    headings = ("Field 字段", "Merged 合并值", *views, "Why 原因")
    conflicts = "".join(f"<li>{_conflict(conflict)}</li>" for conflict in items(document, "conflicts"))
    path = record_path(*key)
    history = link(f"/{path}/history", "History of this record 变更历史")
    return page(
        f"{key.entity} {key.key}{' (ended)' if document['deleted'] else ''}",
        (
            f'<p>{history} · <a href="/">All open conflicts 全部冲突</a> · {link(f"/api/v1/{path}", "JSON")}</p>',
            f"<ul>{conflicts}</ul>" if conflicts else "<p>No conflict stands. 没有未解决的冲突。</p>",
            table(headings, _rows(document, views, path), "Nothing is known of it. 没有数据。"),
        ),
    )


def history_page(reading: QueryPort, key: RecordKey, cursor: str | None) -> str:
    """What happened to the record, in stamp order from `cursor` on. NotFound if there is no such record."""
    document = history_document(reading, key, cursor, CHANGES_SHOWN)
    following, path = document["next_cursor"], f"/{record_path(*key)}"
    later = (
        link(f"{path}/history", "Later changes 后续变更", {"cursor": following}) if isinstance(following, str) else ""
    )
    return page(
        f"History of {key.entity} {key.key}",
        (
            f"<p>{link(path, 'The record 记录')} · {link(f'/api/v1{path}/history', 'JSON')}</p>",
            table(HISTORY_HEADINGS, map(_change, items(document)), "Nothing happened since. 没有更多变更。"),
            f"<p>{later}</p>",
        ),
    )


def _conflict(conflict: Fields) -> str:
    identity = shown(conflict["id"])
    subject = cell_of(conflict, "group" if conflict["group"] else "field")
    what = f"{shown(conflict['kind'])}, {subject}, {shown(conflict['severity'])}, {shown(conflict['status'])}"
    return link(f"/api/v1/conflicts/{quote(identity, safe='')}", what)


def _rows(document: Fields, views: dict[str, Fields], path: str) -> Iterator[str]:
    merged = document["merged"]
    assert isinstance(merged, dict)
    held = {name: values for name, view in views.items() if isinstance(values := view["values"], dict)}
    for field in dict.fromkeys((*merged, *(field for values in held.values() for field in values))):
        words = (field, word_of(merged, field), *(word_of(held[name], field) for name in views))
        yield row((*map(escape, words), link(f"/api/v1/{path}/explain", "explain", {"field": field})))
    presence = ("(presence)", "ended" if document["deleted"] else "present")
    yield row(map(escape, (*presence, *(cell_of(view, "presence") for view in views.values()), ABSENT)))


def _change(item: Fields) -> str:
    changes = [
        f"<li>{escape(name)}: {escape(word_of(of, 'before'))} → <strong>{escape(word_of(of, 'after'))}</strong></li>"
        for name, of in objects(item, "fields").items()
    ]
    changes += [f"<li>{name} {escape(shown(item[name]))}</li>" for name in ("moved_to", "moved_from") if name in item]
    told = (escape(cell_of(item, name)) for name in ("committed_at", "source", "kind", "actor"))
    return row((*told, f"<ul>{''.join(changes)}</ul>", escape(cell_of(item, "stamp"))))
