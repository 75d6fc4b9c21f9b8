"""The home page for people: conflicts that wait for a decision, and the state of the sources. Alerts link here with a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final
from urllib.parse import quote

from cdc_merge.console.pages.layout import isolated, link, page, record_path, row, table
from cdc_merge.model import Candidate, Conflict, lsn_text
from cdc_merge.queries.documents import candidate_json, json_text, maybe_time_json
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.source_documents import SourceReport, durable_lsn_of

# More than a person reads on one page; the API has them all.
MAX_CONFLICTS: Final = 200

CONFLICT_HEADINGS: Final = (
    "Severity 严重程度",
    "Record 记录",
    "Field 字段",
    "Kind 类型",
    "Status 状态",
    "Candidates 候选值",
    "Raised 发现时间",
)
SOURCE_HEADINGS: Final = (
    "Source 来源",
    "State 状态",
    "Merged up to 已合并位置",
    "Last commit 最近提交",
    "Snapshot 初始快照",
    "Problem 问题",
)


def home_page(queries: QueryPort, where: Mapping[str, str]) -> str:
    """The page as HTML text. `where` filters the conflicts, as in the API; without a status, the unfinished ones."""
    conflicts = _listed_conflicts(queries, where)
    _, reason = queries.ready()
    return page(
        "cdc_merge",
        (
            f"<p>{isolated(reason)}</p>",
            f"<h2>{_heading(where)} ({_count(conflicts)})</h2>",
            _filter_line(where),
            table(
                CONFLICT_HEADINGS, map(_conflict_row, conflicts), "No conflict waits for a decision. 没有待处理的冲突。"
            ),
            "<h2>Sources 数据来源</h2>",
            table(SOURCE_HEADINGS, map(_source_row, queries.sources()), "No source is configured. 未配置数据来源。"),
            '<p>For programs 程序接口: <a href="/api/openapi.json">OpenAPI</a> · ',
            f"{link('/api/v1/conflicts', 'conflicts', where)} · ",
            '<a href="/api/v1/sources">sources</a> · <a href="/metrics">metrics</a></p>',
        ),
        refresh_s=10,
    )


def _listed_conflicts(queries: QueryPort, where: Mapping[str, str]) -> Sequence[Conflict]:
    statuses = (where["status"],) if "status" in where else ("open", "settling")
    pages = [queries.conflicts({**where, "status": status}, None, MAX_CONFLICTS) for status in statuses]
    return [conflict for page_of in pages for conflict in page_of.items][:MAX_CONFLICTS]


def _heading(where: Mapping[str, str]) -> str:
    return "Closed conflicts 已解决的冲突" if where.get("status") == "closed" else "Open conflicts 未解决的冲突"


def _filter_line(where: Mapping[str, str]) -> str:
    """The active filter, and a link without it."""
    if not where:
        return ""
    filters = ", ".join(f"{name} {text}" for name, text in where.items())
    return f"<p>Only 仅显示: {isolated(filters)} · {link('/', 'all unfinished 全部')}</p>"


def _count(conflicts: Sequence[Conflict]) -> str:
    return f"{len(conflicts)}+" if len(conflicts) >= MAX_CONFLICTS else str(len(conflicts))


def _conflict_row(conflict: Conflict) -> str:
    detected = conflict.detected
    return row(
        (
            f'<span class="{escape(detected.severity)}">{escape(detected.severity)}</span>',
            link(f"/{record_path(detected.entity, detected.key)}", f"{detected.entity} {detected.key}"),
            isolated(detected.group or detected.field or "–"),
            link(f"/api/v1/conflicts/{quote(conflict.id, safe='')}", detected.kind),
            escape(f"{conflict.status}, revision {conflict.revision}"),
            "<ul>" + "".join(map(_candidate, detected.candidates)) + "</ul>",
            escape(maybe_time_json(conflict.raised_us) or ""),
        )
    )


def _candidate(candidate: Candidate) -> str:
    document = candidate_json(candidate)
    value = document.get("value", "(absent)")
    shown = value if isinstance(value, str) else json_text(value)
    actor = f", {isolated(candidate.actor)}" if candidate.actor else ""
    record = f"{isolated(candidate.key)} in " if candidate.key is not None else ""
    return f"<li>{record}{isolated(candidate.source)}{actor}: <strong>{isolated(shown)}</strong></li>"


def _source_row(source: SourceReport) -> str:
    status = source.status
    return row(
        (
            isolated(status.name),
            escape(status.state) if status.up else f'<span class="down">{escape(status.state)}</span>',
            escape(lsn_text(durable_lsn_of(source.position))),
            escape(maybe_time_json(status.last_commit_us) or "–"),
            escape(source.position.snapshot if source.position else "none"),
            isolated(status.problem or "–"),
        )
    )
