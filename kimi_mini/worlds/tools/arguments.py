"""From the text of a call's arguments to checked arguments: CallError, whatever a model writes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # see `schema`: the validators bring it along
    from jsonschema.protocols import Validator

MAX_NESTING = 50  # lists and objects inside each other; the checker recurses, so a bound must come before it
# floats up to here that have no fraction are whole numbers; larger ones have lost their last digits
MAX_WHOLE = 2**53

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


def read(text: str, validators: tuple[Validator, ...]) -> dict[str, Any]:
    """Parse and check the arguments of a call. Raises CallError: bad_json, double_encoded or schema."""
    value = _parse(text)
    if isinstance(value, str) and _holds_object(value):
        raise CallError("double_encoded", "arguments are a JSON string; send the JSON object itself")
    try:
        for validator in validators:
            if not validator.is_valid(value):
                from jsonschema.exceptions import best_match

                problem = best_match(validator.iter_errors(value))
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
