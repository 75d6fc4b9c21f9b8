"""JSON Schemas, generated from the pydantic models: `python -m cdc_merge.cli.schema_export DIRECTORY` writes them all.

A test compares the committed files with what this module generates.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from cdc_merge.config.schema.file_schema import ConfigShape
from cdc_merge.queries.document_schemas import ChangeDocument, ConflictDocument, DemoSummary, RecordDocument

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

SCHEMAS: Final[Mapping[str, type[BaseModel]]] = {
    "config": ConfigShape,
    "change": ChangeDocument,
    "record": RecordDocument,
    "conflict": ConflictDocument,
    "demo-summary": DemoSummary,
}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of that name; KeyError for any other."""
    return {"$schema": DIALECT} | SCHEMAS[name].model_json_schema(by_alias=True)


def main(directory: Path) -> None:
    """Write every schema as NAME.schema.json."""
    directory.mkdir(exist_ok=True)
    for name in SCHEMAS:
        text = json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"
        (directory / f"{name}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
