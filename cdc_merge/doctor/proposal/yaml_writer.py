"""The proposal as a configuration file with comments. Pure. No connection string and no value is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from cdc_merge.doctor.proposal.catalog_sample import EntityProposed, FieldProposed
from cdc_merge.doctor.proposal.similarity import words

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_WORDS_OF_YAML: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
COUNTED: Final = frozenset({"quantity", "point", "balance"})
HEAD: Final = """\
# Proposed by `cdc-merge init` from the sources' catalogs. Read it before you use it: names that are alike may
# mean different things, and every field asks people (merge: mv) until you say how it merges.
# Next: cdc-merge check-config; cdc-merge source grants; cdc-merge doctor
"""


def variable(source: str) -> str:
    """The environment variable for a source's connection string."""
    return re.sub(r"[^A-Za-z0-9]", "_", source).upper() + "_DSN"


def config_text(sources: Iterable[str], entities: Iterable[EntityProposed]) -> str:
    lines = [*HEAD.splitlines(), "", "sources:"]
    for source in sources:
        lines += [f"  {word(source)}:", "    type: postgres", f"    dsn: ${{{variable(source)}}}"]
    lines += ["", "entities:"]
    for entity in entities:
        lines += _entity(entity)
    return "\n".join(lines).rstrip() + "\n"


def word(text: str) -> str:
    """A word as YAML writes it: quoted wherever it could be read as something else."""
    if _PLAIN.match(text) and text.casefold() not in _WORDS_OF_YAML:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _entity(entity: EntityProposed) -> Iterator[str]:
    yield f"  # {entity.confidence:.0%} sure that these tables are about the same things"
    for doubt in entity.doubts:
        yield f"  # ATTENTION {_comment(doubt)}"
    yield f"  {word(entity.name)}:"
    yield "    from:"
    for source, table in entity.tables.items():
        fields = ", ".join(
            f"{word(field.name)}: {word(field.columns[source])}" for field in entity.fields if source in field.columns
        )
        yield f"      {word(source)}:"
        yield f"        table: {word(table.name)}"
        yield f"        key: {_key(entity.keys[source])}"
        yield f"        fields: {{ {fields} }}"
        unmapped = entity.unmapped(source)
        if unmapped:
            yield _comment(f"        # not mapped: {', '.join(unmapped)}")
    yield "    fields:"
    for field in entity.fields:
        yield f"      {word(field.name) + ': { merge: mv }':<40} # {_remark(field)}"
    yield ""


def _key(columns: tuple[str, ...]) -> str:
    return word(columns[0]) if len(columns) == 1 else f"[{', '.join(map(word, columns))}]"


def _comment(text: str) -> str:
    """On one line, whatever a name holds."""
    return text.replace("\n", " ").replace("\r", " ")


def _remark(field: FieldProposed) -> str:
    alone = len(field.columns) == 1
    sure = "one source only" if alone else f"{field.confidence:.0%} sure"
    return "; ".join(part for part in (sure, _merge(field)) if part)


def _merge(field: FieldProposed) -> str:
    """Which merge type to think about: never chosen for people, since only they know what the applications do."""
    meaning = words(field.name)
    if field.value_type in ("integer", "decimal") and meaning & COUNTED:
        return "if applications add and subtract: merge: counter"
    if "tag" in meaning or field.value_type == "array":
        return 'if it is a list of words: merge: set, with separator: ";" over text'
    if field.value_type in ("date", "timestamp") and "last" in meaning:
        return "if the latest holds: merge: max"
    if field.value_type == "boolean":
        return "if one answer outweighs the other: merge: flag, wins: true"
    if "remark" in meaning:
        return "if the last one may win: merge: lww"
    return "normalize: [digits]" if "phone" in meaning else ""
