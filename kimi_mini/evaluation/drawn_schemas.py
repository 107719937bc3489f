"""Schemas of arguments, drawn: nested objects, lists, choices, bounds, patterns, formats, optional fields, a tree."""

from __future__ import annotations

import random
from collections.abc import Callable

from kimi_mini.worlds.base import invented

PATTERNS = {  # with examples, for whoever has to write one
    "^[a-z]{2,6}$": ["ab", "kimi"],
    "^[A-Z]{3}-[0-9]{2,4}$": ["ABC-12", "XYZ-9999"],
    "^#[0-9a-f]{6}$": ["#00ff7f", "#123456"],
    "^(low|high)_\\d+$": ["low_1", "high_23"],
}
FORMATS = {"date": ["2025-11-06"], "uuid": ["123e4567-e89b-12d3-a456-426614174000"], "ipv4": ["10.0.0.1"]}


def drawn_parameters(rng: random.Random) -> dict:
    """The schema of a tool's arguments: one to four fields, nested up to three deep, some of them optional."""
    schema = _object(rng, 2)
    if rng.random() < 0.3:  # a tree, which refers to itself
        name = "node"
        schema["$defs"] = {name: _object(rng, 0)}
        branches = {"type": "array", "items": {"$ref": f"#/$defs/{name}"}, "maxItems": 2}
        schema["$defs"][name]["properties"]["branches"] = branches
        schema["properties"]["tree"] = {"$ref": f"#/$defs/{name}"}
        if rng.random() < 0.5:
            schema["required"].append("tree")
    return schema


def _object(rng: random.Random, depth: int) -> dict:
    names = invented(rng, rng.randint(1, 4))
    properties = {name: _value(rng, depth) for name in names}
    required = [name for name in names if rng.random() < 0.7]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _value(rng: random.Random, depth: int) -> dict:
    makers: list[Callable[[random.Random], dict]] = [_string, _string, _integer, _number, _choice]
    if depth:
        makers += [lambda rng: _object(rng, depth - 1), lambda rng: _array(rng, depth - 1)]
    schema = rng.choice(makers)(rng)
    return {"anyOf": [schema, {"type": "null"}]} if rng.random() < 0.1 else schema


def _string(rng: random.Random) -> dict:
    kind = rng.random()
    if kind < 0.5:
        least = rng.choice([0, 0, 1, 3])
        return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 12)}
    name, known = ("pattern", PATTERNS) if kind < 0.8 else ("format", FORMATS)
    chosen = rng.choice(sorted(known))
    return {"type": "string", name: chosen, "examples": known[chosen]}


def _integer(rng: random.Random) -> dict:
    low = rng.randint(-100, 1000)
    schema = {"type": "integer", "minimum": low, "maximum": low + rng.randint(10, 500)}
    return schema | ({"multipleOf": rng.choice([2, 5, 7])} if rng.random() < 0.3 else {})


def _number(rng: random.Random) -> dict:
    low = rng.randint(-50, 50) / 4
    least = rng.choice(["minimum", "exclusiveMinimum"])
    most = rng.choice(["maximum", "exclusiveMaximum"])
    bounds = {least: low, most: low + rng.randint(2, 80) / 4}
    return {"type": "number"} | (bounds if rng.random() < 0.7 else {least: low})


def _choice(rng: random.Random) -> dict:
    kind = rng.random()
    if kind < 0.3:
        return {"type": "boolean"}
    if kind < 0.4:
        return {"const": rng.choice(["v1", 7, None, "é"])}
    return {"enum": [*invented(rng, rng.randint(2, 5)), rng.choice([0, True, 'a "b"'])]}


def _array(rng: random.Random, depth: int) -> dict:
    least = rng.randint(0, 2)
    return {
        "type": "array",
        "items": _value(rng, depth),
        "minItems": least,
        "maxItems": least + rng.randint(0, 2),
    }
