"""What every checker of the course's exercises stands on. A checker looks at an answer: "right", or a hint.

A checker never raises on what the reader wrote: an unsolved cell, a function that fails and a wrong answer all get a
sentence to go on with. What it returns is true when the answer is right, so that solutions can be asserted.
"""

from __future__ import annotations

import functools
import html
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Hint(Exception):
    """What is still wrong with an answer; `checker` hands it to the reader."""


@dataclass(frozen=True)
class Checked:
    """What a checker says."""

    ok: bool
    text: str

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"{'right' if self.ok else 'not yet'}: {self.text}"

    def _repr_html_(self) -> str:
        colour, background = ("#00694D", "#E8F6F2") if self.ok else ("#8A4B00", "#FDF5E6")
        style = f"padding:8px 12px;border-left:6px solid {colour};background:{background};color:#222;font-size:15px"
        word = "right" if self.ok else "not yet"
        return f"<div style='{style}'><b style='color:{colour}'>{word}</b>: {html.escape(self.text)}</div>"


def checker(check: Callable[..., Checked]) -> Callable[..., Checked]:
    """Decorator: what a check raises becomes a hint. An answer that it cannot even look at is a wrong answer."""

    @functools.wraps(check)
    def checked(*arguments: Any, **options: Any) -> Checked:
        try:
            return check(*arguments, **options)
        except Hint as hint:
            return Checked(False, str(hint))
        except Exception as error:  # noqa: BLE001  an array where a number was asked for, a set in place of a list, ...
            kind = f"({type(error).__name__}: {error})"
            return Checked(False, f"that is not the kind of thing that was asked for {kind}")

    return checked


def value_of(function: Callable, *arguments: Any, case: str = "") -> Any:
    """Value of the reader's function. Raises Hint when there is none; `case` says where the function failed."""
    if not callable(function):
        raise Hint("give the checker your function itself, without calling it")
    try:
        value = function(*arguments)
    except Exception as error:
        raise Hint(f"{case}your function raised {type(error).__name__}: {error}") from error
    if value is None or value is ...:
        raise Hint("your function returns nothing yet: replace the three dots")
    return value


def one_number(value: Any) -> int | float:
    """One number as Python's own, also from numpy or torch. Raises Hint when it is none."""
    if hasattr(value, "item") and getattr(value, "size", None) != 0:
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError):  # several numbers
            pass
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Hint(f"return one number, not {value!r:.60}")
    return value


def tensor(value: Any) -> Tensor:
    """Numbers as a tensor, also from numpy. Raises what torch raises."""
    return torch.as_tensor(value.copy() if isinstance(value, np.ndarray) else value).detach()


def numbers(value: Any, shape: Sequence[int], wanted: str = "return numbers") -> Tensor:
    """The value as fp64 numbers of this shape. Raises Hint, which begins with what is `wanted`, when it is none."""
    try:
        found = tensor(value).double()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Hint(f"{wanted}, not a {type(value).__name__}") from None
    if found.shape != torch.Size(shape):
        raise Hint(f"{wanted}: your shape is {tuple(found.shape)}; wanted is {tuple(shape)}")
    return found


def close(value: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, up to rounding."""
    return value.shape == other.shape and torch.allclose(value.double(), other.double(), atol=1e-5, rtol=1e-4)


def known_mistake(
    value: Any, wrong: Mapping[str, Any], same: Callable[[Any, Any], bool] = operator.eq
) -> str | None:
    """The hint of the first known wrong answer that is the same as `value`."""
    return next((hint for hint, other in wrong.items() if same(value, other)), None)
