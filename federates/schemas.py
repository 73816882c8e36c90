"""The messages between operators as JSON Schema, for programs that are not ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from voltier.agents.messages import SCHEMA_VERSION, AnyMessage, Array, Index
from voltier.federates.wiring import unit_of


def message_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each message type by its name; numbers carry their unit as "unit"."""
    kinds = get_args(AnyMessage)
    _, components = msgspec.json.schema_components(kinds, schema_hook=_array_schema)
    found = {}
    for kind in kinds:
        schema = components[kind.__name__]
        for field in msgspec.structs.fields(kind):
            place = schema["properties"][field.name]
            if field.type in (Array, Index):
                place["items"] = _items(field.name, field.type == Index)
            if unit := unit_of(field.name):
                place["unit"] = unit
        schema["properties"]["version"] = {"const": SCHEMA_VERSION, "default": SCHEMA_VERSION}
        found[kind.__name__] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return found


def _items(name: str, whole: bool) -> dict[str, Any]:
    """Return the schema of one entry of an array: a number, or the three phases of a row."""
    number = {"type": "integer" if whole else "number"}
    if "_phase_" in name:
        return {"type": "array", "items": number, "minItems": 3, "maxItems": 3}
    return number


def write_schemas(folder: Path) -> list[Path]:
    """Write a file for each message type."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, schema in message_schemas().items():
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths


def _array_schema(_: Any) -> dict[str, Any]:
    return {"type": "array"}
