"""What a JSON schema must be for a grammar to hold arguments to it, word for word.

llguidance turns a schema into a grammar. What it does not know it refuses, or passes over in silence: a misspelt
keyword, OpenAPI's `nullable`, `format` of a number. And some of what it knows it reads otherwise than the checker
(jsonschema, which reads patterns as Python does and numbers as floats). Here everything that would not be kept is
refused, in a line that names the keyword and its place. A format is kept, though to JSON schema it is only a hint; and
the `$` of a pattern is the end of the text, as JSON schema has it, while Python lets a line end pass behind it.

What is admitted of a value is one spelling: JSON without spaces, keys in the order of the schema, numbers without an
exponent (Python reads 1e999 as infinite) and between -1e15 and 1e15 where they may have a fraction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from kimi_mini.base.errors import KimiError
from kimi_mini.worlds.tools.schema import compile_schema

LARGEST = 1e15  # of a number that may have a fraction: the grammar of a range has no exponents
FORMATS = frozenset("date date-time time duration email hostname ipv4 ipv6 uuid uri".split())

_MAPS, _LISTS, _INNER = (
    ("properties", "$defs", "definitions"),
    ("anyOf", "oneOf", "allOf", "prefixItems"),
    ("items", "additionalProperties"),
)
_KEPT = frozenset(
    "type enum const required minItems maxItems minLength maxLength pattern format minimum maximum "
    "exclusiveMinimum exclusiveMaximum multipleOf $ref".split()
).union(_MAPS, _LISTS, _INNER)
_SAYS_NOTHING = frozenset(
    "title description default examples deprecated readOnly writeOnly $comment $schema".split()
)
_ELSEWHERE = frozenset("$ref anyOf oneOf allOf enum const".split())  # there it is said what the value is

# Rust's regular expressions against Python's: words that only one of them has, or that mean another thing there
_READ_OTHERWISE = re.compile(
    r"\\[DWSBbAzZpPkgQ]|\\[1-9]|\[\^[^\]]*\\[dws]|\(\?(?!:)|&&|--|~~|\[\^?\[|\[\^?\]|\[:|\{,|[*+?}]\+"
)
_ANY = "kimi_mini_any_value"


class UnsupportedSchema(KimiError, ValueError):
    """A schema that no grammar here can hold a model to; the line names the keyword."""


def parameters_schema(parameters: Any, where: str) -> dict[str, Any]:
    """The schema of a tool's arguments as the grammar takes it. As everywhere in this project (see `Toolbox`), what
    the schema does not name is not allowed unless it says so. Raises UnsupportedSchema; `where` names the tool."""
    parameters = {"type": "object", "properties": {}} if parameters is None else parameters
    plain = object_schema(parameters, where)
    closed = "properties" in parameters and "additionalProperties" not in parameters
    return plain | {"additionalProperties": False} if closed else plain


def object_schema(schema: Any, where: str) -> dict[str, Any]:
    """The schema of a JSON object as the grammar takes it, nothing added. Raises UnsupportedSchema."""
    try:
        compile_schema(schema)
        plain = _plain(schema, where)
        if not _ends(schema, schema, ()):
            raise UnsupportedSchema(
                f"{where}: '$ref' goes on without an end: no finite value satisfies the schema"
            )
    except UnsupportedSchema:
        raise
    except (ValueError, RecursionError) as error:
        raise UnsupportedSchema(f"{where}: {error}") from None
    any_value = {"items": {"$ref": f"#/$defs/{_ANY}"}, "additionalProperties": {"$ref": f"#/$defs/{_ANY}"}}
    any_value |= {"minimum": -LARGEST, "maximum": LARGEST}
    return plain | {"$defs": {**plain.get("$defs", {}), _ANY: any_value}}


def _plain(schema: Any, where: str) -> Any:
    """The schema with what says nothing left out and what was left open said. Raises UnsupportedSchema."""
    if isinstance(schema, bool):
        return _said({}) if schema else False
    for word in schema:
        if word not in _KEPT | _SAYS_NOTHING and not (word == "uniqueItems" and schema[word] is False):
            raise _refusal(where, word, "is not among the keywords that a grammar can keep")
    for word, check in _CHECKS.items():
        if word in schema and (why := check(schema[word])):
            raise _refusal(where, word, why)
    plain = {word: schema[word] for word in schema if word in _KEPT}
    for word in plain.keys() & set(_MAPS):
        plain[word] = {key: _plain(one, f"{where}.{key}") for key, one in plain[word].items()}
    for word in plain.keys() & set(_LISTS):
        plain[word] = [_plain(one, f"{where}.{word}[{index}]") for index, one in enumerate(plain[word])]
    for word in plain.keys() & set(_INNER):
        plain[word] = _plain(plain[word], f"{where}.{word}")
    return _said(plain)


def _said(schema: dict[str, Any]) -> dict[str, Any]:
    """With bounds for every number that may have a fraction, and a schema for whatever is allowed without one."""
    if schema.keys() & _ELSEWHERE:
        return schema
    types = schema.get("type", ["number", "array", "object"])
    types = [types] if isinstance(types, str) else types
    said = dict(schema)
    for kind, word in (("array", "items"), ("object", "additionalProperties")):
        if kind in types and word not in said:
            said[word] = {"$ref": f"#/$defs/{_ANY}"}
    if "number" not in types:
        return said
    said["minimum"], said["maximum"] = low, high = _bounds(schema)
    left_out = [number for number in _left_out(low, high) if _between(schema, number)]
    return {"anyOf": [said, {"enum": left_out}]} if left_out and "multipleOf" not in said else said


def _bounds(schema: dict[str, Any]) -> tuple[float, float]:
    """Both bounds of a number. Decimals nearer to an exclusive bound than any float are read as the bound itself, so
    the float beside it is the bound; at 0, where that takes 324 zeros, the bound stays what it is."""
    low, high = schema.get("minimum", -LARGEST), schema.get("maximum", LARGEST)
    above, below = schema.get("exclusiveMinimum", 0), schema.get("exclusiveMaximum", 0)
    if 1e-3 <= abs(above) < LARGEST:
        low = max(low, math.nextafter(above, math.inf))
    if 1e-3 <= abs(below) < LARGEST:
        high = min(high, math.nextafter(below, -math.inf))
    return max(low, -LARGEST), min(high, LARGEST)


def _left_out(low: float, high: float) -> list[float]:
    """Numbers that llguidance's grammar of a range forgets: what a bound's decimals begin with, as 5.2 below 5.25."""
    found = set()
    for whole, _, decimals in (repr(bound).partition(".") for bound in (low, high)):
        if decimals.isdigit():
            found |= {float(f"{whole}.{decimals[:count]}") for count in range(1, len(decimals))}
    return sorted(number for number in found if low <= number <= high)


def _between(schema: dict[str, Any], number: float) -> bool:
    """Whether the number is inside the exclusive bounds."""
    return schema.get("exclusiveMinimum", -math.inf) < number < schema.get("exclusiveMaximum", math.inf)


def _refusal(where: str, word: str, why: str) -> UnsupportedSchema:
    return UnsupportedSchema(f"{where}: {word!r} {why}")


def _pattern(pattern: str) -> str | None:
    found = _READ_OTHERWISE.search(pattern)
    return f"holds {found[0]!r}, which the grammar and the checker would read differently" if found else None


def _multiple(step: float) -> str | None:
    whole = float(step).is_integer()
    return (
        None
        if whole
        else f"of {step} cannot be kept: only whole numbers can (to the checker 0.07 is none of 0.01)"
    )


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "pattern": _pattern,
    "multipleOf": _multiple,
    "format": lambda name: (
        None if name in FORMATS else f"{name!r} is not one of {', '.join(sorted(FORMATS))}"
    ),
    "$ref": lambda where: (
        None if where.startswith("#") and where[1:2] in ("", "/") else "must begin with '#/'"
    ),
}


def _ends(schema: Any, root: dict, open_: tuple[str, ...]) -> bool:
    """Whether some finite value may satisfy the schema, as far as references go. open_: those on the way here."""
    if isinstance(schema, bool):
        return True
    parts: list[bool] = []
    if "$ref" in schema:
        target = schema["$ref"]
        parts.append(target not in open_ and _ends(_look_up(root, target), root, (*open_, target)))
    for word in ("anyOf", "oneOf"):
        if word in schema:
            parts.append(any(_ends(one, root, open_) for one in schema[word]))
    inner = list(schema.get("allOf", ()))
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        inner += [properties[name] for name in schema.get("required", ()) if name in properties]
    elif schema.get("type") == "array":
        prefix, least = schema.get("prefixItems", []), schema.get("minItems", 0)
        inner += prefix[:least] + [schema.get("items", True)] * (least > len(prefix))
    return all(parts) and all(_ends(one, root, open_) for one in inner)


def _look_up(root: dict, reference: str) -> Any:
    """What a reference such as #/$defs/node leads to; `compile_schema` has seen that it leads somewhere."""
    found: Any = root
    for step in filter(None, unquote(reference[1:]).split("/")):
        step = step.replace("~1", "/").replace("~0", "~")
        found = found[int(step)] if isinstance(found, list) else found[step]
    return found
