"""JSON Schemas as text: types and examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def resolve(document: Mapping[str, Any], schema: Schema) -> Schema:
    """Return the schema that a reference names, or the schema itself."""
    if "$ref" not in schema:
        return schema
    found: Schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def type_of(schema: Schema) -> str:
    """Return a type as text, such as "integer, 1 to 500" or "Charge[]". A referenced schema is its name."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(type_of(each) for each in schema[union])
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " or ".join(f'"{each}"' for each in schema["enum"])
    if schema.get("type") == "array":
        return f"{type_of(schema['items'])}[]"
    return str(schema.get("format") or schema.get("type", "any")) + _bounds(schema)


def example_of(document: Mapping[str, Any], schema: Schema) -> Any:
    """Return the schema's own example, or one composed from its parts."""
    schema = resolve(document, schema)
    own: list[Any] = (
        schema.get("examples") or schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    )
    choices: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    if own or choices:
        return own[0] if own else example_of(document, choices[0])
    if schema.get("type") == "array":
        return [example_of(document, schema["items"])]
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: example_of(document, each) for name, each in properties.items()}
    return {"integer": 0, "boolean": False}.get(schema.get("type", ""), "...")


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    if low is not None:
        return f", at least {low:,}"
    longest = schema.get("maxLength")
    return f", at most {longest} characters" if longest else ""
