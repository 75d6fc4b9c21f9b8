"""YAML → frozen settings; all problems in one report, each with its path and a suggestion.

yaml_source.py parses the text, schema/ validates types and keys, checks/ validates the meaning, settings_builder.py and
plan_builder.py build the settings. No connection is opened; only the file and its `dsn_file`s are read.
"""

from __future__ import annotations

from cdc_merge.config.load import load
from cdc_merge.config.settings import Settings

__all__ = ["Settings", "load"]
