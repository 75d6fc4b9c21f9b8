"""The claim: an advisory lock on a file beside the database, so that one worker writes at a time.

Rules: the operating system releases it when its owner dies, however it dies; the file itself stays, empty while no
process has the lock. `flock` belongs to the open file, so two stores of one process exclude each other as well.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cdc_merge.errors import StoreUnavailable


class LockFile:
    """One attempt to lock `path`. StoreUnavailable, with the holder, if another process has the lock."""

    def __init__(self, path: Path, owner: str) -> None:
        self.owner = owner
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreUnavailable(
                f"the lock file {path} cannot be opened: {error.strerror}",
                hint="Create its directory and let the user that runs cdc-merge write there.",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 200, 0).decode(errors="replace").strip() or "a process that just started"
            os.close(self._file)
            raise StoreUnavailable(
                f"the store is held by {holder} (lock file {path})",
                hint="Stop that process first, or configure another store; the lock of a dead process is already released.",
            ) from error
        except OSError as error:
            os.close(self._file)
            raise StoreUnavailable(
                f"the lock file {path} cannot be locked: {error.strerror}",
                hint="Put the store on a local disk; network file systems may not support locks.",
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} ({owner})\n".encode(), 0)

    def release(self) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)
