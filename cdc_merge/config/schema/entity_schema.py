"""The schema of `entities:`: mappings, merge types, groups, checks and unique constraints."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema

from cdc_merge.config.schema.schema_types import Number, OneOrMany, Shape
from cdc_merge.model.plan import Severity


def _agreement(given: object) -> object:
    if isinstance(given, bool):
        return "on" if given else "off"
    if given == "past":
        return given
    raise ValueError("agreement is true, false or past")


def _wins(given: object) -> object:
    if given in ("add", "remove") or isinstance(given, bool):
        return given
    raise ValueError("wins is add or remove for a set, true or false for a flag")


def _order(given: object) -> object:
    ranked = isinstance(given, list) and all(isinstance(item, str) for item in given)
    graph = isinstance(given, dict) and all(isinstance(_as_list(next_), list) for next_ in given.values())
    if not given or not (ranked or graph):
        raise ValueError("order is a list of words, or for a lattice a mapping of each value to its successors")
    return given if ranked else {value: _as_list(after) for value, after in given.items()}  # type: ignore[attr-defined]  # checked above


def _as_list(given: object) -> object:
    return [given] if isinstance(given, str) else given


Agreement: TypeAlias = Annotated[
    Literal["on", "off", "past"], BeforeValidator(_agreement), WithJsonSchema({"enum": [True, False, "past"]})
]
Wins: TypeAlias = Annotated[
    str | bool, BeforeValidator(_wins), WithJsonSchema({"enum": ["add", "remove", True, False]})
]
Order: TypeAlias = Annotated[
    list[str] | dict[str, list[str]],
    BeforeValidator(_order),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
            ]
        }
    ),
]


class FromShape(Shape):
    """The mapping of one source's rows to records of the entity."""

    table: str = Field(
        min_length=1, description="schema.table; the schema is public when absent. Quote a part with a dot as in SQL."
    )
    key: OneOrMany = Field(min_length=1, description="The column of the business key, or its columns in order.")
    fields: dict[str, str] = Field(min_length=1, description="Field → column.")


class WritersShape(Shape):
    """The permitted writers of a field; a write of anyone else is a conflict `unauthorized`."""

    sources: list[str] | None = Field(default=None, description="The sources that may write it.")
    actors: list[str] | None = Field(
        default=None, description="The actors that may write it; an unknown actor may not."
    )


class MergeShape(Shape):
    """The merge type of a value and the type's own options."""

    merge: str = Field(
        default="mv",
        description="mv (raise a conflict), lww, priority, counter, max, min, set, map, flag, lattice, append or immutable.",
        json_schema_extra={
            "enum": [
                "mv",
                "lww",
                "priority",
                "counter",
                "max",
                "min",
                "set",
                "map",
                "flag",
                "lattice",
                "append",
                "immutable",
            ]  # fmt: skip
        },
    )
    normalize: list[str] = Field(default=[], description="Normalisations applied in order before values are compared.")
    severity: Severity = Field(default="medium", description="The severity of its conflicts.")
    agreement: Agreement = Field(
        default="on",
        description="Whether equal values count as having seen each other; past: earlier values too.",
        json_schema_extra={"default": True},
    )
    min: Number | None = Field(
        default=None, description="counter: the lower bound; a smaller value is a conflict `bound`."
    )
    max: Number | None = Field(
        default=None, description="counter: the upper bound; a larger value is a conflict `bound`."
    )
    separator: str | None = Field(default=None, min_length=1, description="set over text: the separator of elements.")
    wins: Wins | None = Field(default=None, description="set: add or remove; flag: true or false.")
    order: Order | None = Field(
        default=None,
        description="priority: sources, highest first. lattice: values, lowest first, or value → its successors.",
    )
    keys: dict[str, MergeShape] | None = Field(
        default=None, description="map: the merge types of single keys; other keys are mv."
    )


class FieldShape(MergeShape):
    """One field of an entity."""

    writers: WritersShape | None = Field(default=None, description="The permitted writers; all when absent.")


class GroupShape(Shape):
    """Several fields that merge as one value."""

    fields: list[str] = Field(min_length=2, description="The fields; a source maps all of them or none.")
    merge: str = Field(
        default="mv",
        description="mv, lww, priority or immutable.",
        json_schema_extra={"enum": ["mv", "lww", "priority", "immutable"]},
    )
    severity: Severity = Field(default="medium", description="The severity of its conflicts.")
    agreement: Agreement = Field(
        default="on",
        description="Whether equal values count as having seen each other.",
        json_schema_extra={"default": True},
    )
    order: Order | None = Field(default=None, description="priority: sources, highest first.")
    writers: WritersShape | None = Field(default=None, description="The permitted writers; all when absent.")


class CheckShape(Shape):
    """A condition that every merged record must satisfy."""

    name: str = Field(min_length=1, description="The name of the check in conflicts and reports.")
    expr: str = Field(min_length=1, description="A CEL expression over `record`.")
    severity: Severity = Field(default="medium", description="The severity of its conflicts.")


class UniqueShape(Shape):
    """Fields whose values no two existing records may share."""

    fields: OneOrMany = Field(min_length=1, description="The fields compared together.")
    normalize: list[str] = Field(default=[], description="Normalisations applied before they are compared.")
    when: str | None = Field(
        default=None, description="A CEL expression over `record`: applies to records where it is true."
    )
    severity: Severity = Field(default="medium", description="The severity of a duplicate.")


class EntityShape(Shape):
    """A kind of business object that several sources store."""

    from_: dict[str, FromShape] = Field(
        alias="from",
        min_length=1,
        description="Source → table, key and fields; the order ranks first-snapshot values.",
    )
    fields: dict[str, FieldShape] = Field(
        default={}, description="The merge types of fields; a mapped field that is not listed is mv."
    )
    groups: dict[str, GroupShape] = Field(default={}, description="Fields that merge as one value.")
    checks: list[CheckShape] = Field(default=[], description="Conditions that the merged record must satisfy.")
    unique: list[UniqueShape] = Field(default=[], description="Fields whose values must be unique.")
    deletes: Literal["review", "delete_wins", "update_wins", "local"] = Field(
        default="review", description="The effect of a delete that is concurrent with a write."
    )
    on_missing: Literal["ignore", "report"] = Field(
        default="ignore", description="report: count and list the records that a source lacks."
    )
