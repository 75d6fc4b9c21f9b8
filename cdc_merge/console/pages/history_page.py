"""The history page of a record for people: its changes in stamp order."""

from __future__ import annotations

from typing import Final

from cdc_merge.console.pages.layout import isolated, link, page, record_path, row, table
from cdc_merge.model import RecordKey
from cdc_merge.queries.cell_text import cell_of, items, objects, shown, word_of
from cdc_merge.queries.documents import Fields
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import history_document

# More than a person reads on one page; a link leads to later changes.
CHANGES_SHOWN: Final = 200

HISTORY_HEADINGS: Final = (
    "Committed 提交时间",
    "Source 来源",
    "Kind 类型",
    "Actor 操作人",
    "Changes 变更",
    "Stamp 时间戳",
)


def history_page(queries: QueryPort, key: RecordKey, cursor: str | None) -> str:
    """The changes of the record, in stamp order from `cursor` on. NotFound if there is no such record."""
    document = history_document(queries, key, cursor, CHANGES_SHOWN)
    following, path = document["next_cursor"], f"/{record_path(*key)}"
    later = (
        link(f"{path}/history", "Later changes 后续变更", {"cursor": following}) if isinstance(following, str) else ""
    )
    return page(
        f"History of {key.entity} {key.key}",
        (
            f"<p>{link(path, 'The record 记录')} · {link(f'/api/v1{path}/history', 'JSON')}</p>",
            table(HISTORY_HEADINGS, map(_change, items(document)), "No later changes. 没有更多变更。"),
            f"<p>{later}</p>",
        ),
    )


def _change(item: Fields) -> str:
    changes = [
        f"<li>{isolated(name)}: {isolated(word_of(of, 'before'))} → <strong>{isolated(word_of(of, 'after'))}</strong></li>"
        for name, of in objects(item, "fields").items()
    ]
    changes += [f"<li>{name} {isolated(shown(item[name]))}</li>" for name in ("moved_to", "moved_from") if name in item]
    cells = (isolated(cell_of(item, name)) for name in ("committed_at", "source", "kind", "actor"))
    return row((*cells, f"<ul>{''.join(changes)}</ul>", isolated(cell_of(item, "stamp"))))
