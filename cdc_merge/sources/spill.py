"""Spill files: the rows of a large transaction, and its keyed changes in mapping, on disk instead of in memory.

Rules: the file has no name from its creation on (mode 0600), so it disappears with its last reader, whichever process dies;
nothing in it outlives its transaction. It is written front to back and read as often as needed.
"""

from __future__ import annotations

import os
import pickle
import struct
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

from cdc_merge.errors import CdcMergeError
from cdc_merge.model import Relation, RowChange
from cdc_merge.model.fast_new import fast_new

BLOCK_ROWS: Final = 1_000

_LENGTH: Final = struct.Struct("!Q")


class SpillFull(CdcMergeError):
    """A large transaction could not be spilled. Nothing of it was merged, and the server sends it again."""


class _File:
    """A descriptor that is closed with its last user."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    __del__ = close


class SpillFile:
    """Lists of values in a file in `directory` (None: the system's directory for temporary files), each in a bucket.

    Only our own data is ever read: lists of plain values, and of the model's. SpillFull when the disk is full.
    """

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._places: dict[int, array[int]] = {}
        self.size_bytes = 0
        try:
            with tempfile.TemporaryFile(dir=directory, prefix="cdc-merge-") as file:
                self._file = _File(os.dup(file.fileno()))
        except OSError as error:
            raise self._full(error) from error

    def put(self, bucket: int, items: Sequence[object]) -> None:
        """Write a list."""
        body = pickle.dumps(items, pickle.HIGHEST_PROTOCOL)
        rest = memoryview(_LENGTH.pack(len(body)) + body)
        self._places.setdefault(bucket, array("Q")).append(self.size_bytes)
        self.size_bytes += len(rest)
        try:
            while rest:
                rest = rest[os.write(self._file.descriptor, rest) :]
        except OSError as error:
            raise self._full(error) from error

    def read(self, bucket: int) -> Iterator[Any]:
        """The bucket's lists, in the order in which they were put."""
        for place in self._places.get(bucket, ()):
            yield _block(self._file.descriptor, place)[0]

    def share(self) -> int:
        """A descriptor of the file for another reader, who closes it."""
        return os.dup(self._file.descriptor)

    def close(self) -> None:
        self._file.close()

    def _full(self, error: OSError) -> SpillFull:
        where = self._directory or tempfile.gettempdir()
        return SpillFull(
            f"a large transaction could not be spilled to disk: {error.strerror}", hint=f"Make space in {where}."
        )


class SpilledRows(Sequence[RowChange]):
    """The rows of one transaction in a file: iterated over as often as needed, a block in memory at a time.

    An index reads from the beginning.
    """

    def __init__(self, descriptor: int, rows: int) -> None:
        self._file = _File(descriptor)
        self._rows = rows

    @property
    def descriptor(self) -> int:
        return self._file.descriptor

    @property
    def size_bytes(self) -> int:
        return os.fstat(self.descriptor).st_size

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[RowChange]:
        place, end = 0, self.size_bytes
        relations_by_value: dict[Relation, Relation] = {}
        while place < end:
            (relations, rows), place = _block(self.descriptor, place)
            # One object per relation: consumers compare relations by identity first.
            relations = [relations_by_value.setdefault(relation, relation) for relation in relations]
            for operation, relation, old, is_full, new, ordinal in rows:
                yield fast_new(RowChange, (operation, relations[relation], old, is_full, new, ordinal))

    @overload
    def __getitem__(self, index: int) -> RowChange: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RowChange]: ...
    def __getitem__(self, index: int | slice) -> RowChange | Sequence[RowChange]:
        return tuple(self)[index]


class RowSpill:
    """Collects the rows of one open transaction."""

    def __init__(self, directory: str | None = None) -> None:
        self._spill = SpillFile(directory)
        self._rows = 0

    def add(self, changes: Sequence[RowChange]) -> None:
        for start in range(0, len(changes), BLOCK_ROWS):
            numbers: dict[int, int] = {}
            relations: list[Relation] = []
            rows = []
            for operation, relation, old, is_full, new, ordinal in changes[start : start + BLOCK_ROWS]:
                number = numbers.get(id(relation))
                if number is None:
                    number = numbers[id(relation)] = len(relations)
                    relations.append(relation)
                rows.append((operation, number, old, is_full, new, ordinal))
            self._spill.put(0, (relations, rows))
        self._rows += len(changes)

    def finish(self) -> SpilledRows:
        """All rows; nothing can be added afterwards."""
        rows = SpilledRows(self._spill.share(), self._rows)
        self._spill.close()
        return rows


def _block(descriptor: int, place: int) -> tuple[Any, int]:
    """The list at `place`, and the place of the next one."""
    (length,) = _LENGTH.unpack(os.pread(descriptor, _LENGTH.size, place))
    start = place + _LENGTH.size
    body = b""
    while len(body) < length:  # one read gives at most 2 GB
        more = os.pread(descriptor, length - len(body), start + len(body))
        assert more, "a block is whole: it was written before its place was known"
        body += more
    return pickle.loads(body), start + length  # written by ourselves, into a file without a name
