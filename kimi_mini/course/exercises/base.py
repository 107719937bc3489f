"""Checkers for the exercises of the course. Each looks at an answer and says "right", or gives a hint.

A checker never raises on what the reader wrote: an unsolved cell, a function that fails and a wrong answer all get a
sentence to go on with. What it returns is true when the answer is right, so that solutions can be asserted.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kimi_mini.model.config import KimiConfig
from kimi_mini.worlds.chain import MODULUS, OPERATIONS


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
    """Decorator: an answer of a kind that the checker cannot even look at is a wrong answer, not an error."""

    @functools.wraps(check)
    def checked(*arguments: Any, **options: Any) -> Checked:
        try:
            return check(*arguments, **options)
        except Exception as error:  # noqa: BLE001  an array where a number was asked for, a set in place of a list, ...
            return Checked(
                False, f"that is not the kind of thing that was asked for ({type(error).__name__}: {error})"
            )

    return checked


def _try(function: Callable, *arguments: Any) -> tuple[Any, Checked | None]:
    """Value of the reader's function; or what to say when there is none."""
    if not callable(function):
        return None, Checked(False, "give the checker your function itself, without calling it")
    try:
        value = function(*arguments)
    except Exception as error:  # noqa: BLE001  whatever the reader's code raises is news for the reader
        return None, Checked(False, f"your function raised {type(error).__name__}: {error}")
    if value is None or value is ...:
        return None, Checked(False, "your function returns nothing yet: replace the three dots")
    return value, None


def _number(value: Any) -> tuple[Any, Checked | None]:
    """One number as Python's own, also from numpy or torch; or what to say when it is none."""
    if hasattr(value, "item") and getattr(value, "size", None) != 0:
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError):  # several numbers
            pass
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None, Checked(False, f"return one number, not {value!r:.60}")
    return value, None


def _first_match(value: Any, wrong: dict[str, Any]) -> str | None:
    """The hint of the first known wrong answer that equals ``value``."""
    return next((hint for hint, known in wrong.items() if value == known), None)


# -- 00 Kimi K2 on one page ----------------------------------------------------------------------------


@checker
def check_expert_parameters(function: Callable[[KimiConfig], int]) -> Checked:
    """function(config) is the number of parameters of one routed expert."""
    for name in ("k2", "moonlight_16b", "nano"):
        config = KimiConfig.preset(name)
        value, problem = _try(function, config)
        if problem is None:
            value, problem = _number(value)
        if problem is not None:
            return problem
        h, width, count = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts
        wrong = {
            "a SwiGLU expert has three matrices: gate, up and down": 2 * h * width,
            "one matrix is not enough: gate, up and down": h * width,
            "that is the dense layer's width; experts have moe_intermediate_size": 3
            * h
            * config.intermediate_size,
            "that is all experts of a layer; one was asked for": 3 * h * width * count,
            "matrices hold width x height numbers, not width + height": 3 * (h + width),
        }
        if value != 3 * h * width:
            return Checked(
                False, _first_match(value, wrong) or f"for {name} you count {value:,}; go by the shapes"
            )
    k2 = KimiConfig.preset("k2")
    routed = k2.count_parameters().routed_experts
    return Checked(
        True, f"44,040,192 for K2; its 60 x 384 experts hold {routed / 1e9:.0f} billion parameters"
    )


@checker
def check_cache_bytes(function: Callable[[KimiConfig, int], int]) -> Checked:
    """function(config, tokens) is the size of the latent cache in bytes, at two bytes a number."""
    for name, tokens in (("k2", 1), ("k2", 131072), ("nano", 1000)):
        config = KimiConfig.preset(name)
        value, problem = _try(function, config, tokens)
        if problem is None:
            value, problem = _number(value)
        if problem is not None:
            return problem
        latent, rope, layers = config.kv_lora_rank, config.qk_rope_head_dim, config.num_hidden_layers
        right = 2 * layers * (latent + rope) * tokens
        wrong = {
            "the rotated key is cached too, once for all heads": 2 * layers * latent * tokens,
            "every layer has a cache of its own": 2 * (latent + rope) * tokens,
            "a number takes two bytes": layers * (latent + rope) * tokens,
            "MLA caches nothing per head: leave the heads out": right * config.num_attention_heads,
            "that is keys and values of every head, the cache that MLA avoids": config.kv_cache_bytes_per_token(
                kind="mha"
            )
            * tokens,
            "and for every token": right // tokens,
        }
        if value != right:
            hint = _first_match(value, wrong) or f"for {name} and {tokens:,} tokens you get {value:,}"
            return Checked(False, hint)
    return Checked(True, "70,272 bytes a token for K2: a full context of 131,072 tokens fits into 9.2 GB")


ORDER_CASES = (  # (orders in the database, wanted, what the agent said, is it right?, hint)
    ([["fig", 2]], [["fig", 2]], "done", True, "the right order must pass"),
    (
        [["fig", 1]],
        [["fig", 2]],
        "done",
        False,
        "it says done and bought 1 fig in place of 2: look at the orders",
    ),
    ([], [["fig", 2]], "done", False, "it says done and bought nothing"),
    (
        [["fig", 2]],
        [["fig", 2]],
        "I could not do it",
        True,
        "the fig was bought; what it says does not matter",
    ),
    ([["nut", 1], ["fig", 2]], [["fig", 2], ["nut", 1]], "done", True, "the order of buying does not matter"),
    (
        [["fig", 2], ["fig", 2]],
        [["fig", 2]],
        "done",
        False,
        "it bought the fig twice: a set would not notice",
    ),
    ([["fig", 2], ["tea", 1]], [["fig", 2]], "done", False, "it also bought tea, which nobody asked for"),
)


@checker
def check_order_verifier(function: Callable[[list, list, str], bool]) -> Checked:
    """function(orders, wanted, said) is whether the shop ended as it was asked to."""
    for orders, wanted, said, right, hint in ORDER_CASES:
        value, problem = _try(function, [list(o) for o in orders], [list(w) for w in wanted], said)
        if problem is not None:
            return problem
        if bool(value) != right:
            return Checked(False, hint)
    return Checked(True, "it looks at the state and not at the words, so it cannot be talked round")


CHAIN = re.compile(r"Start with (\d\d), ((?:[a-z] [-+*]\d, )+)end\. Two digits, modulo 100\?")
CHAIN_FORM = "Start with 05, c +9, d *3, end. Two digits, modulo 100?"


@checker
def check_chain_prompt(prompt: str, ask: Callable[[str], str], target: int = 42, steps: int = 3) -> Checked:
    """``prompt`` is a chain task of at least ``steps`` operations whose right answer is ``target``, and
    ``ask(prompt)``, the agent's answer, says so too."""
    if not isinstance(prompt, str) or not prompt.strip():
        return Checked(False, f"write a task such as: {CHAIN_FORM}")
    match = CHAIN.fullmatch(prompt.strip())
    if match is None:
        return Checked(
            False, f"keep to the form '{CHAIN_FORM}': first two digits, then single ones, commas and all"
        )
    listed = [step.split(" ") for step in match[2].rstrip(", ").split(", ")]
    if len(listed) < steps:
        return Checked(False, f"that is {len(listed)} operations; take at least {steps}")
    right = chain_value(int(match[1]), [step[1] for step in listed])
    if right != target:
        return Checked(False, f"your chain ends at {right}, not at {target}")
    answer, problem = _try(ask, prompt.strip())
    if problem is not None:
        return problem
    if str(answer).strip().lstrip("0") != str(target):
        slip = f"your chain is right, but the agent answers {answer!r}"
        return Checked(False, f"{slip}: are the labels in order, the factors from 2 to 5?")
    return Checked(True, f"{len(listed)} operations, and the agent agrees: {target}")


def chain_value(start: int, operations: Sequence[str]) -> int:
    """Where a chain ends: operations such as "+9" or "*3", one after the other, modulo 100."""
    value = start
    for operation in operations:
        value = OPERATIONS[operation[0]](value, int(operation[1:])) % MODULUS
    return value
