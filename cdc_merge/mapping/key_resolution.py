"""Key resolution: replica identity → business key. This is the only place where a row change gets its record key.

The way there has two steps: `mapper.py` calls `resolve_keys` for every row change; it answers with `RowKeys` or raises.

- The business key is in the message when the replica identity contains it or the old row is complete (REPLICA IDENTITY
  FULL): it is read from the TupleData.
- Otherwise (a surrogate `id`) it is looked up by replica identity, among the identities remembered from snapshots, inserts
  and earlier changes (semantics §4).
- Without an answer: UnknownIdentity. The change is quarantined (unresolved_rows.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from cdc_merge.errors import UnreadableValue
from cdc_merge.mapping.relation import RelationMapping
from cdc_merge.model import UNCHANGED, UNKNOWN, RawValue, RowChange, Unknown
from cdc_merge.model.fast_new import fast_new
from cdc_merge.values.keys import KeyReader

KeyLookup: TypeAlias = Callable[[str, str], "str | None"]
"""(label of the table, replica identity) → business key; None: not remembered."""

RowValues: TypeAlias = "tuple[RawValue, ...]"


class UnknownIdentity(UnreadableValue):
    """The business key of a row was neither sent nor remembered for its replica identity. Both identities, before and after
    the change (None: the row is deleted)."""

    def __init__(self, identity_before: str, identity_after: str | None) -> None:
        super().__init__(
            "unknown identity: the business key of this row was never seen",
            hint="The change is quarantined until a snapshot (source resync), an insert or a full old row resolves the key.",
        )
        self.identity_before, self.identity_after = identity_before, identity_after


def fill_unchanged(old: RowValues | None, new: RowValues) -> RowValues:
    """A row after a change, its unchanged TOASTed values taken from the old row where there is one."""
    if old is None or UNCHANGED not in new:
        return new
    return tuple(was if value is UNCHANGED else value for was, value in zip(old, new, strict=True))


class RowKeys(NamedTuple):
    """Business key and replica identity of a row, before and after a change; None: no such row, or a NULL in its key."""

    key_before: str | None
    key_after: str | None
    identity_before: str | None
    identity_after: str | None


def resolve_keys(mapping: RelationMapping, change: RowChange, key_of: KeyLookup) -> RowKeys:
    """The keys of any change but a truncate. UnknownIdentity: quarantine it; UnreadableValue: park it."""
    return _KEYS_OF[change.operation](mapping, change, key_of)


def identity_to_look_up(mapping: RelationMapping, change: RowChange) -> str | None:
    """The replica identity whose business key `resolve_keys` will look up; None when the message contains the key."""
    if not mapping.needs_lookup or change.old_is_full or change.operation not in ("update", "delete"):
        return None
    values = change.old if change.old is not None else change.new
    return None if values is None else _identity_from(mapping, values)


def _keys_of_insert(mapping: RelationMapping, change: RowChange, key_of: KeyLookup) -> RowKeys:
    values = _required_row(change.new)
    key = _key_from(mapping.key, values)
    identity = _identity_from(mapping, values) if mapping.has_own_identity else key
    return RowKeys(None, key, None, identity)


def _keys_of_update(mapping: RelationMapping, change: RowChange, key_of: KeyLookup) -> RowKeys:
    old, new = change.old, _required_row(change.new)
    if mapping.needs_lookup and not change.old_is_full:
        return _keys_of_looked_up_update(mapping, old, new, key_of)
    if old is None or mapping.identifying_values(old) == mapping.identifying_values(new):
        after = mapping.key(new)
        if after is UNKNOWN:
            raise _key_not_sent()
        identity = _identity_from(mapping, new) if mapping.has_own_identity else after
        return fast_new(RowKeys, (after, after, identity, identity))
    new = fill_unchanged(old, new)
    before, after = _key_from(mapping.key, old), _key_from(mapping.key, new)
    if not mapping.has_own_identity:
        return RowKeys(before, after, before, after)
    return RowKeys(before, after, _identity_from(mapping, old), _identity_from(mapping, new))


def _keys_of_looked_up_update(
    mapping: RelationMapping, old: RowValues | None, new: RowValues, key_of: KeyLookup
) -> RowKeys:
    identity_after = _identity_from(mapping, new)
    identity_before = identity_after if old is None else _identity_from(mapping, old)
    before = key_of(mapping.label, identity_before)
    after = mapping.key(new)
    if isinstance(after, Unknown):
        after = before
        if before is None:
            raise UnknownIdentity(identity_before, identity_after)
    # An identity that is not remembered: the new key is all that is known of the row.
    return RowKeys(after if before is None else before, after, identity_before, identity_after)


def _keys_of_delete(mapping: RelationMapping, change: RowChange, key_of: KeyLookup) -> RowKeys:
    values = _required_row(change.old)
    if not mapping.needs_lookup or change.old_is_full:
        key = _key_from(mapping.key, values)
        return RowKeys(key, None, _identity_from(mapping, values) if mapping.has_own_identity else key, None)
    identity = _identity_from(mapping, values)
    before = key_of(mapping.label, identity)
    if before is None:
        raise UnknownIdentity(identity, None)
    return RowKeys(before, None, identity, None)


_KEYS_OF: Final = {
    "insert": _keys_of_insert,
    "snapshot": _keys_of_insert,
    "update": _keys_of_update,
    "delete": _keys_of_delete,
}


def _required_row(values: RowValues | None) -> RowValues:
    if values is None:
        raise UnreadableValue("the source sent no row with this change", hint="Check the table's replica identity.")
    return values


def _key_from(read: KeyReader, values: RowValues) -> str | None:
    key = read(values)
    if isinstance(key, Unknown):
        raise _key_not_sent()
    return key


def _key_not_sent() -> UnreadableValue:
    return UnreadableValue(
        "a key column was not sent (an unchanged TOASTed value)",
        hint="Put the key into the table's replica identity, or set REPLICA IDENTITY FULL.",
    )


def _identity_from(mapping: RelationMapping, values: RowValues) -> str:
    identity = _key_from(mapping.identity, values)
    if identity is None:
        raise UnreadableValue("a column of the replica identity is NULL", hint="Check the table's replica identity.")
    return identity
