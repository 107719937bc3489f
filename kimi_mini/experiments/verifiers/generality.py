"""The generality scoreboard: what an agent makes of surfaces, errors and kinds of task that were held out.

    python -m kimi_mini.experiments.verifiers.generality [--checkpoint FOLDER] [--name LOG] [--held]

Every row of world `desk` that is trained nowhere, greedily; beside it a control that cannot read: it looks up the
training task whose request is most alike and does and says what was done and said there. An agent that is not far
above the control recalls. And how often the agent makes something up: answers where the honest one is a refusal, calls
of tools that nobody declared, per 1,000; and the share of calls of declared tools whose arguments fit the schema. With
--held a grammar holds every call to the declared schemas, as a server may.
"""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure
from tqdm import tqdm

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation, opening
from kimi_mini.agent.held import HeldPolicy
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

TASKS = 200  # a row, as many as the run that made the agent measures
MEMORY = 2_000  # training tasks that the control knows
GRAM = 4  # letters; requests are alike by the sets of these that they share
HONEST = ("missing", "refuse")  # rows on which any other answer is made up
MOST_INVENTED = 20  # in 1,000
FITS = 0.995  # of the calls of declared tools
ABOVE_RECALL = 0.5  # of the mean row
Z = 1.96
HELD = "; calls held to the schemas"
PAGE = "06_the_verifier_economy.ipynb"
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


def calls_of(messages: Sequence[dict]) -> Counter[str]:
    """What became of each call, by the message that its toolbox gave at that moment: undeclared, misfit, ran."""
    results = [message["content"] for message in messages if message["role"] == "tool"]
    return Counter(
        "undeclared"
        if result.startswith(
            "error: no tool"
        )  # none of this name, or none at all: kimi_mini.worlds.tools.toolbox
        else "misfit"
        if result.startswith("error: arguments")
        else "ran"
        for result in results
    )


def made_up(conversation: Conversation) -> bool:
    """An answer that denies nothing, where the honest one does. An attempt that was cut off, or that ends without a
    word, has made nothing up."""
    answer = final_answer(conversation.messages) if conversation.finish == "stop" else None
    return bool(answer and answer.strip()) and not denies(answer)


def paired(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float]:
    """The difference of two success rates on the same tasks, and its variance."""
    n, gains = len(first), [int(a) - int(b) for a, b in zip(first, second)]
    mean = sum(gains) / n
    return {"value": mean, "variance": sum((gain - mean) ** 2 for gain in gains) / n / max(1, n - 1)}


def measure(
    model: KimiMini, tokenizer: Tokenizer, row: Row, count: int, control: Recall, held: bool = False
) -> tuple[dict, list[Conversation]]:
    """One row: success of the agent (`held`: its calls held to the schemas) and of the control on the same held-out
    tasks."""
    tasks = registry.held_out_tasks(row.family, row.levels, count, 0)
    if held:
        done = loop.run(HeldPolicy(model, tokenizer), tokenizer, tasks, row.limits)
    else:
        done = scoreboard.solve(model, tokenizer, tasks, row.limits)
    passed = [conversation.verdict().passed for conversation in done]
    recalled = [conversation.verdict().passed for conversation in control.work(tasks)]
    by_level: dict[str, list[bool]] = {}
    for task, right in zip(tasks, passed):
        by_level.setdefault(str(task.data["pattern"]), []).append(right)
    return {
        "row": row.name,
        "n": len(tasks),
        **rate(sum(passed), len(tasks)),
        "control": rate(sum(recalled), len(tasks)),
        "above": paired(passed, recalled),
        "by_pattern": {name: [sum(found), len(found)] for name, found in by_level.items()},
        "floor": row.floor,
        "says": row.says,
    }, done


def main() -> None:
    """Measure every row; write data/results/generality.json and the figure."""
    parser = common_parser(__doc__.splitlines()[0], seeds=(0,), checkpoint=CHECKPOINTS / "reader")
    parser.add_argument("--name", default="generality", help="of the log")
    parser.add_argument("--held", action="store_true", help="hold calls to the declared schemas")
    args = read(parser)
    model, tokenizer, log = begin(args.name, args)
    count, control = max(8, int(TASKS * args.scale)), Recall(max(16, int(MEMORY * args.scale)), 0)
    honest, calls = [], Counter()
    for row in tqdm(ROWS, unit="row"):
        found, done = measure(model, tokenizer, row, count, control, args.held)
        log.row(**found)
        calls += sum((calls_of(conversation.messages) for conversation in done), Counter())
        if row.family in HONEST:
            honest += [made_up(conversation) for conversation in done]
        tqdm.write(f"{row.name:20s} {found['value']:.3f}  control {found['control']['value']:.3f}")
    report(log, honest, calls, HELD if args.held else "")
    finish(log, **{args.name: draw})


def report(log: Log, honest: Sequence[bool], calls: Counter[str], how: str = "") -> None:
    """What was made up, per 1,000; whether calls fit; and whether recall could have done it. how: what the claims say
    of the way it was measured."""
    shared = {"source": "this project", "notebook": PAGE, "figure": f"figures/{log.path.stem}.png"}
    for name, wrong, of, says in (
        ("invented", sum(honest), len(honest), "answers made up where there is none, of 1,000"),
        ("undeclared", calls["undeclared"], calls.total(), "calls of tools that nobody declared, of 1,000"),
    ):
        value, low, high = (1000 * part for part in (wrong / of, *wilson(wrong, of))) if of else (None,) * 3
        log.claim(
            f"{log.path.stem}/{name}",
            claim=says + how,
            value=value,
            low=low,
            high=high,
            floor=MOST_INVENTED,
            at_most=True,
            **shared,
        )
    fit, declared = calls["ran"], calls["ran"] + calls["misfit"]
    value, low, high = (fit / declared, *wilson(fit, declared)) if declared else (None,) * 3
    says = f"calls of declared tools whose arguments fit the schema{how}"
    log.claim(f"{log.path.stem}/schema", claim=says, value=value, low=low, high=high, floor=FITS, **shared)
    above_recall(log, shared, how)


def above_recall(log: Log, shared: dict[str, str], how: str = "") -> None:
    """The mean row above the control's, with the error of drawing the tasks (the rows are what they are); and the rows
    in which the control is better."""
    gaps = [row["above"] for row in log.rows]
    mean = sum(gap["value"] for gap in gaps) / len(gaps)
    half = Z * math.sqrt(sum(gap["variance"] for gap in gaps)) / len(gaps)
    log.more["recall_better"] = [row["row"] for row in log.rows if row["above"]["value"] < 0]
    says = f"the mean generality row above that of a control that recalls the most similar training task{how}"
    log.claim(
        f"{log.path.stem}/above recall",
        claim=says,
        value=mean,
        low=mean - half,
        high=mean + half,
        floor=ABOVE_RECALL,
        **shared,
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
