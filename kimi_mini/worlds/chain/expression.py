"""The value of a short expression that a model wrote: numbers, + - * / and brackets, exactly, and nothing else.

A symbolic check: 24, 48/2 and 2*12 are one answer. The text is parsed, never run, and what is long, huge or anything
but arithmetic has no value.
"""

from __future__ import annotations

import ast
import operator
from fractions import Fraction

LONGEST, LARGEST = 40, 10**9  # characters; size of a number
_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value_of(text: str) -> Fraction | None:
    """The value of an expression; None if it is none."""
    if len(text) > LONGEST or not text.isascii():
        return None
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def operations(text: str) -> int:
    """How many of + - * / an expression that has a value is made of; a sign is none."""
    return sum(isinstance(node, ast.BinOp) for node in ast.walk(ast.parse(text.strip(), mode="eval")))


def _value(node: ast.expr) -> Fraction:
    """Raises ValueError for what is no arithmetic or too large, ZeroDivisionError for what has no value."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        found = Fraction(str(node.value)) if abs(node.value) <= LARGEST else None
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        found = -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        found = _BINARY[type(node.op)](_value(node.left), _value(node.right))
    else:
        raise ValueError("no arithmetic")
    if found is None or abs(found) > LARGEST:
        raise ValueError("too large")
    return found
