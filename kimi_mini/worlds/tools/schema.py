"""From a declared schema to its checker: ValueError for what a programmer cannot mean.

Nothing is ever fetched: a schema may refer to itself and to the published meta-schemas, and a reference that leads
anywhere else is refused when the tool is declared. This file is imported when the first tool is.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_REFERENCES = ("$ref", "$dynamicRef")
_FORMAT = "rfc3987_syntax"


def _import_jsonschema() -> ModuleType:
    """jsonschema as where the package of one of its formats is not installed: no format is checked here, and that one
    (JupyterLab brings it) compiles grammars for two seconds."""
    hidden = sys.modules.setdefault(_FORMAT, None) is None
    try:
        import jsonschema
    finally:
        if hidden:
            del sys.modules[_FORMAT]
    return jsonschema


jsonschema = _import_jsonschema()


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
