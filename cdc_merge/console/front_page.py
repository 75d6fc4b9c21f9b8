"""The page for people: what waits for an answer, and how the sources are. Plain HTML, nothing loaded from anywhere.

Everything that came from a source is escaped; the page carries no script, and the browser is told to run none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final
from urllib.parse import quote

from cdc_merge.console.reading import Reading
from cdc_merge.documents import SourceReading, candidate_json, durable_lsn_of, json_text, maybe_time_json
from cdc_merge.model import Candidate, Conflict, lsn_text

# More than a person reads on one page; the API has them all.
MAX_CONFLICTS: Final = 200

CONTENT_POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #d0d7de; }
td { overflow-wrap: anywhere; }
th { font-weight: 600; background: #f6f8fa; }
ul { margin: 0; padding-left: 1.1rem; }
.critical, .high, .down { color: #a40e26; font-weight: 600; }
"""

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


def front_page(reading: Reading) -> str:
    """The whole page as HTML text."""
    conflicts = _waiting(reading)
    _, reason = reading.ready()
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>cdc_merge</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="refresh" content="10">',
            f"<style>{STYLE}</style></head><body><main>",
            f"<h1>cdc_merge</h1><p>{escape(reason)}</p>",
            f"<h2>Open conflicts 未解决的冲突 ({_count(conflicts)})</h2>",
            _table(CONFLICT_HEADINGS, map(_conflict_row, conflicts), "Nothing waits for an answer. 没有待处理的冲突。"),
            "<h2>Sources 数据来源</h2>",
            _table(SOURCE_HEADINGS, map(_source_row, reading.sources()), "No source is configured. 未配置数据来源。"),
            '<p>For programs 程序接口: <a href="/api/openapi.json">OpenAPI</a> · ',
            '<a href="/api/v1/conflicts">conflicts</a> · <a href="/api/v1/sources">sources</a> · ',
            '<a href="/metrics">metrics</a></p></main></body></html>',
        )
    )


def _waiting(reading: Reading) -> Sequence[Conflict]:
    waiting = [reading.conflicts({"status": status}, None, MAX_CONFLICTS).items for status in ("open", "settling")]
    return [*waiting[0], *waiting[1]][:MAX_CONFLICTS]


def _count(conflicts: Sequence[Conflict]) -> str:
    return f"{len(conflicts)}+" if len(conflicts) >= MAX_CONFLICTS else str(len(conflicts))


def _table(headings: Iterable[str], rows: Iterable[str], when_empty: str) -> str:
    body = "".join(rows)
    if not body:
        return f"<p>{escape(when_empty)}</p>"
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _conflict_row(conflict: Conflict) -> str:
    question = conflict.question
    record = f"/api/v1/records/{quote(question.entity, safe='')}/{quote(question.key, safe='')}"
    return _row(
        (
            f'<span class="{escape(question.severity)}">{escape(question.severity)}</span>',
            f'<a href="{escape(record)}">{escape(question.entity)} {escape(question.key)}</a>',
            escape(question.group or question.field or "–"),
            f'<a href="/api/v1/conflicts/{escape(quote(conflict.id, safe=""))}">{escape(question.kind)}</a>',
            escape(conflict.status),
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
    return _row(
        (
            escape(status.name),
            escape(status.state) if status.up else f'<span class="down">{escape(status.state)}</span>',
            escape(lsn_text(durable_lsn_of(source.position))),
            escape(maybe_time_json(status.last_commit_us) or "–"),
            escape(source.position.snapshot if source.position else "none"),
            escape(status.problem or "–"),
        )
    )
