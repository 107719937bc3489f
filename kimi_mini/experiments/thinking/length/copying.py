"""Just before an agent copies a name out of a result: what its heads look at, and how sure it is of the right name.

The words before are an expert's, so only the length differs, or, with a gap, only the distance.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kimi_mini.agent import loop
from kimi_mini.base.evidence import Log
from kimi_mini.evaluation.attention import attention_rows
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task
from kimi_mini.worlds.registry import held_out_tasks

LOOKED_AT = 24  # calls in which attention is measured
GAP_AT, GAP_KEEP = 10, 2  # the call of the gap, and how many turns stay on either side of it


@dataclass
class Moment:
    """The position before the name in the `call`-th call, and where the names stand that results have brought."""

    call: int
    before: int
    newest: range
    older: list[int]


def look(model: KimiMini, tokenizer: Tokenizer, log: Log, seed: int, episodes: int) -> None:
    """One row a call: attention of every head, summed by what it falls on, and the chance of the right name."""
    totals, chances = defaultdict(list), defaultdict(list)
    for task in held_out_tasks("follow", [LOOKED_AT], episodes, seed):
        ids, moments = script(tokenizer, task)
        positions = [moment.before for moment in moments]
        weights = attention_rows(model, ids, positions)  # (L, H, P, T)
        with torch.no_grad():
            probabilities = model(torch.tensor([ids])).logits[0, positions].softmax(-1)  # (P, V)
        for row, moment in enumerate(moments):
            # 2 of (L, H)
            mass = [weights[:, :, row, list(span)].sum(-1) for span in (moment.newest, moment.older)]
            totals[moment.call].append(torch.stack(mass))
            chances[moment.call].append(probabilities[row, ids[moment.before + 1]].item())
    for call, masses in totals.items():
        newest, older = torch.stack(masses).mean(0).round(decimals=4).tolist()
        log.row(
            part="look",
            seed=seed,
            call=call,
            n=len(masses),
            newest=newest,
            older=older,
            chance=round(float(np.mean(chances[call])), 4),
        )


def gap(model: KimiMini, tokenizer: Tokenizer, log: Log, seed: int, episodes: int) -> None:
    """One row: attention on the newest name at one call, with the whole context, with a gap in it, and closed up."""
    found = defaultdict(list)
    for task in held_out_tasks("follow", [GAP_AT], episodes, seed):
        ids, moments = script(tokenizer, task)
        for context, (kept, places) in contexts(tokenizer, ids, moments[-1]).items():
            # (L, H, T)
            weights = attention_rows(model, [ids[i] for i in kept], [len(kept) - 1], places)[:, :, 0]
            found[context].append(weights[:, :, [kept.index(i) for i in moments[-1].newest]].sum(-1))
    means = {
        context: torch.stack(masses).mean(0).round(decimals=4).tolist() for context, masses in found.items()
    }
    log.row(part="gap", seed=seed, call=GAP_AT, n=episodes, **means)


def contexts(
    tokenizer: Tokenizer, ids: Sequence[int], moment: Moment
) -> dict[str, tuple[list[int], list[int]]]:
    """What stands before a moment in three ways: indices of the tokens that are kept, and the positions they get."""
    turns = [i for i in range(moment.before) if ids[i] == tokenizer.token_id("<|im_assistant|>")]
    every = list(range(moment.before + 1))
    kept = every[: turns[GAP_KEEP]] + every[turns[-1 - GAP_KEEP] :]
    return {"whole": (every, every), "gap": (kept, kept), "closed": (kept, every[: len(kept)])}


def script(tokenizer: Tokenizer, task: Task) -> tuple[list[int], list[Moment]]:
    """An expert's episode as tokens, and the moment before each name that it copies from a result."""
    played = loop.play(task, random.Random(0))
    ids, mask = chat.encode(tokenizer, played.messages, played.tools)
    played.environment.close()
    path, argument = task.data["path"], tokenizer.token_id("<|tool_call_argument_begin|>")
    opening = len(tokenizer.encode_plain('{"item":"'))
    starts = [i + opening for i, token in enumerate(ids) if token == argument and mask[i]]
    moments, seen = [], []
    for call, (before, item) in enumerate(zip(starts, path), 1):
        if call > 1:
            # behind the last call's name
            result = starts[call - 2] + len(tokenizer.encode_plain(path[call - 2]))
            newest = find(ids, tokenizer.encode_plain(item), result)
            moments.append(Moment(call, before, newest, [i for span in seen for i in span]))
            seen.append(newest)
    return ids, moments


def find(ids: Sequence[int], part: Sequence[int], start: int) -> range:
    """Where `part` first stands in `ids` from `start` on."""
    for place in range(start, len(ids) - len(part) + 1):
        if tuple(ids[place : place + len(part)]) == tuple(part):
            return range(place, place + len(part))
    raise ValueError("the name does not stand in the result")
