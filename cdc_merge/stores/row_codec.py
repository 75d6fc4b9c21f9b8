"""The stored form of checkpoints and conflicts; changes as in `change_codec`, whose rules hold here too."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from cdc_merge.history.change_codec import FORMAT, Pack, damaged, decode_change, packer, unpacked
from cdc_merge.history.change_codec import encode_change as encoded
from cdc_merge.model import Candidate, Change, Conflict, DetectedConflict, Place, Stamp

__all__ = [
    "FORMAT",
    "decode_checkpoint",
    "decode_change",
    "decode_conflict",
    "encode_checkpoint",
    "encode_change",
    "encode_conflict",
]


class _Packing(threading.local):
    def __init__(self) -> None:
        self.pack: Pack = packer()


_packing: Final = _Packing()


def encode_change(change: Change) -> bytes:
    """As `change_codec.encode_change`, from any thread."""
    return encoded(change, _packing.pack)


# ---------------------------------------------------------------- checkpoints


def encode_checkpoint(number: int, policy: str, tree: Sequence[Any]) -> bytes:
    """A checkpoint's tree (merge/checkpoint.py: lists and tuples of model values), its number and its policy."""
    return _packing.pack([FORMAT, number, policy, tree])


def decode_checkpoint(body: bytes) -> tuple[int, str, tuple[Any, ...]]:
    """Number, policy and tree, lists as tuples. StoreUnavailable if the body cannot be read."""
    try:
        number, policy, tree = unpacked(body)
    except ValueError as error:
        raise damaged(body) from error
    return number, policy, tree


# ---------------------------------------------------------------- conflicts


def encode_conflict(conflict: Conflict) -> bytes:
    """A conflict with its detection and candidates."""
    return _packing.pack(
        [
            FORMAT,
            conflict.id,
            _detected_items(conflict.detected),
            conflict.status,
            conflict.revision,
            conflict.raised_us,
            conflict.announced_us,
            conflict.closed_us,
            conflict.resolution,
            conflict.labels,
            conflict.policy,
        ]
    )


def decode_conflict(body: bytes) -> Conflict:
    """The conflict of a body. StoreUnavailable if it cannot be read."""
    try:
        conflict_id, detected, *lifecycle = unpacked(body)
        return Conflict(conflict_id, _detected(detected), *lifecycle)
    except (ValueError, TypeError, IndexError) as error:
        raise damaged(body) from error


def _detected_items(detected: DetectedConflict) -> list[object]:
    return [
        detected.entity,
        detected.key,
        detected.field,
        detected.group,
        detected.kind,
        detected.severity,
        [_candidate_items(candidate) for candidate in detected.candidates],
        detected.base,
        detected.provisional,
        detected.labels,
        detected.rule,
        detected.records,
    ]


def _detected(items: tuple[Any, ...]) -> DetectedConflict:
    entity, key, field, group, kind, severity, candidates, *rest = items
    candidates = tuple(_candidate(each) for each in candidates)
    return DetectedConflict(entity, key, field, group, kind, severity, candidates, *rest)


def _candidate_items(candidate: Candidate) -> list[object]:
    return [
        candidate.source,
        candidate.value,
        candidate.stamp,
        candidate.committed_us,
        candidate.actor,
        candidate.place,
        candidate.seen,
        candidate.delta,
        candidate.key,
    ]


def _candidate(items: tuple[Any, ...]) -> Candidate:
    source, value, stamp, committed_us, actor, place, seen, *rest = items
    seen = tuple(Stamp(*each) for each in seen)
    return Candidate(source, value, Stamp(*stamp), committed_us, actor, Place(*place), seen, *rest)
