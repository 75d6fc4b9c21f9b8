"""The frame of every page for people: plain HTML that loads nothing else.

Every value of a source is escaped where its cell is built, and isolated: a right-to-left value cannot reorder the text
around it. A page has no script, and its policy forbids the browser to run any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final
from urllib.parse import quote, urlencode

CONTENT_POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
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


def page(title: str, parts: Iterable[str], refresh_s: int | None = None) -> str:
    """The page as HTML text. `title` is text, `parts` are HTML. The browser reloads it every `refresh_s` seconds."""
    refresh = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">'
    return "\n".join(
        (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f'<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}',
            f"<style>{STYLE}</style></head><body><main>",
            f"<h1>{isolated(title)}</h1>",
            *parts,
            "</main></body></html>",
        )
    )


def table(headings: Iterable[str], rows: Iterable[str], when_empty: str) -> str:
    """`headings` are text, `rows` are HTML; without rows, the sentence `when_empty`."""
    body = "".join(rows)
    if not body:
        return f"<p>{escape(when_empty)}</p>"
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def row(cells: Iterable[str]) -> str:
    """`cells` are HTML."""
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def link(path: str, text: str, parameters: Mapping[str, str] | None = None) -> str:
    """`parameters` become the query string."""
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f'<a href="{escape(path + query)}">{isolated(text)}</a>'


def isolated(text: str) -> str:
    """Text as HTML whose writing direction stays its own."""
    return f"<bdi>{escape(text)}</bdi>"


def record_path(entity: str, key: str) -> str:
    """Below `/` for people, below `/api/v1/` for programs."""
    return f"records/{quote(entity, safe='')}/{quote(key, safe='')}"
