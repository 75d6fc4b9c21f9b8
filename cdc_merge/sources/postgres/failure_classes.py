"""The class of the failure that ended an attempt to read a source: a closed list, for metrics. Pure."""

from __future__ import annotations

from typing import Final

from cdc_merge.errors import CdcMergeError, ProtocolError, SourceRefused, SourceUnavailable
from cdc_merge.sources.postgres.resume_checks import LOST
from cdc_merge.sources.postgres.sqlstates import VALUE_UNREADABLE
from cdc_merge.sources.spill import SpillFull

CONNECTION: Final = "connection"
PROTOCOL: Final = "protocol"
PROCESS: Final = "process"
POSITION: Final = "position"
DISK: Final = "disk"
CONFIGURATION: Final = "configuration"
INTERNAL: Final = "internal"

_BY_PROBLEM: Final = {
    **dict.fromkeys(LOST, POSITION),
    "tls": "tls",
    "authentication": "authentication",
    "not_permitted": "permission",
    "stream_unreadable": PROTOCOL,
    VALUE_UNREADABLE: "server",
    "reader_failed": INTERNAL,
}
_BY_SQLSTATE: Final = {
    "08P01": PROTOCOL,
    "08": CONNECTION,
    "53": "resources",
    "55": "in_use",
    "57": "shutdown",
}
"""By SQLSTATE or its class (Postgres docs, appendix A)."""


def failure_class(error: CdcMergeError) -> str:
    """connection, protocol, tls, authentication, permission, position, configuration, in_use, resources, shutdown, disk,
    server or internal. `server` is any other SQLSTATE."""
    if isinstance(error, ProtocolError):
        return PROTOCOL
    if isinstance(error, SpillFull):
        return DISK
    if isinstance(error, SourceRefused):
        return _BY_PROBLEM.get(error.problem, CONFIGURATION)
    if not isinstance(error, SourceUnavailable):
        return INTERNAL
    sqlstate = error.sqlstate
    if sqlstate is None:
        return CONNECTION
    return _BY_SQLSTATE.get(sqlstate) or _BY_SQLSTATE.get(sqlstate[:2]) or "server"
