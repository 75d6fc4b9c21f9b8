"""The name of a table in the file: `schema.table`, each part quoted as in SQL where it holds a dot. Pure.

Inside, a table is `schema.table` without quotes, as the catalogs' queries join it; its schema is kept beside it only where
the first dot does not end it. An unquoted part keeps its case: it is no SQL identifier that the server folds.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_PART: Final = r'(?:"((?:[^"]|"")+)"|([^".][^.]*))'
_NAME: Final = re.compile(rf"(?:{_PART}\.)?{_PART}")


class TableName(NamedTuple):
    schema: str
    name: str

    @property
    def plain(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def written(self) -> str:
        """The name as the file has it."""
        return ".".join(map(_quoted, self))


def parse(text: str) -> TableName | None:
    """The schema (public when absent) and the name; None when the text is not `schema.table`."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    quoted_schema, schema, quoted_name, name = match.groups()
    return TableName(_unquoted(quoted_schema) or schema or "public", _unquoted(quoted_name) or name)


def _unquoted(part: str | None) -> str:
    return (part or "").replace('""', '"')


def _quoted(part: str) -> str:
    return '"' + part.replace('"', '""') + '"' if "." in part or part.startswith('"') else part
