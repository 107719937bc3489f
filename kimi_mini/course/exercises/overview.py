"""Checkers for the exercises of notebook 00 (Kimi K2 on one page)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from kimi_mini.course.exercises.base import Checked, checker, known_mistake, one_number, value_of
from kimi_mini.model.config import KimiConfig
from kimi_mini.worlds.chain import MODULUS, OPERATIONS


@checker
def check_expert_parameters(function: Callable[[KimiConfig], int]) -> Checked:
    """function(config) is the number of parameters of one routed expert."""
    for name in ("k2", "moonlight_16b", "nano"):
        config = KimiConfig.preset(name)
        value = one_number(value_of(function, config))
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
                False, known_mistake(value, wrong) or f"for {name} you count {value:,}; go by the shapes"
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
        value = one_number(value_of(function, config, tokens))
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
            hint = known_mistake(value, wrong) or f"for {name} and {tokens:,} tokens you get {value:,}"
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
        "Your order is placed.",
        True,
        "the fig was bought; in which words it says so does not matter",
    ),
    ([["nut", 1], ["fig", 2]], [["fig", 2], ["nut", 1]], "done", True, "the order of buying does not matter"),
    (
        [["fig", 2], ["fig", 2]],
        [["fig", 2]],
        "done",
        False,
        "it bought the fig twice: a set would not notice",
    ),
    (
        [["fig", 2], ["fig", 2], ["nut", 1]],
        [["fig", 2], ["nut", 1], ["nut", 1]],
        "done",
        False,
        "it bought the fig twice and the nut once, not the other way round: see how often each was bought",
    ),
    (
        [["fig", 1], ["nut", 2]],
        [["fig", 2], ["nut", 1]],
        "done",
        False,
        "it bought one fig and two nuts in place of two and one: an item and its count belong together",
    ),
    ([["fig", 2], ["tea", 1]], [["fig", 2]], "done", False, "it also bought tea, which nobody asked for"),
)


@checker
def check_order_verifier(function: Callable[[list, list, str], bool]) -> Checked:
    """function(orders, wanted, said) is whether the shop ended as it was asked to."""
    for orders, wanted, said, right, hint in ORDER_CASES:
        value = value_of(function, [list(o) for o in orders], [list(w) for w in wanted], said)
        if bool(value) != right:
            return Checked(False, hint)
    return Checked(
        True,
        "it looks at the state, so no words can talk it round (the package's also refuses who did it and denies it)",
    )


CHAIN = re.compile(r"Start with (\d\d), ((?:[a-z] [-+*]\d, )+)end\. Two digits, modulo 100\?")
CHAIN_FORM = "Start with 05, c +9, d *3, end. Two digits, modulo 100?"


@checker
def check_chain_prompt(prompt: str, ask: Callable[[str], str], target: int = 42, steps: int = 3) -> Checked:
    """`prompt` is a chain task of at least `steps` operations whose right answer is `target`, and
    `ask(prompt)`, the agent's answer, says so too."""
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
    answer = value_of(ask, prompt.strip())
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
