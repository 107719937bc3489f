"""The ways to spend tokens on a task, each tried on the same held-out tasks; pairs of them only at equal tokens.

An outcome is what an arm makes of every task (passed, or the share of it over several sets of attempts, and tokens
written); a pair is refused unless both arms wrote the same (`inference.attempts.compare`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.evaluation.scoreboard import BATCH, solve
from kimi_mini.experiments.evaluation.aggregation import Suite, attempt
from kimi_mini.inference.attempts import (
    Attempt,
    Chooser,
    Chosen,
    best_of,
    compare,
    lucky,
    majority,
    matched,
    pass_at_k,
    per_task,
    spent,
    stop_at_first,
    surest,
)
from kimi_mini.inference.attempts.budget import TOLERANCE, chosen_by
from kimi_mini.inference.attempts.heavy import request
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task
from kimi_mini.worlds.repair.revised import revised
from kimi_mini.worlds.rows import LIMITS

Groups = Sequence[Sequence[Attempt]]
CHOICES: dict[str, Chooser] = {
    "one at random": lucky,
    "majority": majority,
    "surest": surest,
    "best by public tests": best_of,
    "stopping at the first": stop_at_first,
}
TESTED = ("best by public tests", "stopping at the first")  # where there are tests to run


@dataclass
class Book:
    """What was measured in one seed of a suite: a row an arm, and the differences between arms task by task."""

    suite: str
    seed: int
    rows: list[dict] = field(default_factory=list)
    pairs: list[dict] = field(default_factory=list)

    def row(self, arm: str, attempts: int, chosen: Sequence[Chosen], read: float, **more: int) -> None:
        """An arm: its success, and the tokens a task that the model wrote and read for it."""
        score, told = per_task(arm, chosen), {"suite": self.suite, "seed": self.seed, "arm": arm}
        said = {"success": round(score.value, 5), "tokens": round(score.tokens, 2), "read": round(read, 1)}
        self.rows.append(told | {"attempts": attempts, "n": len(chosen)} | said | more)

    def pair(
        self, arm: str, against: str, attempts: int, ours: Sequence[Chosen], theirs: Sequence[Chosen]
    ) -> None:
        """One arm against another on the same tasks. Raises ValueError unless they wrote the same tokens."""
        compare(per_task(arm, ours), per_task(against, theirs))
        self._differ(arm, against, attempts, ours, theirs)

    def gain(self, arm: str, attempts: int, ours: Sequence[Chosen], one: Sequence[Chosen]) -> None:
        """What an arm wins over a single attempt, for more tokens: no comparison of ways to spend the same."""
        self._differ(arm, "one attempt", attempts, ours, one)

    def _differ(self, arm, against, attempts, ours, theirs) -> None:
        told = {"suite": self.suite, "seed": self.seed, "arm": arm, "against": against, "attempts": attempts}
        tokens = [round(per_task("", chosen).tokens, 3) for chosen in (ours, theirs)]
        differences = [round(a.passed - b.passed, 4) for a, b in zip(ours, theirs, strict=True)]
        self.pairs.append(told | {"tokens": tokens, "differences": differences})


# ---- what the model does -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """A suite in one seed: its tasks, the agent and the copy that was taught, and attempts of both at every task."""

    suite: Suite
    seed: int
    tokenizer: Tokenizer
    tasks: Sequence[Task]
    agent: KimiMini
    learner: KimiMini
    groups: Groups
    own: Groups

    def aggregators(self) -> dict[str, tuple[KimiMini, float]]:
        """Who writes the last turn of heavy mode, and at which temperature. A vote takes what is most frequent, and so
        the last turn is greedy; beside it one that is sampled as the attempts were, and one by the untaught agent."""
        sampled = self.learner, self.suite.temperature
        return {"heavy": (self.learner, 0.0), "heavy, sampled": sampled, "heavy, untaught": (self.agent, 0.0)}

    def rivals(self, arm: str) -> dict[str, Groups]:
        """Whose votes an arm of heavy mode is compared with."""
        others = {"majority": self.groups}
        return others | ({"its own majority": self.own} if arm == "heavy" else {})


def attempts_at(
    model: KimiMini,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    each: int,
    temperature: float,
    seed: int,
    budget: int | None = None,
) -> list[list[Attempt]]:
    """`each` attempts at every task, sampled, their thoughts of at most `budget` tokens."""
    copies, done = [task for task in tasks for _ in range(each)], []
    for start in range(0, len(copies), BATCH):
        some = copies[start : start + BATCH]
        numbers = range(start, start + len(some))
        policy = LocalPolicy(model, tokenizer, temperature, seed, budget, numbers)
        done += [attempt(talk) for talk in loop.run(policy, tokenizer, some, LIMITS)]
    return [done[i : i + each] for i in range(0, len(done), each)]


def aggregated(
    model: KimiMini,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    groups: Groups,
    temperature: float,
    seed: int,
) -> list[Conversation]:
    """Heavy mode's last turn: `model` reads what the attempts came to, and answers."""
    asked = [replace(task, prompt=request(task.prompt, group)) for task, group in zip(tasks, groups)]
    return solve(model, tokenizer, asked, LIMITS, temperature=temperature, seed=seed)


def heavy(groups: Groups, last: Sequence[Attempt]) -> list[Chosen]:
    """What heavy mode comes to: its last turn decides, and the attempts before it are paid for as well."""
    return [Chosen(float(one.passed), spent(group) + one.tokens) for group, one in zip(groups, last)]


def revisions(model: KimiMini, trial: Trial, rounds: int) -> list[Attempt]:
    """One attempt at every repair, revised up to `rounds` times after what the public tests said. The first attempt of
    the copy is the first of the trial's own: the dice are the same."""
    talks = [loop.begun(task, trial.tokenizer, LIMITS) for task in trial.tasks]
    for talk in talks:
        talk.environment = revised(talk.task, rounds)
    numbers = [place * len(trial.own[0]) for place in range(len(talks))]
    for start in range(0, len(talks), BATCH):
        some, part = talks[start : start + BATCH], numbers[start : start + BATCH]
        policy = LocalPolicy(
            model, trial.tokenizer, trial.suite.temperature, own_seed(trial.seed), numbers=part
        )
        loop.converse(policy, some, trial.tokenizer, LIMITS)
    return [attempt(talk) for talk in talks]


def own_seed(seed: int) -> int:
    """The dice of the copy's attempts: not those of the agent's."""
    return seed + 1000


# ---- the arms ----------------------------------------------------------------------------------------------


def choices(book: Book, groups: Groups, sizes: Sequence[int], tested: bool) -> None:
    """Every choice among n attempts, n = each of `sizes`: the mean over as many sets of n as there are. And pass@n."""
    for size in sizes:
        for name, choose in CHOICES.items():
            if tested or name not in TESTED:
                sets = [[group[i : i + size] for group in groups] for i in _starts(groups, size)]
                book.row(
                    name, size, mean_of([chosen_by(choose, some) for some in sets]), read_by(groups, size)
                )
        counts = [(len(group), sum(one.passed for one in group)) for group in groups]
        ceiling = [
            Chosen(pass_at_k(n, c, size), spent(group) * size // n) for (n, c), group in zip(counts, groups)
        ]
        book.row("pass@n", size, ceiling, read_by(groups, size))


def _starts(groups: Groups, size: int) -> range:
    return range(0, len(groups[0]) - size + 1, size)


def mean_of(several: Sequence[Sequence[Chosen]]) -> list[Chosen]:
    """Task by task the mean over several sets of attempts."""
    return [
        Chosen(fmean(c.passed for c in each), round(fmean(c.tokens for c in each))) for each in zip(*several)
    ]


def read_by(groups: Groups, size: int) -> float:
    """Tokens a task that `size` attempts read, every attempt its whole context."""
    return size * fmean(one.read for group in groups for one in group)


def heavily(book: Book, trial: Trial, sizes: Sequence[int]) -> list[dict]:
    """Heavy mode over n attempts against a vote that was given as many tokens: over more attempts of the same model,
    and over attempts of the copy that aggregates. Returns aggregations that were right where the vote was wrong."""
    found: list[dict] = []
    for size in sizes:
        some = [group[:size] for group in trial.groups]
        for arm, (model, temperature) in trial.aggregators().items():
            talks = aggregated(model, trial.tokenizer, trial.tasks, some, temperature, trial.seed)
            last = [attempt(talk) for talk in talks]
            chosen = heavy(some, last)
            book.row(
                arm, size, chosen, read_by(some, size) + fmean(one.read for one in last), **beyond(some, last)
            )
            for against, attempts in trial.rivals(arm).items():
                vote = paid_with(per_task(arm, chosen).tokens, majority, attempts)
                if vote is not None:
                    book.pair(arm, against, size, chosen, vote)
                    if (arm, against) == ("heavy", "majority"):
                        found += [
                            said(talk) for talk, a, b in zip(talks, chosen, vote) if a.passed > b.passed
                        ]
    return found


def paid_with(tokens: float, choose: Chooser, groups: Groups) -> list[Chosen] | None:
    """What `choose` makes of as many attempts as these tokens a task pay for; None where one attempt costs more, or not
    so many were made."""
    least, most = (fmean(choose(group[:n]).tokens for group in groups) for n in (1, len(groups[0])))
    if not least * (1 - TOLERANCE) <= tokens <= most * (1 + TOLERANCE):
        return None
    return chosen_by(choose, matched(choose, groups, tokens))


def beyond(groups: Groups, last: Sequence[Attempt]) -> dict[str, int]:
    """How often the aggregation said what none of its attempts did, and how often that was right."""
    new = [one for group, one in zip(groups, last) if one.answer not in {other.answer for other in group}]
    return {"new": len(new), "new_right": sum(one.passed for one in new)}


def said(talk: Conversation) -> dict:
    """A request and what the model wrote about it."""
    answer = next(message for message in talk.messages if message["role"] == "assistant")
    calls = [call["function"]["arguments"] for call in answer.get("tool_calls") or []]
    told = {"request": talk.task.prompt, "thought": answer["reasoning_content"]}
    return told | {"answer": answer.get("content") or " ".join(calls)}


def revising(book: Book, trial: Trial, rounds: Sequence[int]) -> None:
    """Revisions of one attempt against new attempts of the same model, both until the public tests pass, at equal
    tokens."""
    for most in rounds:
        for arm, model in (("revision", trial.learner), ("revision, untaught", trial.agent)):
            done = revisions(model, trial, most)
            chosen = [Chosen(float(one.passed), one.tokens) for one in done]
            book.row(arm, 1 + most, chosen, fmean(one.read for one in done))
            if arm == "revision":
                again = paid_with(per_task(arm, chosen).tokens, stop_at_first, trial.own)
                if again is not None:
                    book.pair(arm, "new attempts", most, chosen, again)


def budgeted(book: Book, trial: Trial, budgets: Sequence[int]) -> None:
    """One attempt whose thought ends at a hard stop: less than one attempt's tokens. And one greedy attempt."""
    each = [("shorter thought", budget, trial.suite.temperature, budget) for budget in budgets]
    for arm, number, temperature, budget in [*each, ("greedy", 1, 0.0, None)]:
        done = attempts_at(trial.agent, trial.tokenizer, trial.tasks, 1, temperature, trial.seed, budget)
        book.row(arm, number, chosen_by(lucky, done), read_by(done, 1))
