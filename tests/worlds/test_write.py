"""World `write`: the examples really run, the hidden inputs decide, and the code that was submitted last counts."""

import random

import pytest

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.evaluation.adversary import perform
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.repair import write
from kimi_mini.worlds.repair.code import EXAMPLES, source
from kimi_mini.worlds.repair.running import outputs

RIGHT = ["x = x + 3", "if x > 5: x = x * 2"]


def task_of(lines=RIGHT):
    return worlds.Task("write", "write", len(lines), "Write f(x, y).", {"right": lines})


def attempt(task, *submitted, words="written"):
    """The verdict, and what the tool said."""
    conversation = conversation_.opening(task)
    for code in submitted:
        conversation_.act(conversation, turn("", call=("submit", {"code": code})))
    conversation_.act(conversation, turn("", content=words))
    told = [message["content"] for message in conversation.messages if message["role"] == "tool"]
    return conversation.verdict(), told


def test_the_examples_run_when_code_is_submitted():
    halfway = source(["x = x + 3", "if x > 9: x = x * 2"])  # right where x is large alone
    wrong = "def f(x, y):\n    return x"
    endless = "def f(x, y):\n    while True: pass"
    _, told = attempt(task_of(), source(RIGHT), halfway, wrong, endless, "def f(x", "y" * 3000)
    assert told[:5] == [
        '{"passed":2,"failed":0}',
        '{"passed":2,"failed":0}' if write.evaluate(RIGHT, EXAMPLES) == [5, 24] else "?",
        '{"passed":0,"failed":2}',
        '{"passed":0,"failed":2}',
        '{"passed":0,"failed":2}',
    ]
    assert told[5] == "error: at most 2000 characters"


def test_the_prompt_says_it_all_and_the_same_function_is_the_same_task():
    task = worlds.generate(random.Random(3), "write", 2)
    again = worlds.Task("write", "write", 2, task.prompt, task.data)
    assert task.key == again.key and task.prompt.count("\n") == 4
    for (x, y), value in zip(EXAMPLES, write.evaluate(task.data["right"], EXAMPLES)):
        assert f"f({x}, {y}) is {value}" in task.prompt
    assert "right" not in task.prompt and "def" not in task.prompt


def test_hidden_inputs_decide():
    """Right for the examples, for all inputs but one, and for digits alone: all refused, whatever is said."""
    assert attempt(task_of(), source(RIGHT), words="I am not sure")[0].passed
    known = dict(zip(EXAMPLES, write.evaluate(RIGHT, EXAMPLES)))
    verdict, told = attempt(task_of(), f"def f(x, y):\n    return {known}[(x, y)]")
    assert told == ['{"passed":2,"failed":0}'] and verdict.evidence == "0 of 190 tests pass"
    nearly = source(["if (x, y) == (4, 4): return 0", *RIGHT])
    verdict, _ = attempt(task_of(), nearly)
    assert not verdict.passed and verdict.evidence == "189 of 190 tests pass"
    digits = source(["if not 0 <= x < 10: return 0", *RIGHT])
    assert attempt(task_of(), digits)[0].evidence == "100 of 190 tests pass"


@pytest.mark.parametrize("level", write.FAMILIES["write"].levels)
def test_no_rule_may_be_left_out(level):
    """Neither what the rules say is idle on the hidden inputs, nor is a function without one of them accepted."""
    rng = random.Random(level)
    for number in range(40):
        task = worlds.generate(rng, "write", level, held_out=number % 2 == 1)
        right = task.data["right"]
        for at in range(level):
            less = [*right[:at], *right[at + 1 :]]
            assert write.evaluate(less, write.JUDGED) != write.evaluate(right, write.JUDGED), (right, at)
            if number < 5:
                assert not attempt(task, source(less))[0].passed, (right, at)


def test_the_last_submission_counts_and_there_are_few():
    wrong = source(["pass"])
    assert attempt(task_of(), wrong, source(RIGHT))[0].passed
    assert not attempt(task_of(), source(RIGHT), wrong)[0].passed
    assert attempt(task_of())[0].evidence == "nothing was submitted"
    assert attempt(task_of(), *[wrong] * 3, source(RIGHT))[0].passed
    assert "are plenty" in attempt(task_of(), *[wrong] * 4, source(RIGHT))[0].evidence


def test_submitted_code_runs_in_the_sandbox_alone(tmp_path):
    """It can neither write a file nor reach what the verifier knows."""
    target = tmp_path / "proof"
    code = source(RIGHT) + f"open({str(target)!r}, 'w').write('here')\n"
    verdict, told = attempt(task_of(), code)
    assert not verdict.passed and told == ['{"passed":0,"failed":2}'] and not target.exists()
    loaded = "import sys\nf = lambda x, y: len(sys.modules['kimi_mini.worlds.repair.write'].JUDGED)\n"
    imported = "def f(x, y):\n    from kimi_mini.worlds.repair.write import JUDGED\n    return len(JUDGED)\n"
    for peeking, told in ((loaded, "AttributeError: "), (imported, "ModuleNotFoundError: ")):
        (reached,) = outputs(peeking, ["f(1, 2)"])
        assert str(reached).startswith(told), "a number is what it looked for"
        assert not attempt(task_of(), peeking)[0].passed


def test_a_best_of_n_choice_looks_at_the_examples_alone():
    draft = write.open_environment(task_of()).state
    assert not draft.public_tests_pass
    draft.submit("def f(x, y):\n    return 5 if x == 2 else 24")
    assert draft.public_tests_pass


MUTANTS = {  # a condition left out -> the kind that must get through
    "JUDGED": (EXAMPLES, "one rule misread, and special cases for the examples"),
    "most_calls": (lambda needed: 10**6, "tries function after function until the examples pass"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_condition_of_the_verifier_is_needed(name, monkeypatch):
    mutant, kind = MUTANTS[name]
    kind = next(found for found in WORLDS["write"].kinds if found.name == kind)
    made = []
    for seed in range(10):
        rng = random.Random(seed)
        made.append(perform(kind, worlds.generate(rng, "write", 1 + seed % 4), rng))
    assert not any(conversation.verdict().passed for conversation in made)
    monkeypatch.setattr(write, name, mutant)
    assert any(conversation.verdict().passed for conversation in made)


@pytest.mark.parametrize("kind", WORLDS["write"].kinds, ids=lambda kind: kind.name)
def test_every_kind_is_judged_as_it_was_made(kind):
    for seed in range(8):
        rng = random.Random(seed)
        conversation = perform(kind, worlds.generate(rng, "write", 1 + seed % 4), rng)
        assert conversation.verdict().passed is kind.right, conversation.messages


def test_the_demo_can_be_worked_on():
    task = write.DEMO.own_task(write.DEMO.examples[0])
    environment = write.open_environment(task)
    environment.toolbox.call("submit", '{"code":"f = 1"}')
    assert write.DEMO.left(task, environment) == "the function:\nf = 1"
    assert write.DEMO.own_task("hello") is None
