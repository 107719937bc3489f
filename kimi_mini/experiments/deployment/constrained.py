"""Tool calls held to their schemas: none is invalid, whoever writes them, and what that costs.

    python -m kimi_mini.experiments.deployment.constrained

300 tools with drawn schemas, declared two at a time. Three models are asked for calls: one of random weights, the
shipped agent, and the agent that reads varied desk work; none of them has seen such schemas. All of them write with
the constraint and without it, from the same prompts, behind the same marker, with the same dice. Then both agents do
their own tasks, held and free; and what a mask costs is timed on the same tokens, written once with masks and once
without. What is done is kept (data/run/constrained) and not done again.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from kimi_mini.agent import loop
from kimi_mini.agent.folder import load_agent
from kimi_mini.agent.held import HeldPolicy
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log, check_plan
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.intervals import bootstrap, difference
from kimi_mini.base.paths import CHECKPOINTS, RUNS
from kimi_mini.course.figures.deployment.constrained import calls_held_to_schemas
from kimi_mini.evaluation.drawn_schemas import drawn_parameters
from kimi_mini.experiments import harness
from kimi_mini.inference.serving.constrained import Constraint
from kimi_mini.inference.serving.grammars import function_of
from kimi_mini.inference.writer import Marks, Row, Writer, dice, stops_of
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.base import invented
from kimi_mini.worlds.registry import held_out_tasks, measured_levels
from kimi_mini.worlds.rows import LIMITS
from kimi_mini.worlds.tools.arguments import CallError, read
from kimi_mini.worlds.tools.schema import compile_schema

MODELS = ("random", "final", "reader")
BOXES, EACH = 150, 2  # toolboxes, and tools in each
TURNS = {True: 24, False: 6}  # that a model writes with each box, held and free
TOGETHER, PART = 5, 30  # boxes written side by side, and in a part that is kept
MOST = 240  # tokens of a turn
PLACES = (1, 8, 32)
ROUNDS = 7
TASKS = 64
OWN = {
    "final": ("follow", "condition", "buy", "repair"),
    "reader": ("names", "wordings", "domains", "errors"),
}
SECTION = "<|tool_calls_section_begin|>"


def main() -> None:
    """Write, judge and time; write data/results/constrained.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0], seeds=(0,))
    boxes = toolboxes(max(2, int(BOXES * args.scale)), args.seeds[0])
    weights = {name: harness.fingerprint(CHECKPOINTS / name) for name in MODELS[1:]}
    log = Log("constrained", seeds=args.seeds, folder=args.folder, weights=weights)
    folder = RUNS / "constrained"
    check_plan(folder, {"weights": weights, "scale": args.scale, "seeds": args.seeds, "most": MOST})
    for name in MODELS:
        model, tokenizer = agent(name)
        for held in (True, False):
            for start in range(0, len(boxes), PART):
                part = partial(turns_of, model, tokenizer, boxes[start : start + PART], start, held)
                found = kept(folder / f"calls-{name}-{held}-{start}.json", part)
                log.row(what="calls", model=name, held=held, start=start, **found)
                print(name, "held" if held else "free", start, found, flush=True)
        for family in OWN.get(name, ()):
            part = partial(own_tasks, model, tokenizer, family, max(2, int(TASKS * args.scale)))
            log.row(what="tasks", model=name, family=family, **kept(folder / f"tasks-{family}.json", part))
        for places in PLACES if name != "random" else ():
            found = cost(model, tokenizer, boxes, places, max(2, int(ROUNDS * args.scale)))
            log.row(what="cost", model=name, places=places, **found)
            print(name, places, found, flush=True)
    report(log)
    harness.finish(log, constrained=calls_held_to_schemas)


def kept(file: Path, work: Callable[[], dict]) -> dict:
    """What a part found; done before, it is read."""
    if not file.is_file():
        write_json(file, work())
    return read_json(file)


def agent(name: str) -> tuple[KimiMini, Tokenizer]:
    """A shipped agent, or the shape of one with random weights."""
    model, tokenizer = load_agent(CHECKPOINTS / ("final" if name == "random" else name))
    if name == "random":
        torch.manual_seed(0)
        model = KimiMini(model.config).eval()
    return model, tokenizer


# ------------------------------------------------------------------------------------------------ calls


def toolboxes(count: int, seed: int) -> list[list[dict]]:
    """Declarations, EACH of them in a box."""
    rng = random.Random(f"{seed}/constrained/schemas")
    return [[_tool(name, rng) for name in invented(rng, EACH)] for _ in range(count)]


def _tool(name: str, rng: random.Random) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": drawn_parameters(rng)}}


def turns_of(
    model, tokenizer: Tokenizer, boxes: Sequence[list[dict]], start: int, held: bool
) -> dict[str, int]:
    """TURNS turns with each box, judged: counts of turns, ends, calls, valid calls, and what is wrong with others."""
    found: Counter[str] = Counter()
    for first in range(0, len(boxes), TOGETHER):
        some = boxes[first : first + TOGETHER]
        checkers = [
            {one["name"]: compile_schema(one["parameters"]) for one in map(function_of, box)} for box in some
        ]
        for number, row in enumerate(run(begun(model, tokenizer, some, start + first, TURNS[held], held))):
            message = chat.parse_ids(tokenizer, row.ids, False)
            found.update(judged(message, row.finish, checkers[number // TURNS[held]]))
            found["tokens"] += row.written
    return dict(found)


def begun(
    model, tokenizer: Tokenizer, boxes: Sequence[list[dict]], start: int, turns: int, held: bool
) -> Writer:
    """Turns behind the marker of a section, with the constraint or free, about to be sampled: so many with each box.
    A prompt is read once and stands in the places of all its turns."""
    asked = [[{"role": "user", "content": f"Call {function_of(tools[0])['name']}."}] for tools in boxes]
    options = {"add_generation_prompt": True, "thinking": False}
    prompts = [chat.encode(tokenizer, *both, **options)[0] for both in zip(asked, boxes)]
    writer = Writer(model, len(boxes), max(map(len, prompts)) + MOST + 2, temperature=1.0)
    for place, prompt in enumerate(prompts):
        writer.join(place, Row(prompt, 1, frozenset(), dice(0)))
    writer.run()
    writer.select([place for place in range(len(boxes)) for _ in range(turns)])
    stops, marks = stops_of(model, tokenizer), Marks.of(tokenizer)
    for place in range(len(boxes) * turns):
        box, turn = divmod(place, turns)
        hook = Constraint(tokenizer, boxes[box], "required", thinking=False) if held else None
        row = Row(prompts[box], MOST, stops, dice(start + box, turn), marks=marks, allowed=hook)
        row.add(tokenizer.special[SECTION], own=False)
        writer.join(place, row)
    return writer


def run(writer: Writer) -> list[Row]:
    """The rows of a writer, written to their ends."""
    rows = list(writer.rows.values())
    while writer.rows:
        writer.step()
        if writer.rows and 2 * len(writer.rows) <= len(writer.held):
            writer.select(list(writer.rows))
    return rows


def judged(message: dict, finish: str, checkers: dict[str, tuple]) -> Counter[str]:
    """One turn's counts. A call is valid when the toolbox would run it, and its id counts on."""
    found = Counter(turns=1, ended=finish == "stop")
    for index, call in enumerate(message.get("tool_calls", ())):
        name, wrong = call["function"]["name"], None
        if name not in checkers:
            wrong = "undeclared"
        elif call["id"] != f"functions.{name}:{index}":
            wrong = "id"
        else:
            try:
                read(call["function"]["arguments"], checkers[name])
            except CallError as error:
                wrong = error.kind
        found.update(["calls", "valid" if wrong is None else wrong])
    found["right_turns"] = finish == "stop" and 0 < found["calls"] == found["valid"]
    return found


# ------------------------------------------------------------------------------------- own tasks, and cost


def own_tasks(model, tokenizer: Tokenizer, family: str, count: int) -> dict[str, list[bool]]:
    """Which held-out tasks pass, with the constraint and without it."""
    tasks, found = held_out_tasks(family, measured_levels(family), count, 0), {}
    for name, policy in (("held", HeldPolicy), ("free", LocalPolicy)):
        done = loop.run(policy(model, tokenizer), tokenizer, tasks, LIMITS)
        found[name] = [conversation.verdict().passed for conversation in done]
    return found


class Copyist(Writer):
    """Writes given rows once more: the same steps and the same sampling, and no masks."""

    def __init__(self, writer: Writer, rows: Sequence[Row]):
        self.__dict__.update(writer.__dict__)
        self.given = {id(copy): row.ids for copy, row in zip(self.rows.values(), rows)}

    def _sample(self, logits, rows):
        _, logprobs = super()._sample(logits, rows)
        return [self.given[id(row)][len(row.ids)] for row in rows], logprobs


def cost(model, tokenizer: Tokenizer, boxes: Sequence[list[dict]], places: int, rounds: int) -> dict:
    """Share of decoding time that masks take, by seconds of processor time: the same tokens with and without them, in
    turn, a toolbox a round. Every token is held here; thoughts and texts are not."""
    shares, tokens, spent = [], 0, [0.0, 0.0]
    for number in range(rounds):
        start = partial(begun, model, tokenizer, boxes[number : number + 1], number, places)
        rows = run(start(True))  # grammars are compiled, and warm
        seconds = [0.0, 0.0]
        for held in (True, False, False, True):
            writer = start(held) if held else Copyist(start(held), rows)
            began = time.process_time()
            again = run(writer)
            seconds[held] += time.process_time() - began
            assert [row.ids for row in again] == [row.ids for row in rows]
        shares.append(1 - seconds[False] / seconds[True])
        tokens += 2 * sum(row.written for row in rows)
        spent = [before + now for before, now in zip(spent, seconds)]
    low, value, high = statistics.quantiles(shares, n=4)
    each = {name: 1e6 * total / tokens for name, total in zip(("free_us", "held_us"), spent)}
    return {"share": value, "low": low, "high": high, "rounds": rounds, "tokens": tokens // 2, **each}


# ----------------------------------------------------------------------------------------------- claims


def report(log: Log) -> None:
    """The claims."""
    claim = partial(log.claim, figure="figures/constrained.png", notebook="10_deployment.ipynb")

    def counted(held: bool, *models: str) -> Counter[str]:
        rows = (row for row in log.rows if row["what"] == "calls" and row["held"] is held)
        return sum(
            (
                Counter({key: row[key] for key in row if isinstance(row[key], int)})
                for row in rows
                if row["model"] in models
            ),
            Counter(),
        )

    held = counted(True, *MODELS)
    says, enforcer = (
        f"invalid calls of {held['calls']:,} under the constraint, {BOXES * EACH} schemas",
        "K2 report, appendix B (enforcer)",
    )
    wrong = held["calls"] - held["valid"]
    claim(
        "constrained/invalid", claim=says, source=enforcer, value=wrong, floor=0, at_most=True, headline=True
    )
    for name in MODELS[1:]:
        arms = {arm: counted(arm, name) for arm in (True, False)}
        right = [(arms[arm]["right_turns"], arms[arm]["turns"]) for arm in (True, False)]
        says = (
            f"turns that end in valid calls only, schemas never seen, in reflex, {name}: constrained - free"
        )
        found = dict(zip(("value", "low", "high"), difference(*right)))
        claim(
            f"constrained/gain_{name}",
            claim=says,
            source="K2 Vendor Verifier (schema accuracy)",
            floor=0.0,
            **found,
        )
    tasks = [row for row in log.rows if row["what"] == "tasks"]
    gains = [held - free for row in tasks for held, free in zip(row["held"], row["free"])]
    found = dict(zip(("value", "low", "high"), bootstrap(gains)))
    says = "the agents' own tasks are solved as often with the constraint as without it (greedy)"
    claim("constrained/own_tasks", claim=says, source="this project", floor=-0.03, **found)
    worst = max((row for row in log.rows if row["what"] == "cost"), key=lambda row: row["share"])
    found = {"value": worst["share"], "low": worst["low"], "high": worst["high"]}
    says = f"share of decoding time that masks take, every token held ({worst['places']} rows, median and quartiles)"
    claim("constrained/cost", claim=says, source="this project", floor=0.20, at_most=True, **found)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
