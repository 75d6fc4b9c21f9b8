"""The schemas of the JSON documents (contract: JSON): JSON Schema files are generated from these models.

Documents that we send may get more keys, so extra keys are allowed there; documents that we receive are strict.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cdc_merge.model.plan import Severity

FieldValue: TypeAlias = Any
"""A value: integer, float, boolean, json, array natively; a decimal or a large integer as text; NULL as null."""

Kind: TypeAlias = Literal[
    "concurrent_update",
    "concurrent_insert",
    "update_delete",
    "key_change",
    "duplicate",
    "divergence",
    "unauthorized",
    "business_rule",
    "invariant",
    "bound",
    "unknown_base",
    "anomaly",
    "schema_drift",
]


class Sent(BaseModel):
    """A document that we send: keys may be added."""

    model_config = ConfigDict(extra="allow", strict=True)


class PlaceDocument(Sent):
    """The identity of a change: its place in its source."""

    system: str = Field(description="The server's system identifier.")
    timeline: int = Field(description="The timeline that wrote the LSN.")
    lsn: str = Field(description="End of the commit.", examples=["0/16B3748"])
    table: str = Field(description="schema.table at the source.")
    ordinal: int = Field(description="Number of the change among the transaction's changes of that table, from 0.")


class CandidateDocument(Sent):
    """One candidate value of a conflict."""

    source: str = Field(description="The source that holds or wrote the value.")
    value: FieldValue = Field(default=None, description="The value; null for NULL and for a delete, absent for none.")
    delta: FieldValue = Field(default=None, description="counter: the writer's increment.")
    stamp: str = Field(description="<wall_us>.<counter>@<source>")
    committed_at: str = Field(description="ISO 8601, UTC, microseconds; the source's own clock.")
    actor: str | None = Field(description="The person or job that wrote it; null if unknown.")
    place: PlaceDocument
    seen: list[str] = Field(description="Stamps of the writes that the writer had seen.")
    key: str | None = Field(default=None, description="duplicate: the key of the record that the candidate belongs to.")


class SuggestionDocument(Sent):
    """The likely decision."""

    choose: str
    confidence: float = Field(ge=0, le=1)
    reason: str


class ConflictDocument(Sent):
    """A conflict that needs a decision."""

    id: str
    entity: str
    key: str = Field(description="The business key; parts percent-encoded and joined by a comma.")
    field: str | None = Field(description="null for a group and for a conflict about the whole row.")
    group: str | None
    kind: Kind
    severity: Severity
    labels: list[str]
    status: Literal["settling", "open", "closed"]
    revision: int = Field(ge=1, description="Increases with new evidence; a decision refers to one revision.")
    resolution: Literal["auto", "decided", "converged", "dismissed", "superseded"] | None
    raised_at: str
    announced_at: str | None
    closed_at: str | None
    rule: str | None = Field(description="The rule or check that raised it.")
    policy: str = Field(pattern="^sha256:[0-9a-f]{64}$", description="Digest of the configuration that raised it.")
    base: FieldValue = Field(
        default=None, description="The value that all candidates had seen; absent if there is none."
    )
    provisional: FieldValue = Field(default=None, description="The merged value until a decision.")
    records: list[str] = Field(default=[], description="duplicate: the keys of all the records, in order.")
    suggestion: SuggestionDocument | None = None
    candidates: list[CandidateDocument]


class SourceViewDocument(Sent):
    """The record as one source holds it."""

    presence: Literal["unknown", "present", "deleted"]
    values: dict[str, FieldValue] = Field(description="Unknown fields are left out.")
    last_stamp: str | None


class RecordConflictDocument(Sent):
    """A conflict of a record, in short."""

    id: str
    field: str | None
    kind: Kind
    records: list[str] = Field(default=[], description="duplicate: the keys of all the records, in order.")


class RecordDocument(Sent):
    """The merged record, and each source's view of it."""

    entity: str
    key: str
    as_of: str | None = Field(description="The requested stamp or time; null is now.")
    deleted: bool
    merged: dict[str, FieldValue] = Field(description="One value per field; unknown fields are left out.")
    sources: dict[str, SourceViewDocument]
    missing: list[str] = Field(
        default=[], description="on_missing: report: the sources at which the record is missing."
    )
    conflicts: list[RecordConflictDocument]


class Received(BaseModel):
    """A document that we receive: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RowChangeDocument(Received):
    """One change of one row, pushed by its source system."""

    id: str = Field(min_length=1, description="Unique per source: a change with a repeated id is dropped.")
    table: str = Field(description="The table that the configuration maps.")
    operation: Literal["insert", "update", "delete", "snapshot"]
    key: dict[str, FieldValue] = Field(description="Key column → value.")
    before: dict[str, FieldValue] | None = Field(default=None, description="The row before; absent means unknown.")
    after: dict[str, FieldValue] | None = Field(default=None, description="The row after; absent for a delete.")
    committed_at: str = Field(description="ISO 8601 with a time zone.")
    actor: str | None = Field(default=None, description="The person or job that made the change.")
    copy_: bool = Field(default=False, alias="copy", description="Whether it only repeats another source's write.")


class ChangeDocument(Received):
    """The body of POST /api/v1/sources/NAME/changes: all changes are saved or none."""

    changes: list[RowChangeDocument] = Field(min_length=1)


class DemoSource(Sent):
    changes: int = Field(ge=0, description="Row changes read from this source.")


class Seconds(Sent):
    p50: float | None = Field(description="Median; null when nothing was measured.")
    p99: float | None


class Verified(Sent):
    """The demo's comparison with what its simulated users did."""

    records_checked: int = Field(ge=0)
    mismatches: int = Field(ge=0)
    conflicts_missed: int = Field(ge=0)
    conflicts_unplanned: int = Field(ge=0)


class DemoSummary(Sent):
    """The output of `cdc-merge demo --output json`."""

    sources: dict[str, DemoSource]
    records: int = Field(ge=0)
    merged_automatically: int = Field(ge=0, description="Concurrent writes merged without a conflict.")
    conflicts: dict[str, int] = Field(description="Conflicts by kind.")
    detection_seconds: Seconds = Field(description="Commit at the source → merged and durable.")
    verified: Verified
