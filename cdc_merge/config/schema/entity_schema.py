"""The shape of `entities:`: where records come from, how their fields merge, what must hold of them."""

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
        raise ValueError("order is a list of words, or for a lattice a mapping of each value to those that follow it")
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
    """How one source's rows become records of the entity."""

    table: str = Field(min_length=1, description="schema.table; the schema is public when absent.")
    key: OneOrMany = Field(min_length=1, description="The business key's column, or columns in order.")
    fields: dict[str, str] = Field(min_length=1, description="Field → column.")


class WritersShape(Shape):
    """Who may write a field; anybody else's write is a conflict `unauthorized`."""

    sources: list[str] | None = Field(default=None, description="The sources that may write it.")
    actors: list[str] | None = Field(default=None, description="The actors who may write it; an unknown actor may not.")


class MergeShape(Shape):
    """How a value merges: the type and the type's own settings."""

    merge: str = Field(
        default="mv",
        description="mv (ask people), lww, priority, counter, max, min, set, map, flag, lattice, append or immutable.",
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
    severity: Severity = Field(default="medium", description="How grave a conflict on it is.")
    agreement: Agreement = Field(
        default="on",
        description="Whether equal values count as having seen each other; past: also values held earlier.",
        json_schema_extra={"default": True},
    )
    min: Number | None = Field(default=None, description="counter: the least value; less is a conflict `bound`.")
    max: Number | None = Field(default=None, description="counter: the greatest value; more is a conflict `bound`.")
    separator: str | None = Field(default=None, min_length=1, description="set over text: what separates elements.")
    wins: Wins | None = Field(default=None, description="set: add or remove; flag: true or false.")
    order: Order | None = Field(
        default=None,
        description="priority: sources, highest first. lattice: values, lowest first, or value → those that follow.",
    )
    keys: dict[str, MergeShape] | None = Field(default=None, description="map: how single keys merge; others are mv.")


class FieldShape(MergeShape):
    """One field of an entity."""

    writers: WritersShape | None = Field(default=None, description="Who may write it; everybody when absent.")


class GroupShape(Shape):
    """Several fields that merge as one value."""

    fields: list[str] = Field(min_length=2, description="The fields; a source maps all of them or none.")
    merge: str = Field(
        default="mv",
        description="mv, lww, priority or immutable.",
        json_schema_extra={"enum": ["mv", "lww", "priority", "immutable"]},
    )
    severity: Severity = Field(default="medium", description="How grave a conflict on it is.")
    agreement: Agreement = Field(
        default="on",
        description="Whether equal values count as having seen each other.",
        json_schema_extra={"default": True},
    )
    order: Order | None = Field(default=None, description="priority: sources, highest first.")
    writers: WritersShape | None = Field(default=None, description="Who may write it; everybody when absent.")


class CheckShape(Shape):
    """What must hold of every merged record."""

    name: str = Field(min_length=1, description="How the check is called in conflicts and reports.")
    expr: str = Field(min_length=1, description="A CEL expression over `record`.")
    severity: Severity = Field(default="medium", description="How grave it is when it fails.")


class UniqueShape(Shape):
    """Fields that no two living records may share."""

    fields: OneOrMany = Field(min_length=1, description="The fields compared together.")
    normalize: list[str] = Field(default=[], description="Normalisations applied before they are compared.")
    when: str | None = Field(default=None, description="A CEL expression over `record`; others are left alone.")
    severity: Severity = Field(default="medium", description="How grave a duplicate is.")


class EntityShape(Shape):
    """A kind of business object that several sources keep a copy of."""

    from_: dict[str, FromShape] = Field(
        alias="from",
        min_length=1,
        description="Source → table, key and fields; the order ranks first-snapshot values.",
    )
    fields: dict[str, FieldShape] = Field(
        default={}, description="How fields merge; a mapped field not listed here is mv."
    )
    groups: dict[str, GroupShape] = Field(default={}, description="Fields that merge as one value.")
    checks: list[CheckShape] = Field(default=[], description="Expressions that must hold of the merged record.")
    unique: list[UniqueShape] = Field(default=[], description="What no two records may share.")
    deletes: Literal["review", "delete_wins", "update_wins", "local"] = Field(
        default="review", description="What a delete means that a concurrent write opposes."
    )
    on_missing: Literal["ignore", "report"] = Field(
        default="ignore", description="Whether it is told, counted and listed which records a source lacks."
    )
