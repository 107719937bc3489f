"""Thoughts put another way, cut short, or turned round; and right answers behind wrong thoughts, as they come by
themselves.

    SURFACES     the same facts of a chain written otherwise: what is computed with should not mind
    reached      a thought stopped after some of its steps: it has come to a number, but not to the answer
    natural      nobody touches anything: sampled turns, sorted by whether thought and answer are right
    conditions   the decision in a thought of the shop turned round: what is bought?
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence

from kimi_mini.agent import conversation, loop
from kimi_mini.agent.policy import Reply
from kimi_mini.experiments.thinking import shared
from kimi_mini.inference.attempts.routed import write_in_batches
from kimi_mini.inference.thinking import Prefix, Turn, write
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task
from kimi_mini.worlds.chain import MODULUS, OPERATIONS
from kimi_mini.worlds.rows import LIMITS

SHIFT = 9  # letters

Step = tuple[str, int, str, int, int]  # label, value before, operation, operand, result


def steps_of(task: Task) -> list[Step]:
    """The steps of a chain with their numbers."""
    value, found = task.data["start"], []
    for label, operation, operand in task.data["steps"]:
        result = OPERATIONS[operation](value, operand) % MODULUS
        found.append((label, value, operation, operand, result))
        value = result
    return found


def continued(task: Task, step: int, value: int) -> int:
    """Where the chain ends when the result of `step` (from 0) is `value`."""
    for _, operation, operand in task.data["steps"][step + 1 :]:
        value = OPERATIONS[operation](value, operand) % MODULUS
    return value


def decisive(task: Task, rng: random.Random) -> tuple[int, int]:
    """A step and a wrong result for it that leads to another answer."""
    while True:
        step = rng.randrange(task.level)
        value = rng.randrange(MODULUS)
        if continued(task, step, value) != task.data["answer"]:
            return step, value


def solves(turn: Turn, tokenizer: Tokenizer, task: Task) -> bool:
    """Whether a turn gives the right answer after a thought that writes down every result."""
    results = written_results(turn, tokenizer)
    right = [f"{result_of(task, step):02d}" for step in range(task.level)]
    return results == right and shared.number(turn, tokenizer) == task.data["answer"]


def result_of(task: Task, step: int) -> int:
    """The right result of a step."""
    return steps_of(task)[step][-1]


def foreign(solved: Sequence[tuple[Task, Turn]]) -> list[tuple[tuple[Task, Turn], tuple[Task, Turn]]]:
    """Each pair with the next one of the same length whose answer is another."""
    found = []
    for index, pair in enumerate(solved):
        rest = [*solved[index + 1 :], *solved[:index]]
        fits = (
            p for p in rest if p[0].level == pair[0].level and p[0].data["answer"] != pair[0].data["answer"]
        )
        other = next(fits, None)
        if other is not None:
            found.append((pair, other))
    return found


def whole_thought(turn: Turn, tokenizer: Tokenizer) -> Prefix:
    """A turn up to and including its </think>, all of it put in by us."""
    length = turn.ids.index(tokenizer.token_id("</think>")) + 1
    return Prefix.cut(turn, 0, turn.ids[:length])


def _renamed(label: str) -> str:
    letters = string.ascii_lowercase
    return letters[(letters.index(label) + SHIFT) % len(letters)]


def _turned(value: int, operation: str, operand: int) -> str:
    return f"{value:02d}-{operand}" if operation == "-" else f"{operand}{operation}{value:02d}"


SURFACES: dict[str, Callable[..., str]] = {
    "spaces": lambda label, a, sign, b, c: f"{label} {a:02d} {sign} {b} = {c:02d}",
    "labels renamed": lambda label, a, sign, b, c: f"{_renamed(label)} {a:02d}{sign}{b}={c:02d}",
    "no labels": lambda label, a, sign, b, c: f"{a:02d}{sign}{b}={c:02d}",
    "operands turned": lambda label, a, sign, b, c: f"{label} {_turned(a, sign, b)}={c:02d}",
    "result first": lambda label, a, sign, b, c: f"{label} {c:02d}={a:02d}{sign}{b}",
}


def paraphrased(
    turn: Turn, tokenizer: Tokenizer, task: Task, surface: str, steps: int | None = None
) -> Prefix:
    """The thought of a chain in another form, all of it put in by us: whole and closed, or its first `steps` alone."""
    parts = [SURFACES[surface](*step) for step in steps_of(task)[:steps]]
    text = " ".join(parts) if steps is not None else " ".join([*parts, "end"])
    ends = [] if steps is not None else [tokenizer.token_id("</think>")]
    return Prefix.cut(turn, 0, [tokenizer.token_id("<think>"), *tokenizer.encode_plain(text), *ends])


def reached(turn: Turn, tokenizer: Tokenizer, task: Task, steps: int) -> tuple[int, int]:
    """Tokens of a thought up to and with the result of its `steps`-th step, and that result. ValueError when something
    else stands there."""
    ends = [
        i for i, token in enumerate(turn.ids) if turn.thought[i] and tokenizer.decode([token]).endswith("=")
    ]
    result = result_of(task, steps - 1)
    ids = list(tokenizer.encode_plain(f"{result:02d}"))
    end = ends[steps - 1] + 1 + len(ids)
    if turn.ids[ends[steps - 1] + 1 : end] != ids:
        raise ValueError(f"step {steps} of the thought does not come to {result:02d}")
    return sum(turn.thought[:end]), result


def natural(model: KimiMini, tokenizer: Tokenizer, tasks: Sequence[Task], seed: int) -> dict:
    """Sampled turns: how many thoughts are right, step by step, and the answers behind them.

    says_last: how many of the answers behind wrong thoughts are the last result that the thought wrote down.
    """
    prompts = [shared.prompt_ids(tokenizer, task) for task in tasks]
    turns = write_in_batches(model, tokenizer, prompts, temperature=1.0, seed=seed, max_tokens=160)
    counts = {"n": len(tasks)} | dict.fromkeys(
        ("thought", "right_behind_right", "right_behind_wrong", "says_last"), 0
    )
    for task, turn in zip(tasks, turns):
        said, answer = written_results(turn, tokenizer), shared.number(turn, tokenizer)
        right = said == [f"{step[-1]:02d}" for step in steps_of(task)]
        is_right = answer == task.data["answer"]
        counts["thought"] += right
        counts["right_behind_right"] += right and is_right
        counts["right_behind_wrong"] += not right and is_right
        counts["says_last"] += not right and answer is not None and said[-1:] == [f"{answer:02d}"]
    return counts


def written_results(turn: Turn, tokenizer: Tokenizer) -> list[str]:
    """What stands behind the equals signs of a thought."""
    thought = tokenizer.decode([token for token, inside in zip(turn.ids, turn.thought) if inside])
    return [part.split("=")[1] for part in thought.split() if part.count("=") == 1]


def steps_kept(task: Task, rng: random.Random) -> int:
    """After how many steps a thought is cut short: before the last, where the number differs from the answer."""
    fits = [n for n, step in enumerate(steps_of(task)[:-1], 1) if step[-1] != task.data["answer"]]
    return rng.choice(fits) if fits else 0


def conditions(model: KimiMini, tokenizer: Tokenizer, tasks: Sequence[Task]) -> dict:
    """Turn the decision round in the second turn, and look at the orders.

    Only tasks whose two purchases differ and that were on the right way count.
    """
    talks = [
        conversation.opening(task) for task in tasks if task.data["choices"][0] != task.data["choices"][1]
    ]
    for talk in talks:
        conversation.begin(talk, tokenizer)
    advance(model, tokenizer, talks)
    asked = [talk for talk in talks if talk.finish is None]
    turns = write(model, tokenizer, [talk.ids for talk in asked])
    turned = [(talk, flipped(turn, tokenizer, talk.task)) for talk, turn in zip(asked, turns)]
    turned = [(talk, prefix) for talk, prefix in turned if prefix is not None]
    going = [talk for talk, _ in turned]
    advance(model, tokenizer, going, [prefix for _, prefix in turned])
    while going:
        going = [talk for talk in going if talk.finish is None]
        advance(model, tokenizer, going)
    bought = [orders(talk) for talk, _ in turned]
    right = [talk.task.data["bought"][0] for talk, _ in turned]
    other = [
        next(c for c in talk.task.data["choices"] if c not in talk.task.data["bought"]) for talk, _ in turned
    ]
    for talk in talks:
        talk.environment.close()
    return {
        "arm": "decision turned round (shop)",
        "n": len(turned),
        "follows": sum(b == [o] for b, o in zip(bought, other)),
        "stays": sum(b == [r] for b, r in zip(bought, right)),
    }


def advance(
    model: KimiMini,
    tokenizer: Tokenizer,
    talks: Sequence[conversation.Conversation],
    prefixes: Sequence[Prefix] | None = None,
) -> None:
    """One turn of each conversation."""
    turns = write(model, tokenizer, [talk.ids for talk in talks], prefixes=prefixes)
    for talk, turn in zip(talks, turns):
        loop.take_turn(talk, Reply.of(turn), tokenizer, LIMITS)


def flipped(turn: Turn, tokenizer: Tokenizer, task: Task) -> Prefix | None:
    """The turn up to its decision, with yes for no and no for yes; None when the decision is not there or not right."""
    words = {tokenizer.token_id(" yes"): " no", tokenizer.token_id(" no"): " yes"}
    place = next((i for i, token in enumerate(turn.ids) if turn.thought[i] and token in words), None)
    if place is None:
        return None
    right = " yes" if task.data["bought"][0] == task.data["choices"][0] else " no"
    if words[turn.ids[place]] == right:
        return None  # it was about to buy the wrong thing by itself
    return Prefix.cut(turn, place, tokenizer.encode_plain(words[turn.ids[place]]))


def orders(talk: conversation.Conversation) -> list[list]:
    """What stands in the order book: [[item, count], ...]."""
    return [list(row) for row in talk.environment.state.execute("SELECT item, count FROM orders")]
