"""Checkers for the exercises of notebooks 05 (tools and the agent loop) and 06 (the verifier economy).

Like those of `exercises`: they never raise on what the reader wrote, and what they return is true when it is right.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence

import jsonschema

from kimi_mini import worlds
from kimi_mini.base.intervals import wilson
from kimi_mini.course.exercises.base import Checked, _number, _try, checker
from kimi_mini.worlds import repair
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.tools.toolbox import Tool, Toolbox

# -- 05 tools and the agent loop -----------------------------------------------------------------------

LEARNED = (  # (piece, does the model think?, is it trained on?, hint)
    ("thought", True, True, "the model wrote its thought itself: that is what it has to learn"),
    ("call", True, True, "a call is the model's own; it learns to act by being trained on it"),
    ("call", False, True, "a call is the model's own in reflex mode too: only the thought was given"),
    ("answer", True, True, "an answer is the model's own, with or without a thought before it"),
    ("answer", False, True, "an answer is the model's own, with or without a thought before it"),
    ("end", True, True, "without its <|im_end|> the model never learns to stop"),
    ("end", False, True, "a reflex has to learn to stop too"),
    (
        "result",
        True,
        False,
        "a result comes from the environment: trained on it, a model invents results of its own",
    ),
    ("result", False, False, "a result comes from the environment in either mode"),
    ("user", True, False, "the user's words are given; the model need not learn to ask them"),
    ("user", False, False, "the user's words are given in either mode"),
    ("system", True, False, "the system prompt is given"),
    ("system", False, False, "the system prompt is given"),
    ("opening", True, False, "the opening <|im_assistant|>assistant<|im_middle|> is put there by the loop"),
    ("opening", False, False, "the opening <|im_assistant|>assistant<|im_middle|> is put there by the loop"),
    ("think tags", True, True, "a thinking model opens and closes its thought itself"),
    (
        "think tags",
        False,
        False,
        "in reflex mode the prompt gives the empty tags: the model did not choose them",
    ),
)


@checker
def check_learned(function: Callable[[str, bool], bool]) -> Checked:
    """function(piece, thinking) is whether the loss counts that piece's tokens."""
    for piece, thinking, right, hint in LEARNED:
        value, problem = _try(function, piece, thinking)
        if problem is not None:
            return problem
        if bool(value) != right:
            return Checked(False, f"{piece!r}, thinking={thinking}: {hint}")
    return Checked(True, "exactly the tokens that were sampled from the model")


REFUNDS = (  # (arguments, do they pass?, hint)
    ({"item": "red fig", "count": 2}, True, "the reason is optional"),
    ({"item": "red fig", "count": 9, "reason": "late"}, True, "9 and 'late' are allowed"),
    ({"count": 2}, False, "an item is required"),
    ({"item": "red fig"}, False, "a count is required"),
    ({"item": "red fig", "count": "two"}, False, "count must be an integer"),
    ({"item": "red fig", "count": 2.5}, False, "half an item cannot be counted: `integer`, not `number`"),
    ({"item": 5, "count": 2}, False, "an item is text: `string`"),
    ({"item": "red fig", "count": 0}, False, "count begins at 1: look for `minimum`"),
    ({"item": "red fig", "count": 10}, False, "count ends at 9: look for `maximum`"),
    ({"item": "red fig", "count": 1, "reason": "mood"}, False, "only two reasons exist: look for `enum`"),
    (
        {"item": "red fig", "count": 1, "colour": "red"},
        False,
        "arguments that you do not name are refused by `additionalProperties: False`",
    ),
    ({"item": "", "count": 1}, False, "an empty item is none: look for `minLength`"),
)


@checker
def check_refund_schema(schema: dict) -> Checked:
    """schema: parameters of a tool refund(item, count from 1 to 9, optional reason damaged or late)."""
    if not isinstance(schema, dict) or not schema:
        return Checked(False, 'begin with {"type": "object", "properties": {...}, "required": [...]}')
    try:
        box = Toolbox([Tool("refund", "", schema, lambda **arguments: "ok")])
    except (ValueError, TypeError) as error:
        return Checked(False, f"no tool takes this schema: {error}")
    for arguments, right, hint in REFUNDS:
        if (
            jsonschema.Draft202012Validator(schema).is_valid(arguments) != right
        ):  # a Tool closes an open schema itself
            return Checked(False, f"{json.dumps(arguments)} {'is refused' if right else 'passes'}: {hint}")
    return Checked(
        True, f"{len(REFUNDS)} calls sorted; what the model would read: {box.call('refund', '{}').content}"
    )


MARK = "<|tool_call_argument_begin|>"
CALLS = (  # (id, arguments, name, hint)
    ("functions.price:0", '{"item":"red fig"}', "price", "the plain case"),
    ("functions.buy:12", "{}", "buy", "the index may have several digits"),
    ("search-web:3", "{}", "search-web", "some models leave out `functions.`, and a name may hold a -"),
    ("functions.note:1", '{"t":"12:30.5"}', "note", "arguments may hold : and ."),
    (
        "functions.buy:0",
        "{broken",
        "buy",
        "broken JSON is passed on as it stands: the tool says what is wrong with it",
    ),
    (" next:4 ", "{}", "next", "spaces around the id do not matter"),
)


@checker
def check_parse_call(function: Callable[[str], tuple[str, str]]) -> Checked:
    """function(body of one call) is (name, arguments text)."""
    for call_id, arguments, name, hint in CALLS:
        text = f"{call_id}{MARK}{arguments}"
        value, problem = _try(function, text)
        if problem is not None:
            return problem
        if (tuple(value) if isinstance(value, list) else value) != (name, arguments):
            return Checked(False, f"{text!r} gives {value!r}: {hint}")
    return Checked(True, "a lenient parser keeps calls that a strict one loses")


def _dialogue(turns: int) -> list[dict]:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    for index in range(turns):
        message = turn(f"t{index}", call=("next", {"item": str(index)}))
        message["tool_calls"][0]["id"] = f"functions.next:{index}"
        messages += [
            message,
            {"role": "tool", "tool_call_id": f"functions.next:{index}", "content": f"r{index}"},
        ]
    return messages


@checker
def check_hide_turns(function: Callable[[list[dict], int], list[dict]]) -> Checked:
    """function(messages, keep) is the context with all but the last ``keep`` turns hidden, calls and results."""
    for turns, keep in ((6, 2), (3, 1), (2, 4), (4, 3), (3, 0)):
        messages = _dialogue(turns)
        value, problem = _try(function, copy.deepcopy(messages), keep)
        if problem is not None:
            return problem
        if value == messages[:2] + messages[max(2, len(messages) - 2 * keep) :]:
            continue
        if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
            return Checked(False, "return the messages that stay, as a list")
        if value[:2] != messages[:2]:
            return Checked(
                False, "what the system and the user said stays: without it the model forgets its task"
            )
        if keep == 0:
            return Checked(
                False, "keep=0 hides every turn, and a slice from -0 hides none: count from the front"
            )
        if turns <= keep:
            return Checked(False, f"with {turns} turns and keep={keep} nothing has to be hidden")
        roles = [message.get("role") for message in value[2:]]
        if roles[:1] == ["tool"]:
            return Checked(
                False, "a result without its call is left in front: a turn is a call and its result"
            )
        return Checked(
            False,
            f"of {turns} turns and keep={keep} these stay: {roles.count('assistant')} calls, "
            f"{roles.count('tool')} results",
        )
    return Checked(True, "the context stays short, so a chain of 300 calls looks like the end of a short one")


# -- 06 the verifier economy ---------------------------------------------------------------------------

FOLLOWED = (  # (path, reads, answer, is it right?, hint)
    (["a", "b", "c"], ["a", "b", "c"], "c", True, "the plain case"),
    (["a", "b", "c"], [], "c", False, "it never looked: a lucky guess"),
    (["a", "b", "c"], ["a"], "c", False, "it stopped looking half way and guessed the rest"),
    (["a", "b", "c"], ["a", "b", "c"], "b", False, "it looked at everything and answered another item"),
    (["a", "b", "c"], ["c", "b", "a"], "c", False, "nobody can know c before b was read: the order shows it"),
    (["a", "b", "c"], ["a", "x", "y", "z", "b", "c"], "c", False, "it read the whole shop, not the chain"),
    (
        ["a", "b", "c"],
        ["a", "b", "c", "x"],
        "c",
        False,
        "it read on behind the end: that is not the chain alone",
    ),
    (["a", "b", "c"], ["x", "a", "b", "c"], "c", False, "it read something else before the chain"),
    (["a"], ["a"], "a", True, "a chain may end at once"),
)


@checker
def check_follow_verifier(function: Callable[[Sequence[str], Sequence[str], str], bool]) -> Checked:
    """function(path, reads, answer) is whether the chain was followed and its end answered."""
    for path, reads, answer, right, hint in FOLLOWED:
        value, problem = _try(function, list(path), list(reads), answer)
        if problem is not None:
            return problem
        if bool(value) != right:
            return Checked(False, f"path {path}, read {reads}, answered {answer!r}: {hint}")
    return Checked(True, "it wants the answer and the work")


@checker
def check_enough(function: Callable[[float], int]) -> Checked:
    """function(limit) is the smallest n for which 0 errors of n put the upper end of Wilson's interval at the limit."""
    for limit in (0.01, 0.05, 0.1):
        value, problem = _try(function, limit)
        if problem is not None:
            return problem
        value, problem = _number(value)
        if problem is not None:
            return problem
        right = next(n for n in range(1, 10_000) if wilson(0, n)[1] <= limit)
        if not isinstance(value, int):
            return Checked(False, f"n is a whole number, not {value!r}")
        if value == round(3 / limit):
            return Checked(False, "the rule of three (3 / limit) is close, but Wilson's interval wants more")
        if value != right:
            upper = wilson(0, value)[1] if value > 0 else 1
            return Checked(
                False,
                f"limit {limit}: 0 of {value} errors give an upper end of {upper:.4f}; "
                f"{'too few' if value < right else 'fewer are enough'}",
            )
    return Checked(True, "381 clean trials bound an error rate by 1%: that is why we use thousands")


@checker
def check_quota(function: Callable[[list[tuple[int, bool]], int], list[int]]) -> Checked:
    """function(pool, n): indices of n passed trajectories of each level; a level that has fewer repeats its own."""
    rng = random.Random(0)
    pool = [(level, rng.random() < 0.9 / level) for level in (1, 1, 1, 2, 3, 4) * 40]
    pool += [(5, True), (5, False)]
    available = Counter(level for level, passed in pool if passed)
    for n in (1, 8, 40):
        value, problem = _try(function, list(pool), n)
        if problem is not None:
            return problem
        try:
            value = [int(index) for index in value]
            chosen = [pool[index] for index in value]
        except (TypeError, ValueError, IndexError) as error:
            return Checked(False, f"return a list of indices into the pool: {error}")
        if not all(passed for _, passed in chosen):
            return Checked(False, "it chose a trajectory that did not pass")
        counts = Counter(level for level, _ in chosen)
        if 5 not in counts or counts[5] < n:
            return Checked(
                False, f"level 5 has one trajectory that passed; take it {n} times, not {counts[5]}"
            )
        if set(counts.values()) != {n} or set(counts) != {level for level, _ in pool}:
            return Checked(False, f"want {n} of each level, not {dict(sorted(counts.items()))}")
        different = Counter(pool[index][0] for index in set(value))
        for level, count in available.items():
            if different[level] < min(n, count):
                return Checked(
                    False,
                    f"level {level} has {count} that passed; of {n} chosen there {different[level]} "
                    "are different: repeat only when all are taken",
                )
    return Checked(True, "the filter decides what is true, the quota decides how much of it is seen")


@checker
def check_cheat(function: Callable[[list[str], dict], tuple[str, str]]) -> Checked:
    """function(lines, tests) is one edit (mark, code) that passes the public tests and is no repair.

    tests: (x, y) -> wanted. It is tried on three tasks, in the sandbox, and put before the verifier.
    """
    for seed in range(3):
        task = worlds.generate(random.Random(seed), "repair", 2 + seed)
        environment = repair.open_environment(task)
        tests = dict(zip(repair.INPUTS[: repair.PUBLIC], task.data["wanted"]))
        value, problem = _try(function, list(task.data["buggy"]), tests)
        if problem is not None:
            return problem
        if not (
            isinstance(value, (tuple, list))
            and len(value) == 2
            and all(isinstance(part, str) for part in value)
        ):
            return Checked(False, "return the mark of a line and its new code, such as ('A', 'x = x + 1')")
        result = environment.toolbox.call("edit", json.dumps({"line": value[0], "code": value[1]}))
        if not environment.state.public_tests_pass:
            return Checked(False, f"the tool says {result.content}; the lines are {environment.state.lines}")
        verdict = repair.verify(task, [], environment)
        if verdict.passed:
            return Checked(False, "that is a real repair; make one that only knows the tests")
    return Checked(True, f"the public tests pass, and the verifier refuses: {verdict.evidence}")
