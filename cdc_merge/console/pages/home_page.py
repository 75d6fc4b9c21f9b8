"""The first page for people: what waits for an answer, and how the sources are. An alert leads here, asking for some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final
from urllib.parse import quote

from cdc_merge.console.pages.layout import link, page, record_path, row, table
from cdc_merge.model import Candidate, Conflict, lsn_text
from cdc_merge.queries.documents import SourceReading, candidate_json, durable_lsn_of, json_text, maybe_time_json
from cdc_merge.queries.port import QueryPort

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


def front_page(reading: QueryPort, where: Mapping[str, str]) -> str:
    """The whole page as HTML text. `where` narrows the conflicts, as in the API; without a status, those that wait."""
    conflicts = _asked_for(reading, where)
    _, reason = reading.ready()
    return page(
        "cdc_merge",
        (
            f"<p>{escape(reason)}</p>",
            f"<h2>{_heading(where)} ({_count(conflicts)})</h2>",
            _narrowed(where),
            table(CONFLICT_HEADINGS, map(_conflict_row, conflicts), "Nothing waits for an answer. 没有待处理的冲突。"),
            "<h2>Sources 数据来源</h2>",
            table(SOURCE_HEADINGS, map(_source_row, reading.sources()), "No source is configured. 未配置数据来源。"),
            '<p>For programs 程序接口: <a href="/api/openapi.json">OpenAPI</a> · ',
            f"{link('/api/v1/conflicts', 'conflicts', where)} · ",
            '<a href="/api/v1/sources">sources</a> · <a href="/metrics">metrics</a></p>',
        ),
        again_after_s=10,
    )


def _asked_for(reading: QueryPort, where: Mapping[str, str]) -> Sequence[Conflict]:
    statuses = (where["status"],) if "status" in where else ("open", "settling")
    found = [reading.conflicts({**where, "status": status}, None, MAX_CONFLICTS).items for status in statuses]
    return [conflict for page_of in found for conflict in page_of][:MAX_CONFLICTS]


def _heading(where: Mapping[str, str]) -> str:
    return "Closed conflicts 已解决的冲突" if where.get("status") == "closed" else "Open conflicts 未解决的冲突"


def _narrowed(where: Mapping[str, str]) -> str:
    """What the list is narrowed to, and the way out."""
    if not where:
        return ""
    told = ", ".join(f"{name} {text}" for name, text in where.items())
    return f"<p>Only 仅显示: {escape(told)} · {link('/', 'all that wait 全部')}</p>"


def _count(conflicts: Sequence[Conflict]) -> str:
    return f"{len(conflicts)}+" if len(conflicts) >= MAX_CONFLICTS else str(len(conflicts))


def _conflict_row(conflict: Conflict) -> str:
    question = conflict.detected
    return row(
        (
            f'<span class="{escape(question.severity)}">{escape(question.severity)}</span>',
            link(f"/{record_path(question.entity, question.key)}", f"{question.entity} {question.key}"),
            escape(question.group or question.field or "–"),
            link(f"/api/v1/conflicts/{quote(conflict.id, safe='')}", question.kind),
            escape(f"{conflict.status}, revision {conflict.revision}"),
            "<ul>" + "".join(map(_candidate, question.candidates)) + "</ul>",
            escape(maybe_time_json(conflict.raised_us) or ""),
        )
    )


def _candidate(candidate: Candidate) -> str:
    document = candidate_json(candidate)
    value = document.get("value", "(absent)")
    shown = value if isinstance(value, str) else json_text(value)
    who = f", {candidate.actor}" if candidate.actor else ""
    whose = f"{candidate.key} in " if candidate.key is not None else ""
    return f"<li>{escape(whose)}{escape(candidate.source)}{escape(who)}: <strong>{escape(shown)}</strong></li>"


def _source_row(source: SourceReading) -> str:
    status = source.status
    return row(
        (
            escape(status.name),
            escape(status.state) if status.up else f'<span class="down">{escape(status.state)}</span>',
            escape(lsn_text(durable_lsn_of(source.position))),
            escape(maybe_time_json(status.last_commit_us) or "–"),
            escape(source.position.snapshot if source.position else "none"),
            escape(status.problem or "–"),
        )
    )
