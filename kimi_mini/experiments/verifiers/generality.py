"""The generality scoreboard: what an agent makes of surfaces, errors and kinds of task that were held out.

    python -m kimi_mini.experiments.verifiers.generality [--checkpoint FOLDER] [--name LOG]

Every row of world `desk` that is trained nowhere, greedily; beside it a control that cannot read: it looks up the
training task whose request is most alike and does and says what was done and said there. An agent that is not far
above the control recalls. And how often the agent makes something up: answers where the honest one is a refusal, calls
of tools that nobody declared, per 1,000.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from tqdm import tqdm

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation, opening
from kimi_mini.agent.policy import Script
from kimi_mini.base.command import in_one_line
from kimi_mini.base.denials import denies
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import wilson
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.course.figures import scores
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.harness import begin, common_parser, finish, rate, read
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import FAMILIES, WORLDS, Task, registry
from kimi_mini.worlds.base import Expert, final_answer
from kimi_mini.worlds.rows import Row

TASKS = 100  # a row; the run that made the agent measures 200
MEMORY = 2_000  # training tasks that the control knows
GRAM = 4  # letters; requests are alike by the sets of these that they share
HONEST = ("missing", "refuse")  # rows on which any other answer is made up
MOST_INVENTED = 20  # in 1,000
DESK = WORLDS["desk"]
ROWS = tuple(row for row in DESK.rows if not FAMILIES[row.family].shares)


def grams(text: str) -> frozenset[str]:
    """All pieces of GRAM letters, without case."""
    text = text.lower()
    return frozenset(text[i : i + GRAM] for i in range(len(text) - GRAM + 1))


class Recall:
    """The control: training tasks with what their expert did."""

    def __init__(self, count: int, seed: int):
        rng = random.Random(f"{seed}/recall")
        self.known: list[tuple[frozenset[str], list[dict]]] = []
        families = [name for name, family in DESK.families.items() if family.shares]
        for index in range(count):
            family = families[index % len(families)]
            task = registry.generate(rng, family, rng.choice(FAMILIES[family].levels))
            played = loop.play(task, rng)
            turns = [message for message in played.messages if message["role"] == "assistant"]
            self.known.append((grams(task.prompt), turns))
            played.environment.close()

    def script(self, conversation: Conversation) -> Expert:
        """What was done for the request that is most alike (Jaccard)."""
        asked = grams(conversation.task.prompt)
        _, turns = max(self.known, key=lambda known: len(known[0] & asked) / len(known[0] | asked))
        for message in copy.deepcopy(turns):
            for call in message.get("tool_calls") or []:
                call["id"] = None
            yield message

    def work(self, tasks: Sequence[Task]) -> list[Conversation]:
        """All tasks, worked on by recall."""
        conversations = [opening(task) for task in tasks]
        loop.converse(Script(self.script), conversations)
        return conversations


def calls_of(conversation: Conversation) -> Iterator[bool]:
    """For each call, whether its tool was declared."""
    box = conversation.environment.toolbox
    for message in conversation.messages:
        for call in message.get("tool_calls") or []:
            yield call["function"]["name"] in box.tools


def made_up(conversation: Conversation) -> bool:
    """An answer that denies nothing, where the honest one does."""
    answer = final_answer(conversation.messages)
    return answer is not None and not denies(answer)


def measure(
    model: KimiMini, tokenizer: Tokenizer, row: Row, count: int, control: Recall
) -> tuple[dict, list[Conversation]]:
    """One row: success of the agent and of the control on the same held-out tasks."""
    tasks = registry.held_out_tasks(row.family, row.levels, count, 0)
    done = scoreboard.solve(model, tokenizer, tasks, row.limits)
    passed = [conversation.verdict().passed for conversation in done]
    recalled = sum(conversation.verdict().passed for conversation in control.work(tasks))
    by_level: dict[str, list[bool]] = {}
    for task, right in zip(tasks, passed):
        by_level.setdefault(str(task.data["pattern"]), []).append(right)
    return {
        "row": row.name,
        "n": len(tasks),
        **rate(sum(passed), len(tasks)),
        "control": rate(recalled, len(tasks)),
        "by_pattern": {name: [sum(found), len(found)] for name, found in by_level.items()},
        "floor": row.floor,
        "says": row.says,
    }, done


def main() -> None:
    """Measure every row; write data/results/generality.json and the figure."""
    parser = common_parser(__doc__.splitlines()[0], seeds=(0,), checkpoint=CHECKPOINTS / "reader")
    parser.add_argument("--name", default="generality", help="of the log")
    args = read(parser)
    model, tokenizer, log = begin(args.name, args)
    count, control = max(8, int(TASKS * args.scale)), Recall(max(16, int(MEMORY * args.scale)), 0)
    honest, calls = [], []
    for row in tqdm(ROWS, unit="row"):
        found, done = measure(model, tokenizer, row, count, control)
        log.row(**found)
        calls += [declared for conversation in done for declared in calls_of(conversation)]
        if row.family in HONEST:
            honest += [made_up(conversation) for conversation in done]
        tqdm.write(f"{row.name:20s} {found['value']:.3f}  control {found['control']['value']:.3f}")
    report(log, honest, calls)
    finish(log, **{args.name: draw})


def report(log: Log, honest: list[bool], calls: list[bool]) -> None:
    """What was made up, per 1,000, and whether recall could have done it."""
    for name, wrong, of, says in (
        ("invented", sum(honest), len(honest), "answers made up where there is none, of 1,000"),
        ("undeclared", len(calls) - sum(calls), len(calls), "calls of tools that nobody declared, of 1,000"),
    ):
        low, high = wilson(wrong, of) if of else (None, None)
        value = 1000 * wrong / of if of else None
        log.claim(
            f"reading/{name}",
            claim=says,
            source="this project",
            value=value,
            low=low and 1000 * low,
            high=high and 1000 * high,
            floor=MOST_INVENTED,
            at_most=True,
        )
    gaps = [row["value"] - row["control"]["value"] for row in log.rows]
    log.claim(
        "reading/above recall",
        claim="the mean generality row above that of a control that recalls the most similar training task",
        source="this project",
        value=sum(gaps) / len(gaps),
        low=min(gaps),
        high=max(gaps),
        floor=0.5,
    )


def draw(log: dict) -> Figure:
    """The agent's rows with their floors, and what recall alone makes of them."""
    agent = {row["row"].replace("desk", "agent"): row for row in log["rows"]}
    recall = {row["row"].replace("desk", "recall"): row["control"] | {"n": row["n"]} for row in log["rows"]}
    return scores.scoreboard(
        agent | recall, title="Held-out surfaces, errors and kinds: the agent, and recall alone"
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
