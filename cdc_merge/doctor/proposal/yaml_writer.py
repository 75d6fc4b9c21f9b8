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
# Proposed by `cdc-merge init` from the sources' catalogs. Review it before use: similar names may mean different
# things, and every field raises conflicts (merge: mv) until you set its merge type.
# Next: cdc-merge check-config; cdc-merge source grants; cdc-merge doctor
"""


def variable(source: str) -> str:
    """The environment variable for a source's connection string."""
    return re.sub(r"[^A-Za-z0-9]", "_", source).upper() + "_DSN"


def config_text(sources: Iterable[str], entities: Iterable[EntityProposed], left_out: Iterable[str] = ()) -> str:
    lines = [*HEAD.splitlines(), "", "sources:"]
    for source in sources:
        lines += [f"  {word(source)}:", "    type: postgres", f"    dsn: ${{{variable(source)}}}"]
    lines += ["", "entities:"]
    for entity in entities:
        lines += _entity(entity)
    lines += [_comment(f"# left out: {sentence}") for sentence in left_out]
    return "\n".join(lines).rstrip() + "\n"


def word(text: str) -> str:
    """A word in YAML: quoted where it would otherwise be parsed as something else."""
    if _PLAIN.match(text) and text.casefold() not in _WORDS_OF_YAML:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _entity(entity: EntityProposed) -> Iterator[str]:
    yield f"  # confidence that these tables match: {entity.confidence:.0%}"
    for doubt in entity.doubts:
        yield f"  # ATTENTION {_comment(doubt)}"
    yield f"  {word(entity.name)}:"
    yield "    from:"
    for source, table in entity.tables.items():
        fields = ", ".join(
            f"{word(field.name)}: {word(field.columns[source])}" for field in entity.fields if source in field.columns
        )
        yield f"      {word(source)}:"
        yield f"        table: {word(table.schema_and_name.written)}"
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
    """The text on one line, whatever characters a name has."""
    return text.replace("\n", " ").replace("\r", " ")


def _remark(field: FieldProposed) -> str:
    confidence = "one source only" if len(field.columns) == 1 else f"confidence {field.confidence:.0%}"
    return "; ".join(part for part in (confidence, _suggested_merge(field)) if part)


def _suggested_merge(field: FieldProposed) -> str:
    """A merge type to consider: never set automatically, since it depends on the applications."""
    meaning = words(field.name)
    if field.value_type in ("integer", "decimal") and meaning & COUNTED:
        return "if applications add and subtract: merge: counter"
    if "tag" in meaning or field.value_type == "array":
        return 'if it is a list: merge: set, for text with separator: ";"'
    if field.value_type in ("date", "timestamp") and "last" in meaning:
        return "if the latest wins: merge: max"
    if field.value_type == "boolean":
        return "if one value always wins: merge: flag, wins: true"
    if "remark" in meaning:
        return "if the last write may win: merge: lww"
    return "normalize: [digits]" if "phone" in meaning else ""
