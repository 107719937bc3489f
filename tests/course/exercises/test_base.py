"""Each checker refuses the unsolved cell and plausible wrong answers, with a hint, and accepts the right one."""

import random

import pytest
from answers import assert_hints

from kimi_mini import worlds
from kimi_mini.course.exercises.base import (
    chain_value,
    check_cache_bytes,
    check_chain_prompt,
    check_expert_parameters,
    check_order_verifier,
)
from kimi_mini.model.config import KimiConfig


def expert_right(c):
    return 3 * c.hidden_size * c.moe_intermediate_size


def cache_right(c, tokens):
    return 2 * c.num_hidden_layers * (c.kv_lora_rank + c.qk_rope_head_dim) * tokens


def orders_right(orders, wanted, said):
    return sorted(orders) == sorted(wanted)


CHECKERS = [
    (check_expert_parameters, expert_right),
    (check_cache_bytes, cache_right),
    (check_order_verifier, orders_right),
]


@pytest.mark.parametrize(("check", "right"), CHECKERS)
def test_right_answers_pass_and_unsolved_or_broken_ones_get_a_hint(check, right):
    assert check(right) and repr(check(right)).startswith("right: ") and "right" in check(right)._repr_html_()
    assert_hints(check)


WRONG = [
    (check_expert_parameters, lambda c: 2 * c.hidden_size * c.moe_intermediate_size, "three matrices"),
    (check_expert_parameters, lambda c: 3 * c.hidden_size * c.intermediate_size, "dense"),
    (check_expert_parameters, lambda c: expert_right(c) * c.n_routed_experts, "all experts"),
    (check_expert_parameters, lambda c: 44_040_192, "go by the shapes"),  # right for K2 alone
    (check_cache_bytes, lambda c, n: 2 * c.num_hidden_layers * c.kv_lora_rank * n, "rotated key"),
    (check_cache_bytes, lambda c, n: cache_right(c, n) // c.num_hidden_layers, "every layer"),
    (check_cache_bytes, lambda c, n: cache_right(c, n) // 2, "two bytes"),
    (check_cache_bytes, lambda c, n: cache_right(c, n) * c.num_attention_heads, "per head"),
    (check_cache_bytes, lambda c, n: c.kv_cache_bytes_per_token(kind="mha") * n, "avoids"),
    (check_cache_bytes, lambda c, n: cache_right(c, 1), "every token"),
    (check_order_verifier, lambda orders, wanted, said: said == "done", "look at the orders"),
    (check_order_verifier, lambda orders, wanted, said: orders == wanted, "order of buying"),
    (check_order_verifier, lambda o, w, s: {tuple(x) for x in o} == {tuple(x) for x in w}, "twice"),
    (check_order_verifier, lambda o, w, s: all(x in o for x in w) and len(o) >= len(w), "twice"),
    (check_order_verifier, lambda o, w, s: sorted(o) == sorted(w) and s == "done", "does not matter"),
    (check_order_verifier, lambda o, w, s: False, "must pass"),
]


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_a_plausible_wrong_answer_is_refused_with_a_hint_that_fits(check, answer, hint):
    checked = check(answer)
    assert not checked and hint in checked.text


def test_the_chain_prompt():
    good = "Start with 08, f +4, g +9, h *2, end. Two digits, modulo 100?"
    assert chain_value(8, ["+4", "+9", "*2"]) == 42
    assert check_chain_prompt(good, lambda prompt: " 42")
    assert check_chain_prompt(f"  {good}\n", lambda prompt: "42")
    for prompt, answer, hint in [
        ("", "42", "write a task"),
        (None, "42", "write a task"),
        ("What is 6 times 7?", "42", "keep to the form"),
        ("Start with 40, a +2, end. Two digits, modulo 100?", "42", "at least 3"),
        ("Start with 08, f +4, g +9, h *3, end. Two digits, modulo 100?", "42", "ends at 63"),
        ("Start with 8, f +4, g +9, h *2, end. Two digits, modulo 100?", "42", "two digits"),
        (good, "41", "answers '41'"),
        (good, None, "returns nothing"),
    ]:
        checked = check_chain_prompt(prompt, lambda _, answer=answer: answer)
        assert not checked and hint in checked.text, prompt


def test_the_form_that_the_checker_asks_for_is_the_one_the_agent_was_trained_on():
    rng = random.Random(0)
    for level in range(3, 9):
        task = worlds.generate(rng, "chain", level)
        answer = task.data["answer"]
        assert check_chain_prompt(task.prompt, lambda _, answer=answer: f"{answer:02d}", target=answer), (
            task.prompt
        )


def test_the_checkers_agree_with_the_package():
    for name in ("k2", "moonlight_16b", "deepseek_v3", "nano"):
        config = KimiConfig.preset(name)
        count = config.count_parameters()
        moe_layers = config.num_hidden_layers - config.first_k_dense_replace
        assert expert_right(config) * moe_layers * config.n_routed_experts == count.routed_experts
        assert cache_right(config, 7) == 7 * config.kv_cache_bytes_per_token()
