"""Task worlds: the expert passes, every kind of mistake is caught, and nothing held out can reach a training stream.

The verifiers are held against judges of this file that were written another way: they read the prompt as text, look at
the stock that is left and at what the tools answered, and run a repaired function themselves.
"""

import json
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from desk_judge import judge_desk
from judges import (
    judge_algebra,
    judge_data,
    judge_notes,
    judge_project,
    judge_search,
    judge_telecom,
    judge_write,
)

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.agent import loop
from kimi_mini.worlds import FAMILIES, WORLDS, Task
from kimi_mini.worlds.base import Verdict, final_answer, turn
from kimi_mini.worlds.chain import MODULUS
from kimi_mini.worlds.registry import world_of
from kimi_mini.worlds.repair import world as repair
from kimi_mini.worlds.repair.code import shorthand
from kimi_mini.worlds.shop import world as shop

EACH = {
    "desk": 1,
    "project": 50,
}  # tasks a family, level and way of playing, else 30: between 270 and 1,350 a world


def levels(family):
    return list(FAMILIES[family].levels)


def mistakes(family):
    """The ways in which a family's expert can err."""
    return world_of(family).mistakes


def episodes(family, mistake=None, times=1, at=None):
    """Conversations of the family's expert, all levels; `times` as many as usual."""
    for level in at or levels(family):
        rng = random.Random(f"{family}/{level}/{mistake}")
        for _ in range(times * EACH.get(FAMILIES[family].world, 30)):
            yield loop.play(worlds.generate(rng, family, level), rng, mistake)


def attempt(task, *steps):
    """A conversation that takes the given steps: calls `(name, arguments)`, and text for an answer."""
    conversation = conversation_.opening(task)
    for step in steps:
        is_text = isinstance(step, str)
        conversation_.act(
            conversation, turn("", content=step if is_text else None, call=None if is_text else step)
        )
    return conversation


def accepts(verify, conversation):
    return verify(conversation.task, conversation.messages, conversation.environment).passed


def said(conversation):
    """What the tools answered, in order."""
    return [message["content"] for message in conversation.messages if message["role"] == "tool"]


# ---- judges of our own ----------------------------------------------------------------------------------------


def judge_chain(conversation):
    """Work the prompt out as text."""
    prompt, family = conversation.task.prompt, conversation.task.family
    if family == "chain":
        value = int(re.match(r"Start with (\d+)", prompt)[1])
        for operation, operand in re.findall(r"[a-z] ([+*-])(\d+)", prompt):
            value = eval(f"{value} {operation} {int(operand)}") % MODULUS
    else:
        left, right = map(int, re.findall(r"\d+", prompt))
        value = left + right if family == "add" else left * right
    return int(final_answer(conversation.messages)) == value


def judge_shop(conversation):
    """Follow the records, compare the prices, count what has left the shelves; and every fact must have been told."""
    task, messages = conversation.task, conversation.messages
    rows = {name: (price, stock, after) for name, price, stock, after in task.data["rows"]}
    quoted = re.findall(r'"([^"]+)"', task.prompt)
    left = dict(conversation.environment.state.execute("SELECT name, stock FROM items"))
    gone = {name: row[1] - left[name] for name, row in rows.items() if row[1] != left[name]}
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or []]
    told = [
        (call["name"], json.loads(call["arguments"])["item"])
        for call, answer in zip(calls, said(conversation))
        if not answer.startswith("error")
    ]
    if task.family == "buy":
        return gone == {name: int(count) for count, name in re.findall(r'(\d+) "([^"]+)"', task.prompt)}
    if task.family == "condition":
        limit, few, many = (int(number) for number in re.findall(r"\d+", task.prompt))
        asked, low, high = quoted
        return gone == ({low: few} if rows[asked][1] < limit else {high: many}) and told[0] == (
            "stock",
            asked,
        )
    if task.family == "cheapest":
        seen = {item for name, item in told if name == "price"} >= set(quoted)
        return seen and final_answer(messages) == min(quoted, key=lambda name: rows[name][0])
    path = [quoted[0]]
    while rows[path[-1]][2] is not None:
        path.append(rows[path[-1]][2])
    read = [item for _, item in told]
    return read == path and final_answer(messages) == path[-1]


def judge_repair(conversation):
    """Run the final source ourselves (our own expert wrote it) and compare it with the rules, digit by digit."""
    bench, task = conversation.environment.state, conversation.task
    digits = [(x, y) for x in range(10) for y in range(10)]
    return bench.edits > 0 and _run(bench.lines, digits) == _run(task.data["right"], digits)


def _run(lines, inputs):
    """Values of x after the lines."""
    code, values = compile("\n".join(lines), "repaired", "exec"), []
    for x, y in inputs:
        scope = {"x": x, "y": y, "range": range, "__builtins__": {}}
        exec(code, scope)  # lines of our own expert
        values.append(scope["x"])
    return values


JUDGES = {
    "chain": judge_chain,
    "shop": judge_shop,
    "repair": judge_repair,
    "project": judge_project,
    "write": judge_write,
    "desk": judge_desk,
    "data": judge_data,
    "notes": judge_notes,
    "search": judge_search,
    "algebra": judge_algebra,
    "telecom": judge_telecom,
}


@pytest.mark.parametrize("world", WORLDS)
def test_verifier_and_judge_agree_on_right_and_wrong_work(world):
    """False accepts and false rejects over all families, levels and mistakes: none in more than 300."""
    verify, judge = WORLDS[world].verify, JUDGES[world]
    wrong_accepts, wrong_rejects, count, good = 0, 0, 0, 0
    for family in WORLDS[world].families:
        for mistake in (None, *mistakes(family)):
            for conversation in episodes(family, mistake):
                passed, right = accepts(verify, conversation), judge(conversation)
                wrong_accepts += passed and not right
                wrong_rejects += right and not passed
                count, good = count + 1, good + right
    assert count >= 270 and 0.3 * count < good < 0.7 * count
    assert (wrong_accepts, wrong_rejects) == (0, 0), f"of {count}"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_expert_passes_at_every_level(family):
    failed = [c.task.prompt for c in episodes(family) if not c.verdict().passed]
    assert not failed, failed[:3]


# A wrong step may be made good by a later one (a comparison that comes out right in the end, a product that forgets a
# difference): these are upper bounds of how often, a few times the share that was measured.
LUCK = {"chain": 0.10, "add": 0.02, "times": 0.15, "cheapest": 0.40, "repair": 0.10}  # none for the others


@pytest.mark.parametrize("family", FAMILIES)
def test_mistakes_are_caught(family):
    slips = [c.verdict().passed for c in episodes(family, "slip", 2)]
    assert sum(slips) <= LUCK.get(family, 0) * len(slips), f"{sum(slips)} of {len(slips)} slips passed"
    if "lazy" in mistakes(
        family
    ):  # one call is all that `follow` at level 1 takes: there is nothing to leave out
        at = [level for level in levels(family) if (family, level) != ("follow", 1)]
        assert not any(c.verdict().passed for c in episodes(family, "lazy", 1, at))


# ---- wrong verifiers ------------------------------------------------------------------------------------------


def shop_by_words(task, messages, environment):
    """Mutant: the right words count, whatever stands in the database."""
    right = {"follow": lambda: task.data["path"][-1], "cheapest": lambda: task.data["answer"]}
    return Verdict(final_answer(messages) == right.get(task.family, lambda: "done")(), "")


def chain_by_substring(task, messages, environment):
    """Mutant: the right number stands somewhere in the answer."""
    return Verdict(str(task.data["answer"]) in (final_answer(messages) or ""), "")


def repair_by_words(task, messages, environment):
    """Mutant: it says that it is fixed."""
    return Verdict(final_answer(messages) == "fixed", "")


def repair_by_public_tests(task, messages, environment):
    """Mutant: the tests that the model could see."""
    return Verdict(environment.state.public_tests_pass, "")


def desk_by_words(task, messages, environment):
    """Mutant: the right words count, whatever was done."""
    return Verdict(final_answer(messages) == ", ".join(map(str, task.data["answer"] or ["done"])), "")


def desk_by_state(task, messages, environment):
    """Mutant: the right words over the right state, and never mind the looking."""
    done = [list(entry) for entry in environment.state.journal if entry.kind in ("deed", "set", "create")]
    return Verdict(done == task.data["writes"] and desk_by_words(task, messages, environment).passed, "")


def desk_believes_excuses(task, messages, environment):
    """Mutant: who says that it cannot be done is right."""
    return Verdict("not" in final_answer(messages), "")


def desk_takes_anything(task, messages, environment):
    """Mutant: where nothing can be done, nothing done is enough."""
    return Verdict(task.data["outcome"] != "done" and not environment.state.journal, "")


@pytest.mark.parametrize(
    ("family", "mistake", "mutant"),
    [
        ("orders", "slip", desk_by_words),
        ("copy", "slip", desk_by_words),
        ("least", "slip", desk_by_state),
        ("orders", "lazy", desk_believes_excuses),
        ("missing", "slip", desk_takes_anything),
        ("refuse", "lazy", desk_takes_anything),
        ("condition", "slip", shop_by_words),
        ("condition", "lazy", shop_by_words),
        ("buy", "slip", shop_by_words),
        ("buy", "lazy", shop_by_words),
        ("cheapest", "lazy", shop_by_words),
        ("follow", "lazy", shop_by_words),
        ("chain", "slip", chain_by_substring),
        ("repair", "slip", repair_by_words),
        ("repair", "lazy", repair_by_words),
    ],
)
def test_a_verifier_that_believes_words_is_found_out(family, mistake, mutant):
    """On the same mistakes the mutant lets work pass that is wrong; the verifier lets none of it pass."""
    world = FAMILIES[family].world
    at = [level for level in levels(family) if level > 1]
    times = 2 if world != "desk" else 60 // len(at)
    wrong = [c for c in episodes(family, mistake, times, at) if not JUDGES[world](c)]
    assert len(wrong) >= 40
    assert not any(accepts(WORLDS[world].verify, c) for c in wrong)
    assert sum(accepts(mutant, c) for c in wrong) > 0


def task_of(family, level, seed=0, **conditions):
    """The first generated task whose data has the given entries."""
    rng = random.Random(seed)
    while True:
        task = worlds.generate(rng, family, level)
        if all(task.data[name] == value for name, value in conditions.items()):
            return task


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("42", True),
        (" 42\n", True),
        ("042", True),
        ("142", False),
        ("4 2", False),
        ("42.0", False),
        ("-42", False),
        ("the answer is 42", False),
        (" ".join(map(str, range(100))), False),
        ("", False),
        ("9" * 5000, False),
        ("\u0664\u0662", False),
        (None, False),
    ],
)
def test_a_chain_counts_by_its_number_alone(answer, passes):
    task = task_of("chain", 4, answer=42)
    conversation = attempt(task, answer) if answer is not None else conversation_.opening(task)
    assert conversation.verdict().passed is passes


def test_an_answer_read_off_all_numbers_passes_only_the_mutant():
    conversation = attempt(task_of("chain", 4), " ".join(map(str, range(100))))
    assert accepts(chain_by_substring, conversation) and not conversation.verdict().passed


def test_the_right_answer_without_a_look_at_the_prices_is_a_guess():
    """Also when the calls were made but told nothing: to a tool that is not declared, with arguments that fail."""
    task = task_of("cheapest", 3)
    items, answer = task.data["items"], task.data["answer"]
    guesses = [
        attempt(task, answer),
        attempt(task, *[("price", {"item": item}) for item in items[:-1]], answer),
        attempt(task, *[("stock", {"item": item}) for item in items], answer),
        attempt(task, *[("price", {"item": item, "when": "now"}) for item in items], answer),
    ]
    assert not any(guess.verdict().passed for guess in guesses)
    assert all(accepts(shop_by_words, guess) for guess in guesses)
    looked = attempt(task, *[("price", {"item": item}) for item in reversed(items)], answer)
    assert looked.verdict().passed


def test_a_decision_counts_only_after_a_look_at_the_stock():
    task = task_of("condition", 2)
    (item, count), look = task.data["bought"][0], ("stock", {"item": task.data["asked"]})
    purchase = ("buy", {"item": item, "count": count})
    assert attempt(task, look, purchase, "done").verdict().passed
    assert not attempt(task, purchase, "done").verdict().passed
    assert not attempt(task, purchase, look, "done").verdict().passed
    assert not attempt(task, look, "done").verdict().passed
    assert not attempt(task, look, purchase, purchase, "done").verdict().passed


def test_a_chain_is_followed_link_by_link():
    task = task_of("follow", 4)
    path = task.data["path"]
    steps = [("next", {"item": item}) for item in path]
    assert attempt(task, *steps, path[-1]).verdict().passed
    assert attempt(task, ("next", {"item": "a typing error"}), *steps, path[-1]).verdict().passed, "put right"
    assert not attempt(task, *steps[:-1], path[-1]).verdict().passed
    assert not attempt(task, *reversed(steps), path[-1]).verdict().passed
    assert not attempt(task, *steps, path[0]).verdict().passed
    assert not attempt(task, *steps).verdict().passed, "no answer"
    everything = [("next", {"item": row[0]}) for row in task.data["rows"]]
    assert not attempt(task, *everything, *everything, path[-1]).verdict().passed, "trying everything"


# ---- repair: the tests really run -----------------------------------------------------------------------------


def special_cases(task):
    """One line that answers the public tests and nothing else."""
    table = dict(zip(repair.INPUTS[: repair.PUBLIC], task.data["wanted"]))
    return f"return {table!r}.get((x, y), 0)"


def test_special_cases_for_the_public_tests_are_no_repair():
    task = task_of("repair", 3)
    conversation = attempt(task, ("edit", {"line": "A", "code": special_cases(task)}), "fixed")
    assert said(conversation) == ['{"passed":4,"failed":0}']
    assert accepts(repair_by_public_tests, conversation) and not conversation.verdict().passed


def test_the_public_tests_run_the_public_inputs_alone():
    """What happens on a hidden input is not told, not even that it crashes."""
    wanted = [x + 3 for x, _ in repair.INPUTS]
    bench = repair.Workbench(["x = x - 3"], wanted)
    assert bench.edit("A", "x = x + 3 if x != 4 else 1 // 0") == '{"passed":4,"failed":0}'
    assert bench.public_tests_pass and bench.failures()


def test_a_verifier_knows_more_inputs_than_any_test():
    """Special cases for all eight tests of the data are no repair either."""
    task = task_of("repair", 3)
    table = dict(zip(repair.INPUTS, task.data["wanted"]))
    conversation = attempt(task, ("edit", {"line": "A", "code": f"return {table!r}.get((x, y), 0)"}), "fixed")
    assert not conversation.environment.state.failures() and not conversation.verdict().passed


HOSTILE = [
    "import os; os.system('touch {there}')",
    "open('{there}', 'w').write('x')",
    "__import__('subprocess').run(['touch', '{there}'])",
    "while True: pass",
    "x = 10 ** 10 ** 9",
    "raise SystemExit(0)",
    "exit()",
    "return None",
    "return '1'",
    "return [1, 2]",
    "x = x / 0",
    "print([1] * 8)",
    "print('[1, 2'); return x == y",
    "global print; print = lambda *a: None",
    "def f(",
    "",
    "\ud800",
]


@pytest.mark.parametrize("code", HOSTILE)
def test_hostile_lines_do_no_harm(code, tmp_path):
    """The edit is answered, the verdict is a verdict, and nothing outside the sandbox has happened."""
    task, there = task_of("repair", 2), tmp_path / "there"
    conversation = attempt(
        task, ("edit", {"line": "A", "code": code.replace("{there}", str(there))}), "fixed"
    )
    (answer,) = said(conversation)
    assert set(json.loads(answer)) == {"passed", "failed"}
    assert not conversation.verdict().passed
    assert not there.exists()


def test_what_a_line_prints_is_not_taken_for_its_result():
    """The right function stays right with a print in it, and forged output does not make a wrong one right."""
    task = task_of("repair", 2)
    right, wanted = task.data["right"], task.data["wanted"]
    for line, code in zip("AB", right):
        harmless = attempt(
            task,
            *[("edit", {"line": mark, "code": text}) for mark, text in zip("AB", right)],
            ("edit", {"line": line, "code": f"{code}; print('[0]')"}),
            "fixed",
        )
        if not code.startswith(("if", "for")):
            assert harmless.verdict().passed
    forged = attempt(task, ("edit", {"line": "A", "code": f"print({wanted!r})"}), "fixed")
    assert forged.environment.state.failures() and not forged.verdict().passed


def test_the_edit_tool_says_how_many_tests_pass():
    for seed in range(20):
        task = task_of("repair", 3, seed)
        conversation = attempt(task, ("edit", {"line": "A", "code": task.data["buggy"][0]}), "fixed")
        got = _run(task.data["buggy"], repair.INPUTS[: repair.PUBLIC])
        failing = sum(value != want for value, want in zip(got, task.data["wanted"]))
        assert failing > 0, "the bug shows in a public test"
        assert said(conversation) == [f'{{"passed":{repair.PUBLIC - failing},"failed":{failing}}}']
        assert not conversation.environment.state.public_tests_pass


def test_trying_every_edit_is_no_repair():
    task = task_of("repair", 2)
    mark, code = repair.LINE_MARKS[task.data["at"]], task.data["right"][task.data["at"]]
    wrong = [("edit", {"line": mark, "code": f"x = x + {n}"}) for n in range(20)]
    assert attempt(task, wrong[0], ("edit", {"line": mark, "code": code}), "fixed").verdict().passed
    assert not attempt(task, *wrong, ("edit", {"line": mark, "code": code}), "fixed").verdict().passed


def test_all_bugs_occur_and_show():
    rng = random.Random(0)
    tasks = [worlds.generate(rng, "repair", level) for level in levels("repair") for _ in range(200)]
    assert set(Counter(task.data["bug"] for task in tasks)) == {
        "operator",
        "constant",
        "comparison",
        "variable",
        "off by one",
        "missing case",
    }
    for task in tasks:
        at = task.data["at"]
        assert shorthand(task.data["right"][at]) != shorthand(task.data["buggy"][at]), task.prompt
        assert [i for i in range(task.level) if task.data["right"][i] != task.data["buggy"][i]] == [at]


# ---- tools that fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "call", "answer"),
    [
        ("follow", ("next", {"item": "purple cow"}), "error: no item purple cow"),
        ("buy", ("buy", {"item": "purple cow", "count": 1}), "error: no item purple cow"),
        ("buy", ("buy", {"item": "ITEM", "count": 10}), "error: only 9 ITEM left"),
        ("buy", ("buy", {"item": "ITEM", "count": 10**30}), "error: only 9 ITEM left"),
        (
            "buy",
            ("buy", {"item": "ITEM", "count": 0}),
            "error: arguments.count: 0 is less than the minimum of 1",
        ),
        (
            "buy",
            ("buy", {"item": "ITEM", "count": -1}),
            "error: arguments.count: -1 is less than the minimum of 1",
        ),
        ("buy", ("buy", {"item": "ITEM"}), "error: arguments: 'count' is a required property"),
        ("buy", ("price", {"item": "ITEM"}), "error: no tool 'price'; declared: buy"),
        (
            "buy",
            ("buy", {"item": "x'; DROP TABLE items; --", "count": 1}),
            "error: no item x'; DROP TABLE items; --",
        ),
        ("repair", ("edit", {"line": "Z", "code": "pass"}), "error: no line Z; lines are AB"),
        ("repair", ("edit", {"line": "", "code": "pass"}), "error: no line ; lines are AB"),
        ("repair", ("edit", {"line": "A", "code": "pass\npass"}), "error: one line of code at a time"),
        (
            "repair",
            ("edit", {"line": "A", "code": "pass\r    return 7"}),
            "error: one line of code at a time",
        ),
        (
            "buy",
            ("buy", {"item": "ITEM", "count": 1e300}),
            "error: arguments.count: 1e+300 is not of type 'integer'",
        ),
        ("chain", ("add", {"left": 1}), "error: no tools are declared here"),
    ],
)
def test_a_call_that_cannot_be_done_is_answered(family, call, answer):
    """In the shop's own words; and it changes nothing."""
    task = task_of(family, 2)
    item = task.data["bought"][0][0] if family == "buy" else ""
    name, arguments = call
    arguments = json.loads(json.dumps(arguments).replace("ITEM", item))
    conversation = attempt(task, (name, arguments))
    assert said(conversation) == [answer.replace("ITEM", item)]
    state = conversation.environment.state
    if family == "buy":
        assert state.execute("SELECT COUNT(*) FROM orders").fetchone() == (0,)
        assert {stock for (stock,) in state.execute("SELECT stock FROM items")} == {9}
    if family == "repair":
        assert state.lines == task.data["buggy"] and state.edits == 0


def test_what_is_bought_is_gone():
    task = task_of("buy", 1)
    item = task.data["bought"][0][0]
    conversation = attempt(task, ("buy", {"item": item, "count": 8}), ("buy", {"item": item, "count": 2}))
    assert said(conversation) == ['{"ok":true}', f"error: only 1 {item} left"]


# ---- long and short -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [100, 300])
def test_hundreds_of_calls_in_a_row(level):
    conversation = loop.play(task_of("follow", level), random.Random(0))
    assert conversation.verdict().passed
    assert conversation.calls == len(said(conversation)) == level
    ids = [call["id"] for m in conversation.messages for call in m.get("tool_calls") or []]
    assert ids == [f"functions.next:{index}" for index in range(level)]


def test_a_chain_has_a_hundred_answers():
    """Guessing is worth one in a hundred: no answer is much more frequent than that."""
    rng = random.Random(0)
    answers = Counter(worlds.generate(rng, "chain", 6).data["answer"] for _ in range(4000))
    assert len(answers) >= 97 and max(answers.values()) < 4000 * 0.04


# ---- one seed, one task; the split ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_makes_the_same_task_and_the_same_dialogue(family):
    def stream(seed):
        rng = random.Random(seed)
        played = []
        for level in levels(family) * 3:
            task = worlds.generate(rng, family, level)
            mistake = rng.choice((None, *mistakes(family)))
            played.append((task.key, task.prompt, loop.play(task, rng, mistake).messages))
        return played

    assert stream(1) == stream(1)
    assert not {key for key, *_ in stream(1)} & {key for key, *_ in stream(2)} or family in ("chain", "times")


def test_the_key_is_the_content():
    """The order of entries in a dict and object identity are not content; every word and number is."""
    task = Task("shop", "buy", 1, "Buy a fig.", {"a": 1, "b": [2]})
    assert task.key == Task("shop", "buy", 1, "Buy a fig.", {"b": [2], "a": 1}).key
    assert task.key[:8] == "6e7d42b9", "the split must not depend on Python's hash seed"
    others = [
        replace(task, prompt="Buy a pear."),
        replace(task, data={"a": 1, "b": [3]}),
        replace(task, family="cheapest"),
    ]
    assert len({task.key, *(other.key for other in others)}) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sides_of_the_split_never_meet(family):
    rng, each = random.Random(0), 4 if FAMILIES[family].world == "desk" else 20
    at = levels(family)
    training = [worlds.generate(rng, family, level) for level in at for _ in range(5 * each)]
    held_out = [worlds.generate(rng, family, level, held_out=True) for level in at for _ in range(each)]
    assert not any(task.held_out for task in training) and all(task.held_out for task in held_out)
    assert not {task.key for task in training} & {task.key for task in held_out}


def test_one_task_in_sixteen_is_held_out():
    rng = random.Random(0)
    sides = Counter(shop.generate(rng, "buy", 3).held_out for _ in range(4000))
    assert 0.05 < sides[True] / 4000 < 0.075


def leaks(split, count=3000):
    """Tasks of a small family (two digits times one) that a split puts on both sides."""
    sides = {True: set(), False: set()}
    for seed in range(2):
        rng = random.Random(seed)
        for index in range(count):
            task = WORLDS["chain"].generate(rng, "times", 2)
            sides[split(task, seed, index)].add(task.prompt)
    assert len(sides[True]) > 20 and len(sides[False]) > 400
    return sides[True] & sides[False]


def test_a_split_by_seed_or_by_index_leaks():
    """Mutants: other seeds or other positions hold the same tasks again. By content none is on both sides."""
    assert not leaks(lambda task, seed, index: task.held_out)
    assert leaks(lambda task, seed, index: seed == 1)
    assert leaks(lambda task, seed, index: index % 16 == 0)


# ---- exercise sheets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["chain", "condition", "repair"])
def test_exercise_sheets_are_right(family):
    """What a sheet teaches is true, for every line of 30 sheets; and its answers are not all the same."""
    rng, decisions = random.Random(0), Counter()
    for _ in range(30):
        pieces = FAMILIES[family].sheet(rng)
        assert [learned for _, learned in pieces] == [False, True] * (len(pieces) // 2)
        for (question, _), (answer, _) in zip(pieces[::2], pieces[1::2]):
            assert answer.strip() == SHEET_ANSWERS[family](question.strip()), question + answer
            decisions[answer] += 1
    assert max(decisions.values()) < 0.7 * sum(decisions.values())


def _arithmetic(question):
    left, operation, right = re.fullmatch(r"[a-z] (\d+)([+*-])(\d+)=", question).groups()
    return f"{eval(f'{int(left)} {operation} {int(right)}') % MODULUS:02d}"


def _below(question):
    left, right = question.split(" below ")
    return "yes" if int(left) < int(right) else "no"


def _same_line(question):
    rule, line = re.fullmatch(r"[a-d] (.*) [A-D] (.*)", question).groups()
    return "ok" if rule == line else "fix"


SHEET_ANSWERS = {"chain": _arithmetic, "condition": _below, "repair": _same_line}


def test_one_hidden_test_of_a_hundred_is_enough_to_fail():
    task = worlds.generate(random.Random(0), "repair", 2)
    conversation, (x, y) = conversation_.opening(task), repair.HIDDEN[-1]
    bench = conversation.environment.state
    bench.lines, bench.edits = ["z = x", *task.data["right"]], 1
    conversation_.act(conversation, turn("", content="fixed"))
    assert accepts(repair.verify, conversation)
    bench.lines.append(f"if z == {x} and y == {y}: x = x + 1")
    verdict = repair.verify(task, conversation.messages, conversation.environment)
    assert not verdict.passed and f"{len(repair.HIDDEN) - 1} of {len(repair.HIDDEN)}" in verdict.evidence


def test_a_program_that_prints_what_is_wanted_and_crashes_has_no_results():
    wanted = worlds.generate(random.Random(0), "repair", 2).data["wanted"]
    assert not set(repair.results([f"print({wanted}); 1 // 0"])) & set(wanted)


def test_a_repair_without_an_edit_is_told_so():
    conversation = attempt(worlds.generate(random.Random(0), "repair", 2), "fixed")
    assert conversation.verdict().evidence == "nothing was edited"


def test_words_beside_a_call_are_no_answer():
    said = turn("", content="6", call=("price", {"item": "lamp"}))
    assert final_answer([said]) is None and final_answer([turn("", content=" 6 ")]) == "6"


def test_an_answer_that_lists_every_item_is_wrong():
    """The right one is among them."""
    conversation = loop.play(worlds.generate(random.Random(0), "cheapest", 3), random.Random(0))
    assert accepts(shop.verify, conversation)
    conversation.messages[-1]["content"] = " ".join(conversation.task.data["items"])
    assert not accepts(shop.verify, conversation)
