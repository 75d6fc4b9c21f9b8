"""YAML → frozen settings; all problems in one report, each with its place and a suggestion.

tree.py reads the text, shape*.py say what it may look like, checks*.py what it must mean, building.py and plan_of.py
make the settings. Opens no connection; reads only the file itself and those that it names for connection strings.
"""

from __future__ import annotations

from cdc_merge.config.load import load
from cdc_merge.config.settings import Settings

__all__ = ["Settings", "load"]
