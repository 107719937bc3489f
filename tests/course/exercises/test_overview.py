"""Checkers of notebook 00: the prompt that a reader writes, and the sums of the package."""

import random

from answers.overview import cache_right, expert_right

from kimi_mini import KimiConfig, worlds
from kimi_mini.course.exercises import overview as ex


def test_the_chain_prompt():
    good = "Start with 08, f +4, g +9, h *2, end. Two digits, modulo 100?"
    assert ex.chain_value(8, ["+4", "+9", "*2"]) == 42
    assert ex.check_chain_prompt(good, lambda prompt: " 42")
    assert ex.check_chain_prompt(f"  {good}\n", lambda prompt: "42")
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
        checked = ex.check_chain_prompt(prompt, lambda _, answer=answer: answer)
        assert not checked and hint in checked.text, prompt


def test_the_form_that_the_checker_asks_for_is_the_one_the_agent_was_trained_on():
    rng = random.Random(0)
    for level in range(3, 9):
        task = worlds.generate(rng, "chain", level)
        answer = task.data["answer"]
        assert ex.check_chain_prompt(task.prompt, lambda _, answer=answer: f"{answer:02d}", target=answer), (
            task.prompt
        )


def test_the_checkers_agree_with_the_package():
    for name in ("k2", "moonlight_16b", "deepseek_v3", "nano"):
        config = KimiConfig.preset(name)
        count = config.count_parameters()
        moe_layers = config.num_hidden_layers - config.first_k_dense_replace
        assert expert_right(config) * moe_layers * config.n_routed_experts == count.routed_experts
        assert cache_right(config, 7) == 7 * config.kv_cache_bytes_per_token()
