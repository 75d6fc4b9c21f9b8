"""A person with a browser who may only click: pages are read as HTML, and the next address is a link of the last page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urljoin

import httpx


class Seen(NamedTuple):
    """A page as it is read: its title, its text line by line, and its links as (text, address)."""

    address: str
    title: str
    text: str
    links: tuple[tuple[str, str], ...]


class Person:
    """`clicks` counts the pages that were opened. `token`: what a proxy that knows the person sends."""

    def __init__(self, token: str | None = None) -> None:
        self.clicks = 0
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def follow(self, address: str) -> Seen:
        """Click a link that stands somewhere else: in a pager, a chat, a dashboard. HTTPStatusError unless it leads to
        a page."""
        self.clicks += 1
        answer = httpx.get(address, timeout=10, headers=self._headers).raise_for_status()
        assert answer.headers["content-type"].startswith("text/html"), "nobody clicks in JSON"
        return read(address, answer.text)

    def click(self, seen: Seen, beginning: str) -> Seen:
        """Click the first link whose text begins so."""
        found = [address for text, address in seen.links if text.startswith(beginning)]
        assert found, f"{seen.address} has no link {beginning!r}, only {[text for text, _ in seen.links]}"
        return self.follow(found[0])


def read(address: str, html: str) -> Seen:
    reader = _Reader(address)
    # It isolates the writing direction of a value and divides nothing; a value's own `<` is escaped.
    reader.feed(html.replace("<bdi>", "").replace("</bdi>", ""))
    return Seen(address, reader.title, "\n".join(reader.lines), tuple(reader.links))


class _Reader(HTMLParser):
    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._open = ""
        self._leads_to = ""
        self.title = ""
        self.lines: list[str] = []
        self.links: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        if tag == "a":
            self._leads_to = urljoin(self._address, dict(attrs)["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "title":
            self.title = data
        if self._open == "a":
            self.links.append((data, self._leads_to))
        if self._open != "style" and data.strip():
            self.lines.append(data.strip())
