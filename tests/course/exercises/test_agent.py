"""Checkers of notebook 05: the schema of a tool."""

import copy
from typing import Any

from kimi_mini.course.exercises import agent as ex

SCHEMA = {
    "type": "object",
    "properties": {
        "item": {"type": "string", "minLength": 1},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "reason": {"enum": ["damaged", "late"]},
    },
    "required": ["item", "count"],
    "additionalProperties": False,
}


def typed(name: str, **changes: Any) -> dict:
    """The schema with other words for a property."""
    return {**SCHEMA, "properties": {**SCHEMA["properties"], name: {**SCHEMA["properties"][name], **changes}}}


def without(*path: str) -> dict:
    schema = copy.deepcopy(SCHEMA)
    inner = schema
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return schema


def test_the_refund_schema():
    assert ex.check_refund_schema(SCHEMA)
    for answer, hint in [
        (..., "begin with"),
        ({}, "begin with"),
        ({"type": "string"}, "no tool takes"),
        ({"type": "object", "properties": 3}, "no tool takes"),
        (without("required"), "required"),
        (without("additionalProperties"), "additionalProperties"),
        (without("properties", "count", "minimum"), "minimum"),
        (without("properties", "count", "maximum"), "maximum"),
        (without("properties", "item", "minLength"), "minLength"),
        (without("properties", "reason", "enum"), "enum"),
        ({**SCHEMA, "required": ["item", "count", "reason"]}, "optional"),
        (typed("reason", enum=["late"]), "'damaged'"),
        (typed("count", enum=[1, 2, 9]), "all of 1 to 9"),
        (typed("reason", enum=["damaged", "late", None]), "null"),
        (typed("count", type="number"), "`integer`, not `number`"),
        (without("properties", "item", "type"), "`string`"),
    ]:
        checked = ex.check_refund_schema(answer)
        assert not checked and hint in checked.text, (answer, checked)
