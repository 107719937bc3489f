"""Where a model looks when it copies a step out of a list, and whether it knows the right one.

The thought before is an expert's, so that nothing depends on what went wrong earlier: only on how far down the list is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kimi_mini.evaluation.attention import attention_rows
from kimi_mini.experiments.thinking.length import lists
from kimi_mini.experiments.thinking.length.copying import find
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task


def moments(tokenizer: Tokenizer, task: Task) -> tuple[list[int], list[int], list[range]]:
    """A chain with its thought as tokens; for each step the index of the token before its sign in the thought, and
    where the step stands in the question."""
    ids = lists.answered(tokenizer, task, lists.plain(task)).ids.tolist()
    listed, place = [], 0
    for label, sign, number in task.data["steps"]:
        listed.append(find(ids, tokenizer.encode_plain(f" {label} {sign}{number}"), place))
        place = listed[-1].stop
    before, value = [], task.data["start"]
    for _, sign, number in task.data["steps"]:
        written = find(ids, tokenizer.encode_plain(f" {value:02d}{sign}{number}="), place)
        before.append(written.start + len(tokenizer.encode_plain(f" {value:02d}")) - 1)
        value, place = lists.after(value, sign, number), written.stop - 1
    return ids, before, listed


def look(model: KimiMini, tokenizer: Tokenizer, tasks: Sequence[Task]) -> dict[str, list]:
    """For each step of chains of one length, over all tasks: `right`, the attention of each head on the right step of
    the list, and `list`, on all of it, both (steps, L, H); `chance`, the probability of the right sign (steps,)."""
    right, every, chance = [], [], []
    for task in tasks:
        ids, before, listed = moments(tokenizer, task)
        weights = attention_rows(model, ids, before)  # (L, H, steps, T)
        with torch.no_grad():
            probabilities = model(torch.tensor([ids])).logits[0, before].softmax(-1)  # (steps, V)
        mass = torch.stack([weights[..., list(span)].sum(-1) for span in listed], -1)  # (L, H, steps, steps)
        right.append(mass.diagonal(dim1=-2, dim2=-1).permute(2, 0, 1))
        every.append(mass.sum(-1).permute(2, 0, 1))
        chance.append(probabilities[range(len(before)), [ids[place + 1] for place in before]])
    return {"right": _mean(right), "list": _mean(every), "chance": _mean(chance)}


def _mean(found: Sequence[Tensor]) -> list:
    return torch.stack(list(found)).mean(0).round(decimals=4).tolist()


def keeper(right: Sequence, trained: int) -> tuple[int, int]:
    """(layer, head) that looks most at the right step at the lengths that were trained. right (steps, L, H)."""
    mass = torch.tensor(right[:trained]).mean(0)
    return divmod(int(mass.argmax()), mass.shape[1])
