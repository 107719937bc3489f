"""A model that was never asked to judge attempts learns to: aggregation and revision, from its own sampled attempts.

The agent works on training tasks, several attempts each. From these come two kinds of conversation, in which only the
last turns are learned:

    aggregate   the request of heavy mode, and what an expert writes: of each attempt whether it is right, until one is
                (in a repair with the rule, the line and the attempted line beside each other), then that one's answer;
                and where none is right, the work done anew
    revise      a repair whose public tests fail, what they say, and the expert's repair of the file as it is now

Beside them stand ordinary trajectories of all families, against forgetting. The expert knows the truth; the request
and the words of the user do not.

How long the copy is taught, and at which rate, was decided on training tasks: with 400,000 tokens at half the rate it
writes aggregations without end.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kimi_mini import worlds
from kimi_mini.agent.conversation import CUT_OFF, Conversation, act, first_messages
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.verifiers.shared import pools
from kimi_mini.inference.attempts import Attempt
from kimi_mini.inference.attempts.heavy import ranked, request
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan, Schedule
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft
from kimi_mini.training.batch import Example
from kimi_mini.training.synthesis import SOURCES, Source
from kimi_mini.worlds import Task
from kimi_mini.worlds.base import Message, turn
from kimi_mini.worlds.repair.code import LINE_MARKS, note, shorthand
from kimi_mini.worlds.repair.revised import failing, reviser
from kimi_mini.worlds.rows import LIMITS

# of the tokens; the rest is replay
SHARES = {("repair", "aggregate"): 0.28, ("chain", "aggregate"): 0.28, ("repair", "revise"): 0.12}
TOKENS, TASKS = 1_800_000, 300  # of training; tasks a family
ATTEMPTS, DRAWS = 8, 3  # attempts at each, and requests about them
MOST_SHOWN = 15  # attempts that a request may speak of
AGREED = 0.3  # of the requests about attempts that all say the same
SCHEDULE = Schedule(peak=0.5, decay_start=0.35)


@dataclass(frozen=True)
class Suite:
    """Tasks of a family, sampled at a temperature."""

    family: str
    levels: tuple[int, ...]
    temperature: float


# ---- an attempt, and what is shown of it -------------------------------------------------------------------


def attempt(talk: Conversation) -> Attempt:
    """A finished conversation as an attempt. Of a repair the answer is the file that it leaves behind."""
    logprobs = [value for segment in talk.segments for value in segment.logprobs]
    sure = sum(logprobs) / max(1, talk.written)
    read = sum(not own for own in talk.mask)
    said = talk.messages[-1].get("content") or ""
    if talk.task.family == "repair":
        bench = talk.environment.state
        answer, accepted, shown = tuple(bench.lines), bench.public_tests_pass, changes(talk.task, bench.lines)
    else:
        thought = talk.messages[-1].get("reasoning_content") or ""
        answer = "" if talk.finish in CUT_OFF else said.strip()
        accepted, shown = False, " ".join(f"{thought} {said}".split())
    return Attempt(answer, talk.written, accepted, talk.verdict().passed, sure, shown, read)


def changes(task: Task, lines: Sequence[str]) -> str:
    """The lines of a repair that are not as they were: "C x = x + 7"."""
    pairs = zip(LINE_MARKS, lines, task.data["buggy"])
    return "; ".join(f"{mark} {now}" for mark, now, before in pairs if now != before) or "nothing"


# ---- what the expert makes of them -------------------------------------------------------------------------


def reflect(task: Task, group: Sequence[Attempt]) -> Iterator[Message]:
    """The expert's aggregation of attempts at a task."""
    made = {"repair": _reflect_repair, "chain": _reflect_chain}[task.family]
    yield from made(task, [(count, one.answer) for count, one in ranked(group)])


def _reflect_repair(task: Task, answers: Sequence[tuple[int, tuple[str, ...]]]) -> Iterator[Message]:
    right, buggy, at = task.data["right"], task.data["buggy"], task.data["at"]
    notes = []
    for _, lines in answers:
        good = list(lines) == right
        first = next((i for i, line in enumerate(lines) if line != buggy[i]), None)
        if first is not None:
            tried = note(first, right[first], buggy[first], shorthand(lines[first])[:20])
            notes.append(f"{tried} {'yes' if good else 'no'}")
        if good:
            break
    else:  # none of them is right
        notes += [note(i, right[i], buggy[i], "ok") for i in range(at)] + [
            note(at, right[at], buggy[at], "fix")
        ]
    yield turn(" ".join(notes), call=("edit", {"line": LINE_MARKS[at], "code": right[at]}))
    yield turn("end", content="fixed")


def _reflect_chain(task: Task, answers: Sequence[tuple[int, str]]) -> Iterator[Message]:
    own, notes = next(worlds.registry.expert(task, random.Random(0))), []
    for _, answer in answers:
        good = answer == own["content"]
        notes.append(f"{answer if answer.isdigit() and len(answer) == 2 else '?'} {'yes' if good else 'no'}")
        if good:
            break
    else:
        notes.append(own["reasoning_content"])
    yield turn(" ".join(notes), content=own["content"])


# ---- training ----------------------------------------------------------------------------------------------


def sampled(
    model: KimiMini, tokenizer: Tokenizer, suite: Suite, tasks: int, seed: int
) -> list[list[Conversation]]:
    """ATTEMPTS attempts at each of so many training tasks."""
    rng = random.Random(f"{seed}/aggregation/{suite.family}")
    new = [worlds.generate(rng, suite.family, suite.levels[i % len(suite.levels)]) for i in range(tasks)]
    copies = [task for task in new for _ in range(ATTEMPTS)]
    done = scoreboard.solve(model, tokenizer, copies, LIMITS, temperature=suite.temperature, seed=seed)
    return [done[i : i + ATTEMPTS] for i in range(0, len(done), ATTEMPTS)]


def aggregations(
    tokenizer: Tokenizer, groups: Sequence[Sequence[Conversation]], seed: int
) -> dict[int, list[Example]]:
    """level -> requests about some of the attempts at a task, and the expert's aggregation. A request speaks of up to
    MOST_SHOWN attempts, drawn with putting back, for there are fewer; most of those on which all agree are left out."""
    rng, found = random.Random(f"{seed}/aggregations"), {}
    for group in groups:
        task, made = group[0].task, [attempt(talk) for talk in group]
        for _ in range(DRAWS):
            some = rng.choices(made, k=rng.randint(1, MOST_SHOWN))
            if len({one.answer for one in some}) == 1 and rng.random() > AGREED:
                continue
            talk = Conversation(task, *_opened(replace(task, prompt=request(task.prompt, some))))
            for message in reflect(task, some):
                act(talk, message)
            found.setdefault(task.level, []).append(_example(tokenizer, talk))
    return found


def _opened(task: Task):
    return first_messages(task), worlds.WORLDS[task.world].open_environment(task)


def revisions(tokenizer: Tokenizer, groups: Sequence[Sequence[Conversation]]) -> dict[int, list[Example]]:
    """level -> attempts at a repair whose public tests fail, what they say, and the expert's revision."""
    found: dict[int, list[Example]] = {}
    for talk in (talk for group in groups for talk in group):
        said = failing(talk.environment.state) if talk.finish == "stop" else None
        if said is not None:
            talk.messages.append({"role": "user", "content": said})
            for message in reviser(talk.task, talk.environment.state.lines):
                act(talk, message)
            found.setdefault(talk.task.level, []).append(_example(tokenizer, talk))
    return found


def _example(tokenizer: Tokenizer, talk: Conversation) -> Example:
    ids, mask = chat.encode(tokenizer, talk.messages, talk.tools)
    return Example(np.asarray(ids, np.int32), np.asarray(mask, bool))


def taught(
    model: KimiMini, tokenizer: Tokenizer, suites: Sequence[Suite], seed: int, scale: float = 1.0
) -> KimiMini:
    """A copy of `model` that has learned to aggregate and to revise."""
    tokens, tasks = int(TOKENS * scale), max(24, int(TASKS * scale))
    rest = 1 - sum(SHARES.values())
    whole = sum(source.share for source in SOURCES)
    replay = [replace(source, share=source.share * rest / whole) for source in SOURCES]
    examples = pools(tokenizer, replay, tokens, seed + 100, mistakes=0.0)
    for suite in suites:
        groups = sampled(model, tokenizer, suite, tasks, seed)
        made = {"aggregate": aggregations(tokenizer, groups, seed)}
        if suite.family == "repair":
            made["revise"] = revisions(tokenizer, groups)
        for mode, by_level in made.items():
            source = Source(suite.family, mode, SHARES[suite.family, mode], tuple(sorted(by_level)))
            examples |= {(source, level): some for level, some in by_level.items()}
    learner = copy.deepcopy(model)
    plan = Plan(seed=seed, finetune=Finetune(tokens=tokens, ramp=sft.AT_ONCE, schedule=SCHEDULE))
    finetune.tune(learner, examples, plan, title=f"aggregation, seed {seed}")
    return learner
