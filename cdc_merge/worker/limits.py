"""The limits of one worker, as one value: the app passes it, tests pass smaller ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    batch_rows: int = 8_000
    """Row changes per batch and source: large enough to share one fsync, small enough that a batch takes well under a second."""

    large_rows: int = 16_000
    """A transaction of more rows is mapped in pieces: twice what a batch takes, since each record may cost 10 kB."""

    piece_rows: int = 8_000
    """Rows of a large transaction that are mapped at a time."""

    bucket_rows: int = 4_000
    """Rows per bucket when a large transaction is sorted by record on disk."""

    page_records: int = 1_000
    """Records read at a time, where many have to be visited: a truncated table, passed deadlines, moved rows."""

    reevaluated_records: int = 200
    """Records re-evaluated per batch. Each may have to be folded from its checkpoint, about a millisecond."""

    cached_records: int = 20_000
    """About 10 kB a record of ten fields: 200 MB. A record beyond it costs one read of its history when it changes again."""

    checkpoint_after: int = 128
    """Changes after which a cached record gets a checkpoint. Making one costs as much as folding about ten changes; a restart
    then folds at most so many again."""

    checkpoint_when_read: int = 16
    """A record that had to be read gets a checkpoint when more changes than this were folded."""


DEFAULT_LIMITS = Limits()
