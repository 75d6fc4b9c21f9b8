"""The crash tests happen where the scenarios do, and start sidecar processes as they do."""

from __future__ import annotations

from tests.system.scenarios.conftest import incident, site

__all__ = ["incident", "site"]
