"""Several processes that work on one thing: who am I, what is my share, and what did all of them find?

A rank is one of them. Ranks are started by `kimi_mini.base.processes`, or by torchrun, and meet in
`kimi_mini.training.machine.distributed`. Alone, a process is rank 0 of 1: everything is its own share, and every total
its own number.

    in_order(tasks, work)     work is dealt out, results come back in the order of the tasks
    first_rank(work)          one works, all get the result, or the same refusal
    total(numbers)            sums over all ranks
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from kimi_mini.base.errors import KimiError

Result = TypeVar("Result")


def is_on() -> bool:
    """Whether several ranks work together."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, from 0; 0 when it is alone."""
    return dist.get_rank() if is_on() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if is_on() else 1


def first_rank(work: Callable[[], Result]) -> Result:
    """The first rank works while the others wait; all get what it returns (pickled). What it refuses with a
    KimiError, all refuse in the same words."""
    told: list = [None, None]  # result, refusal
    if rank() == 0:
        try:
            told[0] = work()
        except KimiError as error:
            told[1] = str(error)
    if is_on():
        dist.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise KimiError(told[1])
    return told[0]


def dealt(count: int) -> list[list[int]]:
    """The numbers of `count` items for each rank, dealt like cards, back and forth: 0 3 4 7 ... and 1 2 5 6 ...

    Where items grow, or come in turns (level 1, level 2, level 1, ...), all ranks get about the same.
    """
    hands: list[list[int]] = [[] for _ in range(world_size())]
    for index in range(count):
        there, place = divmod(index, len(hands))
        hands[-1 - place if there % 2 else place].append(index)
    return hands


def share(items: Sequence) -> Sequence:
    """This rank's part of a list that every rank has."""
    return [items[index] for index in dealt(len(items))[rank()]] if is_on() else items


def gathered(own: Sequence[Result]) -> list[Result]:
    """The results of all ranks for their shares of one list, in the order of that list; on every rank (pickled)."""
    if not is_on():
        return list(own)
    parts: list[list[Result]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, list(own))
    hands = dealt(sum(map(len, parts)))
    found = {
        index: result for hand, part in zip(hands, parts) for index, result in zip(hand, part, strict=True)
    }
    return [found[index] for index in range(len(found))]


def in_order(items: Sequence, work: Callable[[Sequence], Sequence[Result]]) -> list[Result]:
    """work(items), one result an item, with the items dealt out to the ranks; every rank gets all results, in order.

    Each result must depend on its own item alone, or it would depend on the number of ranks.
    """
    return gathered(work(share(items)))


def total(*numbers: float) -> list[float]:
    """Each number summed over all ranks, in fp64."""
    if not is_on():
        return list(numbers)
    packed = torch.tensor(numbers, dtype=torch.float64, device=device())
    dist.all_reduce(packed, op=dist.ReduceOp.SUM)
    return packed.tolist()


def device() -> torch.device:
    """Where the engine that joins the ranks wants its numbers."""
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
