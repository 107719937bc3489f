"""From the text of a call's arguments to checked arguments, and from a declared schema to its checker.

`compile_schema` judges what a programmer declares and raises ValueError; `read` judges what a model writes and raises
CallError, whatever stands there. Nothing is ever fetched: a schema may refer to itself and to the published
meta-schemas, and a reference that leads anywhere else is refused when the tool is declared.
"""

import json
import re
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

MAX_NESTING = 50  # lists and objects inside each other; the checker recurses, so a bound must come before it
# floats up to here that have no fraction are whole numbers; larger ones have lost their last digits
MAX_WHOLE = 2**53

_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_REFERENCES = ("$ref", "$dynamicRef")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class CallError(Exception):
    """A call that ends in an error message: carries the error kind beside the text."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


def shorten(text: str, limit: int) -> str:
    """One line of at most `limit` characters, without control characters and lone surrogates."""
    text = _CONTROL.sub(" ", text).encode("utf-8", "replace").decode("utf-8")
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


# ------------------------------------------------------------------------------------------- declarations
def _is_whole(_, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Checker = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole),
)


def compile_schema(schema: dict[str, Any]) -> tuple[Validator, ...]:
    """The checkers of a tool's parameters, asked one after the other.

    The second one allows no property that the schema does not name, unless the schema itself says otherwise.
    Raises ValueError when `schema` is no JSON schema (draft 2020-12) of type "object", or when a reference in it
    leads nowhere, to the network, or in a circle.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ValueError("parameters must be a JSON schema of type 'object'")
    closed = {"additionalProperties": False, **schema} if "properties" in schema else schema
    try:
        return tuple(_compile(json.dumps(one, sort_keys=True, allow_nan=False)) for one in (schema, closed))
    except jsonschema.SchemaError as error:
        raise ValueError(f"not a JSON schema: {error.message}") from None
    except Unresolvable as error:
        raise ValueError(f"not a JSON schema: the reference {error.ref!r} leads nowhere") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON schema: {error}") from None


@lru_cache(maxsize=1024)
def _compile(schema_json: str) -> Validator:
    schema = json.loads(schema_json)
    _Checker.check_schema(schema)
    _check_references(schema, REGISTRY.resolver_with_root(DRAFT202012.create_resource(schema)))
    return _Checker(schema, registry=REGISTRY)


def _check_references(schema: Any, resolver: Any) -> None:
    """Look up every reference below `schema`. Raises Unresolvable or ValueError (a circle)."""
    _follow(schema, resolver, {})
    for inner in DRAFT202012.create_resource(schema).subresources():
        _check_references(inner.contents, resolver.in_subresource(inner))


def _follow(schema: Any, resolver: Any, followed: dict[int, bool]) -> None:
    """Visit all schemas that judge the same value as `schema`; `followed`: id -> whether it is still open."""
    if not isinstance(schema, dict) or followed.get(id(schema)) is False:
        return
    if id(schema) in followed:
        raise ValueError("its references go in a circle")
    followed[id(schema)] = True
    for word in _REFERENCES:
        if word in schema:
            found = resolver.lookup(schema[word])
            _follow(found.contents, found.resolver, followed)
    for word in _IN_PLACE:
        inner = schema.get(word, [])
        if word == "dependentSchemas":
            inner = list(dict(inner).values())
        for one in inner if isinstance(inner, list) else [inner]:
            _follow(one, resolver.in_subresource(DRAFT202012.create_resource(one)), followed)
    followed[id(schema)] = False


# ------------------------------------------------------------------------------------------------ arguments
def read(text: str, validators: tuple[Validator, ...]) -> dict[str, Any]:
    """Parse and check the arguments of a call. Raises CallError: bad_json, double_encoded or schema."""
    value = _parse(text)
    if isinstance(value, str) and _holds_object(value):
        raise CallError("double_encoded", "arguments are a JSON string; send the JSON object itself")
    try:
        for validator in validators:
            if not validator.is_valid(value):
                problem = jsonschema.exceptions.best_match(validator.iter_errors(value))
                place = ".".join(["arguments", *map(str, problem.absolute_path)])
                raise CallError("schema", f"{place}: {problem.message}")
    except CallError:
        raise
    except OverflowError:
        raise CallError("schema", "arguments: a number is too large to be checked") from None
    except Exception as error:  # noqa: BLE001  whatever a checker meets is news for the model
        raise CallError("schema", f"arguments cannot be checked: {type(error).__name__}") from None
    return value


def _parse(text: str) -> Any:
    """JSON text -> value, strictly: no NaN, no infinite number, no key twice. Raises CallError bad_json."""
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_number, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos}"
    except (TypeError, ValueError, RecursionError) as error:  # not text; a number too long; nested too deep
        reason = shorten(str(error), 80)
    else:
        if not _too_deep(value):
            return value
        reason = f"nested more than {MAX_NESTING} deep"
    raise CallError("bad_json", f"arguments are not JSON: {reason}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _number(text: str) -> int | float:
    """A number with a dot or an exponent; 2.0 is the whole number 2, as JSON schema has it."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large a number")
    return int(value) if value.is_integer() and abs(value) <= MAX_WHOLE else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shorten(twice, 40)!r} stands there twice")
    return value


def _too_deep(value: Any) -> bool:
    """Whether lists and objects stand inside each other more than MAX_NESTING deep; without recursion."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        holders = [one for one in level if isinstance(one, (list, dict))]
        if not holders:
            return False
        level = [inner for one in holders for inner in (one.values() if isinstance(one, dict) else one)]
    return True


def _holds_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, str))
    except (ValueError, RecursionError):
        return False
