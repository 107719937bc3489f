"""Has training seen the benchmarks? Every stream of the shipped agents is made again and searched for every task.

The streams are those of the real plans of both agents, at their seeds: the text, the drills of the first stage and
those kept up in every step after it, the synthesised examples that passed, the tasks that RL drew (its rounds are
replayed from the log of the run); the lessons of `taught` and what is replayed beside them, for the agents that
learned them; and what the agent learned that chooses between reflex and thought (`routed`). Then leaks are planted, to
see whether the search finds them: of every part a task word for word and in another layout, and one with other
numbers, which is another task and must not count.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tqdm import tqdm

from kimi_mini.base import ledger
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log, this_command
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import RESULTS, RUNS
from kimi_mini.evaluation.benchmarks import BENCHMARKS, Item, contamination, items
from kimi_mini.evaluation.benchmarks.contamination import Search, tokens_of
from kimi_mini.evaluation.benchmarks.datasheet import CONTAMINATION
from kimi_mini.evaluation.benchmarks.store import FOLDER
from kimi_mini.experiments import harness
from kimi_mini.experiments.evaluation import taught
from kimi_mini.experiments.thinking import routed
from kimi_mini.experiments.verifiers.shared import trajectories as trajectories_of
from kimi_mini.pipeline import shared
from kimi_mini.pipeline.plan import Plan, Run
from kimi_mini.pipeline.shared import drills_kept_up
from kimi_mini.pipeline.synthesise import trajectories
from kimi_mini.pipeline.text import drill_steps, drills_of
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import synthesis
from kimi_mini.training.rl.curriculum import Curriculum
from kimi_mini.worlds.rows import LIMITS

Read = tuple[Sequence[int], str | None]  # an example, and the content key of its task
PLANTED = 10  # tasks of each part of each benchmark
NOTEBOOK = "09_evaluation.ipynb"


# ---- the streams ---------------------------------------------------------------------------------------------


def text(plan: Plan) -> Iterator[Read]:
    """The windows that pre-training reads."""
    for window in shared.windows_of(Run(RUNS / "contamination", plan))[0]:
        yield window, None


def drilled(plan: Plan) -> Iterator[Read]:
    """All drills that the first stage may see, and those that stay in every step after it."""
    made, later = drills_of(plan), drills_kept_up(plan) if plan.drill.kept else None
    for step in range(drill_steps(plan)):
        yield from ((ids, None) for ids, _ in made(step))
    if later:  # step numbers begin anew with each stage: fine-tuning has the most
        for step in range(plan.finetune.tokens // plan.step_tokens):
            yield from ((one.ids, None) for one in later(step))


def examples(plan: Plan) -> Iterator[Read]:
    """What fine-tuning learns: trajectories that passed."""
    sources, tokens = synthesis.mixture(plan.finetune.plain), plan.finetune.tokens
    for made in trajectories(plan, sources, tokens, plan.seed).values():
        for one in synthesis.passed_only(made):
            yield one.example.ids, one.key


def drawn(plan: Plan, tokenizer: Tokenizer, log: dict) -> Iterator[Read]:
    """The tasks of RL, each with the expert's work: drawn again as the logged successes make the curriculum draw."""
    curriculum = Curriculum()
    for index, one in enumerate(log["rounds"]):
        tasks = curriculum.draw(plan.rl, plan.seed, index)
        for entry in tasks:
            task = entry.task()
            yield tokens_of(tokenizer, Item("", plan.rl.limits, task)), task.key
        curriculum.learn(tasks, one["successes"])


def lessons(tokenizer: Tokenizer, scale: float) -> Iterator[Read]:
    """What `taught` adds to an agent, from all its seeds: dialogues and sheets of worlds that no run trains."""
    for arm in taught.ARMS.values():
        for seed in range(arm.most_seeds):
            for source in taught.sources(arm):
                count = synthesis.wanted(source, int(arm.tokens * scale), taught.PASSES, mistakes=0.0)
                for pool in taught.lessons(tokenizer, source, count, seed).values():
                    yield from ((one.ids, None) for one in pool)


def replayed(tokenizer: Tokenizer, scale: float) -> Iterator[Read]:
    """What the agents that `taught` ships (seed 0) learn again beside their lessons."""
    for arm in (taught.ARMS[name] for name in taught.SHIPPED):
        tokens = int(arm.tokens * scale) // 2
        for made in trajectories_of(tokenizer, taught.replayed(arm), tokens, 0, mistakes=0.0).values():
            yield from ((one.example.ids, one.key) for one in made)


def choosing(tokenizer: Tokenizer, scale: float) -> Iterator[Read]:
    """What `routed` teaches: both modes, and the tasks on which the choice is practised, with the expert's work."""
    tokens = int(routed.TAUGHT.tokens * scale)
    for made in trajectories_of(tokenizer, routed.BOTH, tokens, 0, mistakes=0.0).values():
        yield from ((one.example.ids, one.key) for one in made)
    for task in routed.practice(0, scale):
        yield tokens_of(tokenizer, Item("", LIMITS, task)), task.key


def streams(tokenizer: Tokenizer, scale: float = 1.0) -> dict[str, Callable[[], Iterator[Read]]]:
    """Name -> what makes the stream."""
    plan, reader = Plan().scaled(scale), Plan.reader().scaled(scale)
    run, reader_log = read_json(RESULTS / ledger.RUN), read_json(RESULTS / "run_reader.json")
    first, *more = [*reader_log["earlier"], reader_log]
    courses = {}
    for number, course in enumerate(more, 2):
        later = Plan.further(seed=course["seed"])
        courses[f"examples of course {number}"] = partial(examples, later.scaled(scale))
        courses[f"tasks of the RL of course {number}"] = partial(drawn, later, tokenizer, course)
    return {
        "text": partial(text, plan),
        "drills": partial(drilled, plan),
        "drills of the reader": partial(drilled, reader),
        "examples of fine-tuning": partial(examples, plan),
        "tasks of RL": partial(drawn, Plan(), tokenizer, run),
        "examples of the reader": partial(examples, reader),
        "tasks of the reader's RL": partial(drawn, Plan.reader(), tokenizer, first),
        **courses,
        "lessons of taught": partial(lessons, tokenizer, scale),
        "replay of taught": partial(replayed, tokenizer, scale),
        "lessons of routed": partial(choosing, tokenizer, scale),
    }


# ---- planted leaks -------------------------------------------------------------------------------------------


def word_for_word(tokenizer: Tokenizer, item: Item, rng: random.Random) -> list[int]:
    """The task as the benchmark has it."""
    return tokens_of(tokenizer, item)


def other_layout(tokenizer: Tokenizer, item: Item, rng: random.Random) -> list[int]:
    """The same words with other white space between them, and without markers."""
    words = tokenizer.decode(contamination.normal(tokenizer, tokens_of(tokenizer, item))).split(" ")
    gaps = rng.choices((" ", "  ", "\n", " \n\n "), k=len(words))
    return tokenizer.encode("".join(w + gap for w, gap in zip(words, gaps)), allow_special=False)


def other_numbers(tokenizer: Tokenizer, item: Item, rng: random.Random) -> list[int]:
    """The same words around other digits: another task."""
    words = tokenizer.decode(tokens_of(tokenizer, item))
    changed = re.sub(r"\d", lambda digit: rng.choice("0123456789".replace(digit[0], "")), words)
    return tokenizer.encode(changed, allow_special=False)


LEAKS = {
    "word for word": (word_for_word, tuple(BENCHMARKS)),
    "in another layout": (other_layout, tuple(BENCHMARKS)),
    "with other numbers": (other_numbers, ("mini_swe", "mini_math")),  # where the numbers are the task
}


def planted(search: Search, count: int) -> dict[str, tuple[int, int]]:
    """kind -> (tasks that are called leaked, tasks that were planted); each kind in a stream of its own."""
    found = {}
    for kind, (plant, names) in LEAKS.items():
        parts: dict[tuple[str, str], list[Item]] = {}
        for name, item in search.tasks:
            parts.setdefault((name, item.part), []).append(item)
        chosen = [item for (name, _), members in parts.items() if name in names for item in members[:count]]
        rng = random.Random(f"0/{kind}")
        search.read(kind, [plant(search.tokenizer, item, rng) for item in chosen])
        keys = {item.task.key for item in search.leaked(kind)}
        found[kind] = (len(keys & {item.task.key for item in chosen}), len(chosen))
        del search.streams[kind]
    return found


# ---- the report ----------------------------------------------------------------------------------------------


def main() -> None:
    """Search all streams, plant leaks; write data/results/contamination.json and data/benchmarks/contamination.json."""
    args = harness.arguments(__doc__.splitlines()[0], seeds=(0,))
    tokenizer, log = Tokenizer.load(), Log("contamination", seeds=args.seeds, folder=args.folder)
    search = Search(tokenizer, {name: items(one) for name, one in BENCHMARKS.items()})
    for name, make in streams(tokenizer, args.scale).items():
        for ids, key in tqdm(make(), desc=name, unit="example", leave=False):
            search.read(name, [ids], [key])
        stream = search.streams[name]
        log.row(stream=name, tokens=stream.tokens, examples=stream.examples, leaked=len(search.leaked(name)))
        print(log.rows[-1], flush=True)
    report(log, search)
    leaks = planted(search, PLANTED)
    for kind, (caught, count) in leaks.items():
        log.row(planted=kind, found=caught, n=count)
    claims(log, search, leaks)
    harness.finish(log)


def report(log: Log, search: Search) -> None:
    """data/benchmarks/contamination.json, which the datasheets show; beside the log for a rehearsal."""
    settings = {"gram": contamination.GRAM, "common": contamination.COMMON, "leak": contamination.LEAK}
    sizes = {name: {"tokens": s.tokens, "examples": s.examples} for name, s in search.streams.items()}
    place = FOLDER if log.path.parent == RESULTS else log.path.parent / "benchmarks"
    about = {"command": this_command(), **settings, "streams": sizes}
    write_json(place / CONTAMINATION, about | {"benchmarks": search.report()})


def claims(log: Log, search: Search, leaks: dict[str, tuple[int, int]]) -> None:
    """Nothing leaked, and what is planted is found."""
    where = {"source": "GPT-3 report, appendix C (13-grams)", "notebook": NOTEBOOK}
    leaked = {item.task.key for name in search.streams for item in search.leaked(name)}
    log.claim(
        "contamination/leaked",
        claim="tasks of the benchmarks that a stream of training holds",
        floor=0.01,
        at_most=True,
        **harness.rate(len(leaked), len(search.tasks)),
        **where,
    )
    caught, count = (sum(leaks[kind][i] for kind in ("word for word", "in another layout")) for i in (0, 1))
    says = "planted leaks that the search finds, word for word and in another layout"
    log.claim("contamination/planted", claim=says, floor=0.95, **harness.rate(caught, count), **where)
    says = "tasks with other numbers, which are no leaks, that the search calls leaks"
    wrong = harness.rate(*leaks["with other numbers"])
    log.claim("contamination/other_numbers", claim=says, floor=0.1, at_most=True, **wrong, **where)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
