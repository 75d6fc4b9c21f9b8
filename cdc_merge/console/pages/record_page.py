"""The page of a record for people: its merged state beside each source's view."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from cdc_merge.console.pages.layout import isolated, link, page, record_path, row, table
from cdc_merge.model import RecordKey
from cdc_merge.queries.cell_text import ABSENT, cell_of, items, objects, shown, word_of
from cdc_merge.queries.documents import Fields
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import record_document


def record_page(queries: QueryPort, key: RecordKey) -> str:
    """The record with every source's view. NotFound if there is none."""
    document = record_document(queries, key, None)
    views = objects(document, "sources")
    headings = ("Field 字段", "Merged 合并值", *views, "Why 原因")
    conflicts = "".join(f"<li>{_conflict(conflict)}</li>" for conflict in items(document, "conflicts"))
    path = record_path(*key)
    history = link(f"/{path}/history", "History of this record 变更历史")
    return page(
        f"{key.entity} {key.key}{' (deleted)' if document['deleted'] else ''}",
        (
            f'<p>{history} · <a href="/">All open conflicts 全部冲突</a> · {link(f"/api/v1/{path}", "JSON")}</p>',
            f"<ul>{conflicts}</ul>" if conflicts else "<p>No unfinished conflict. 没有未解决的冲突。</p>",
            table(headings, _rows(document, views, path), "No data. 没有数据。"),
        ),
    )


def _conflict(conflict: Fields) -> str:
    identity = shown(conflict["id"])
    subject = cell_of(conflict, "group" if conflict["group"] else "field")
    summary = f"{shown(conflict['kind'])}, {subject}, {shown(conflict['severity'])}, {shown(conflict['status'])}"
    return link(f"/api/v1/conflicts/{quote(identity, safe='')}", summary)


def _rows(document: Fields, views: dict[str, Fields], path: str) -> Iterator[str]:
    merged = document["merged"]
    assert isinstance(merged, dict)
    values_of = {name: values for name, view in views.items() if isinstance(values := view["values"], dict)}
    for field in dict.fromkeys((*merged, *(field for values in values_of.values() for field in values))):
        words = (field, word_of(merged, field), *(word_of(values_of[name], field) for name in views))
        yield row((*map(isolated, words), link(f"/api/v1/{path}/explain", "explain", {"field": field})))
    presence = ("(presence)", "deleted" if document["deleted"] else "present")
    yield row(map(isolated, (*presence, *(cell_of(view, "presence") for view in views.values()), ABSENT)))
