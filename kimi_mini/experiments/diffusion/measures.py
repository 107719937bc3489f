"""What the two models can do: the bound and the loss, tasks solved, gaps filled in, seconds of a text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.policy import Reply
from kimi_mini.evaluation.scoreboard import solve
from kimi_mini.experiments.deployment.stopwatch import Bench
from kimi_mini.experiments.diffusion.runs import LENGTH, LEVELS, SUMS, canvas_of, held_out, whole
from kimi_mini.inference.diffusion import Style, mask_token, refine
from kimi_mini.inference.generation import generate
from kimi_mini.model import kernels
from kimi_mini.model.kernels.both_ways import both_ways
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example, collate, token_losses
from kimi_mini.training.diffusion import bound
from kimi_mini.training.diffusion.bound import speaking
from kimi_mini.worlds import Limits, Task
from kimi_mini.worlds.registry import held_out_tasks

LIMITS = Limits(turn_tokens=LENGTH, turns=6, context=1024)
SURE = (0.5, 0.8, 0.9, 0.95, 0.99)
STYLES = {
    **{f"surest, {n} at once": Style(at_once=n) for n in (1, 2, 4)},
    **{f"surest, ends free, {n} at once": Style(at_once=n) for n in (1, 2)},
    **{f"all above {sure}": Style(sure=sure) for sure in SURE},
    **{f"blocks of 8, all above {sure}": Style(sure=sure, block=8) for sure in (0.9, 0.99)},
    "blocks of 8, frozen, all above 0.99": Style(sure=0.99, block=8, freeze=True),
    **{f"blocks of {n}, 1 at once": Style(block=n) for n in (1, 4, 8, 16)},
    "left, 1 at once": Style("left"),
    "left, 2 at once": Style("left", at_once=2),
    "random, 1 at once": Style("random"),
    "3 at once, 1 taken back": Style(at_once=3, remask=1),
}
ONE, HALF = "surest, 1 at once", "surest, 2 at once"  # HALF: half as many steps as the canvas has tokens
SURELY, IN_BLOCKS, FROZEN = (
    "all above 0.99",
    "blocks of 8, all above 0.99",
    "blocks of 8, frozen, all above 0.99",
)
FEW = (ONE, HALF, SURELY, IN_BLOCKS)
NEAR = 0.02  # success that is called equal is so near


def kind_of(name: str) -> str:
    """The curve of a figure that a style stands on."""
    if name.endswith("at once"):
        kind = name.rsplit(", ", 1)[0]
        return "blocks of 1, 4, 8, 16" if kind.startswith("blocks") else kind
    return "some taken back" if STYLES[name].remask else name.split("all above")[0] + "all that is sure"


class Refining:
    """Takes turns by refining a canvas: a policy, as `agent.policy` has it. The turn ends at its first <|im_end|>; one
    without is cut off. free: the end may be put down before what stands before it. Keeps the steps of its turns."""

    to_the_end = False

    def __init__(
        self, model: KimiMini, tokenizer: Tokenizer, style: Style, seed: int = 0, free: bool = False
    ):
        self.model, self.seed = model, seed
        self.end = tokenizer.token_id("<|im_end|>")
        self.style = replace(style, closing=None if free else self.end)
        self.steps: list[int] = []

    def open(self, conversations: Sequence[Conversation], context: int) -> None:
        """Nothing is kept between turns."""

    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Reply]:
        """One canvas of `max_tokens` behind each conversation."""
        canvas = torch.full((len(conversations), max_tokens), mask_token(self.model))
        contexts = [conversation.ids for conversation in conversations]
        refined = refine(self.model, contexts, canvas, self.style, self.seed)
        self.steps += refined.steps_each.tolist()
        return [self._turn(*row) for row in zip(refined.ids.tolist(), refined.logprobs.tolist())]

    def _turn(self, ids: list[int], logprobs: list[float]) -> Reply:
        ended = self.end in ids
        size = ids.index(self.end) + 1 if ended else len(ids)
        return Reply(ids[:size], logprobs[:size], "stop" if ended else "length")


# ---- likelihood --------------------------------------------------------------------------------------------


def nats(refining: KimiMini, writing: KimiMini, tokenizer: Tokenizer, count: int, seed: int) -> dict:
    """family -> {"bound", "loss"}: nats a token of held-out turns, of one model and of the other."""
    pairs = [(bounds, refining), (losses, writing)]
    both = [measure(model, tokenizer, LEVELS, count, seed) for measure, model in pairs]
    return {family: {"bound": both[0][family], "loss": both[1][family]} for family in LEVELS}


def bounds(
    model: KimiMini, tokenizer: Tokenizer, families: Iterable[str], count: int, seed: int
) -> dict[str, float]:
    """family -> the bound, nats a token of held-out turns. It pays for the room behind a turn, too, and is divided by
    the tokens of the turn alone."""
    found = {}
    for family in families:
        turns = held_out(tokenizer, family, count, seed)
        paid = bound(model, [canvas_of(turn, tokenizer) for turn in turns], draws=8, seed=seed)
        found[family] = sum(paid) / sum(int(turn.mask.sum()) for turn in turns)
    return found


@torch.no_grad()
def losses(
    model: KimiMini, tokenizer: Tokenizer, families: Iterable[str], count: int, seed: int
) -> dict[str, float]:
    """family -> the loss of the one that writes, nats a token of the same turns."""
    with evaluating(model):
        turns = {family: held_out(tokenizer, family, count, seed) for family in families}
        return {family: token_losses(model, collate(some)).mean().item() for family, some in turns.items()}


# ---- tasks -------------------------------------------------------------------------------------------------


def solved(model: KimiMini, tokenizer: Tokenizer, tasks: Sequence[Task], name: str) -> tuple[float, float]:
    """The share of the tasks that turns refined in style `name` solve, by the world's verifier; and the mean steps of a
    turn."""
    policy = Refining(model, tokenizer, STYLES[name], free="ends free" in name)
    done = loop.run(policy, tokenizer, tasks, LIMITS)
    rate = float(np.mean([conversation.verdict().passed for conversation in done]))
    return rate, float(np.mean(policy.steps))


def written(
    model: KimiMini, tokenizer: Tokenizer, count: int, seed: int, families: Iterable[str] = tuple(LEVELS)
) -> dict[str, float]:
    """family -> the share of the same tasks that the one that writes solves, greedily."""
    rates = {}
    for family in families:
        tasks = held_out_tasks(family, LEVELS[family], count, seed)
        done = solve(model, tokenizer, tasks, LIMITS)
        rates[family] = float(np.mean([conversation.verdict().passed for conversation in done]))
    return rates


def by_style(model: KimiMini, tokenizer: Tokenizer, count: int, seed: int) -> list[dict]:
    """A row for each style and family: success, steps of a turn and seconds of processor time. The families other than
    SUMS are measured in FEW styles."""
    families = {family: tuple(STYLES) if family in SUMS else FEW for family in LEVELS}
    return in_styles(model, tokenizer, families, count, seed)


def in_styles(
    model: KimiMini, tokenizer: Tokenizer, families: Mapping[str, Sequence[str]], count: int, seed: int
) -> list[dict]:
    """Such rows, for each of the styles of each family."""
    rows = []
    for family, names in families.items():
        tasks = held_out_tasks(family, LEVELS[family], count, seed)
        for name in names:
            began = time.process_time()
            rate, steps = solved(model, tokenizer, tasks, name)
            took = round(time.process_time() - began, 3)
            row = dict(style=name, family=family, success=rate, steps=round(steps, 2))
            rows.append(row | dict(tasks=count, seconds=took))
    return rows


# ---- gaps --------------------------------------------------------------------------------------------------


def question_gaps(example: Example, tokenizer: Tokenizer) -> np.ndarray:
    """Places of the digits in the user's words."""
    asked = whole(example, tokenizer).mask & ~example.mask
    digits = {tokenizer.encode_plain(digit)[0] for digit in "0123456789"}
    stop = int(example.mask.argmax())
    return np.array([i for i in np.flatnonzero(asked[:stop]) if int(example.ids[i]) in digits])


def thought_gaps(example: Example, tokenizer: Tokenizer) -> np.ndarray:
    """Places of the middle half of the thought."""
    ids = example.ids.tolist()
    first, last = ids.index(tokenizer.token_id("<think>")) + 1, ids.index(tokenizer.token_id("</think>"))
    quarter = (last - first) // 4
    return np.arange(first + quarter, last - quarter)


GAPS: dict[str, Callable[[Example, Tokenizer], np.ndarray]] = {
    "question": question_gaps,
    "thought": thought_gaps,
}


def filled(
    refining: KimiMini, writing: KimiMini, tokenizer: Tokenizer, kind: str, count: int, seed: int
) -> dict[str, list[bool]]:
    """For each of ARMS, whether each gap of held-out examples holds exactly its own tokens again. The one that refines
    is given all around the gap; the one that writes what stands to the left of each place, once what it wrote itself
    for the gap, token by token."""
    found: dict[str, list[bool]] = {"refining": [], "writing": []}
    for family in SUMS:
        for example in held_out(tokenizer, family, count, seed):
            row = canvas_of(example, tokenizer, asked=kind == "question")
            places = GAPS[kind](example, tokenizer)
            right = example.ids[places].tolist()
            found["refining"].append(_refined(refining, row, places) == right)
            found["writing"].append(_written(writing, example.ids.tolist(), places) == right)
    return found


def _refined(model: KimiMini, row: Example, places: np.ndarray) -> list[int]:
    start = int(row.mask.argmax())
    canvas = torch.from_numpy(row.ids[start:].astype(np.int64))[None].clone()
    canvas[0, places - start] = mask_token(model)
    refined = refine(model, [row.ids[:start].tolist()], canvas)
    return refined.ids[0, places - start].tolist()


def _written(model: KimiMini, ids: list[int], places: np.ndarray) -> list[int]:
    """Each place in its turn; what is given between them stands when its turn comes, and nothing behind is seen."""
    ids, place = list(ids), 0
    for place in places.tolist():
        written = generate(model, torch.tensor([ids[:place]]), 1, eos_token_id=[])
        ids[place] = int(written[0, -1])
    return [ids[place] for place in places.tolist()]


# ---- seconds -----------------------------------------------------------------------------------------------


def equal(rows: Sequence[dict], writing: dict[str, float]) -> str:
    """The style of fewest steps whose success on SUMS is at most two points below the writer's; where none is, the
    best."""
    sums = [row for row in rows if row["family"] in SUMS]
    mean = lambda key, name: float(np.mean([row[key] for row in sums if row["style"] == name]))
    rates, cost = ({name: mean(key, name) for name in STYLES} for key in ("success", "steps"))
    bar = np.mean([writing[family] for family in SUMS]) - NEAR
    good = [name for name, rate in rates.items() if rate >= bar]
    return min(good, key=cost.__getitem__) if good else max(rates, key=rates.__getitem__)


def speeds(
    refining: KimiMini, writing: KimiMini, tokenizer: Tokenizer, name: str, seed: int, rows: int = 32
) -> dict:
    """Ratios of processor time: "many" and "one", a writer over a refiner in style `name`, for `rows` texts at a time
    and for one; "context", a step that computes its context anew over one that has it cached; "frozen", blocks that
    stay on the canvas over blocks that join the cache."""
    bench = Bench(threads=torch.get_num_threads(), rounds=5, clock="cpu")
    each = -(-rows // len(SUMS))
    tasks = [task for family in SUMS for task in held_out_tasks(family, LEVELS[family], each, seed)][:rows]

    def refine_all(some: Sequence[Task], style: str) -> Callable[[], object]:
        return lambda: solved(refining, tokenizer, some, style)

    def write_all(some: Sequence[Task]) -> Callable[[], object]:
        return lambda: solve(writing, tokenizer, some, LIMITS)

    many = bench.compare("many", refine_all(tasks, name), write_all(tasks))
    one = bench.compare("one", refine_all(tasks[:1], name), write_all(tasks[:1]))
    frozen = bench.compare("frozen", refine_all(tasks, FROZEN), refine_all(tasks, IN_BLOCKS))
    contexts = [loop.begun(task, tokenizer, LIMITS).ids for task in tasks]
    short = min(map(len, contexts))
    contexts = [ids[len(ids) - short :] for ids in contexts]  # of one length: nothing is padded
    canvas = torch.full((rows, LENGTH), mask_token(refining))
    anew = lambda: [step_without_cache(refining, contexts, canvas) for _ in range(LENGTH // 4)]
    cached = lambda: refine(refining, contexts, canvas, Style(at_once=4))
    context = bench.compare("context", cached, anew)
    return {"style": name} | {row["name"]: row["ratio"] for row in (many, one, frozen, context)}


def step_without_cache(model: KimiMini, contexts: Sequence[Sequence[int]], canvas: torch.Tensor) -> None:
    """One look at contexts and canvases, all of it computed anew: what a step costs without the cache."""
    rows = torch.tensor([[*context, *row] for context, row in zip(contexts, canvas.tolist())])
    marked = torch.zeros(rows.shape, dtype=torch.bool)
    marked[:, len(contexts[0]) :] = True
    with torch.no_grad(), evaluating(model), kernels.using(attention=both_ways(speaking(marked))):
        model.lm_head(model.hidden_states(rows)[:, len(contexts[0]) :])
