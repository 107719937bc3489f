"""Training on several processes: every rank reads its share of a step, and all take the same step.

`processes` starts the same command once a core, torchrun once a GPU. What the ranks have found apart is joined so that
the step is the one that a single process would have taken (shares and totals: see kimi_mini.base.ranks):

    learned tokens, loss       SUM   the loss is a mean over all learned tokens of the step, wherever they are
    gradients                  SUM   each rank has divided by that number already
    tokens of each expert      SUM   then every rank moves its router biases alike
    largest logit of a head    MAX   QK-Clip acts on the largest of all: a sum or a rank's own would be another gamma
    orthogonal updates         each rank makes those of its share of WHOLE matrices, then everybody gets all of them

A slice of a matrix must never be orthogonalised by itself: its singular vectors are not the matrix's.
Alone a process does nothing here. Sources: Moonlight (arXiv 2502.16982) section 2.3; K2 report section 2.1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kimi_mini.base.command import SAVED
from kimi_mini.base.errors import KimiError
from kimi_mini.base.processes import end_with_parent
from kimi_mini.base.ranks import is_on, share
from kimi_mini.model.kernels import engine

# what gloo says when a rank has died
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Context: together with the ranks that were started with this one; alone where there are none.

    device   as for Placement.choose: "cpu" joins by gloo; everything else by NCCL, a GPU each, where there are GPUs
    """
    end_with_parent()
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Functions of this module have the group as a default argument. Imported later, by an optimizer, they would keep
    # it, and with it gloo's threads, after destroy_process_group: the interpreter's end then kills a rank now and then.
    import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if on_gpus else "gloo")
    try:
        same_engine()
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST):
            raise
        time.sleep(20)  # whoever started us knows the reason, and ends us meanwhile
        raise KimiError(f"another process of this run has ended: {SAVED}") from None
    finally:
        dist.destroy_process_group()


def same_engine() -> None:
    """All ranks multiply by the engine of the first one: the last bits of their sums depend on it."""
    if is_on() and dist.get_backend() == "gloo":
        named = [engine.chosen() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(named, src=0)
        engine.choose(named[0])


def largest(maxima: Tensor) -> Tensor:
    """The largest of all ranks, entry by entry; the given tensor is not changed."""
    maxima = maxima.clone()
    if is_on():
        dist.all_reduce(maxima, op=dist.ReduceOp.MAX)
    return maxima


@torch.no_grad()
def join_step(model: nn.Module) -> None:
    """After backward: sum the gradients of all ranks, and the tokens that each expert got."""
    if not is_on():
        return
    for param in model.parameters():
        if param.grad is None and param.requires_grad:  # a rank that had no share of this step
            param.grad = torch.zeros_like(param)
    _sum_in_one_message([param.grad for param in model.parameters() if param.grad is not None])
    _sum_in_one_message([model.statistics.loads])


@torch.no_grad()
def same_weights(model: nn.Module) -> None:
    """Give every rank the weights and buffers of rank 0."""
    if is_on():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, src=0)


def each_its_share(tensors: list[Tensor], work: Callable[[list[Tensor]], list[Tensor]]) -> list[Tensor]:
    """work(tensors) with the matrices dealt out to the ranks, largest first, like cards.

    tensors  parameters (..., out, in): all leading dimensions are a batch of matrices
    work     turns a list of matrices into as many of the same shapes, each by itself
    returns  what work(tensors) returns, on every rank
    """
    if not is_on():
        return work(tensors)
    results = [torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]
    matrices = [
        (tensor, result) for tensor, result in zip(_matrices(tensors), _matrices(results), strict=True)
    ]
    own = share(sorted(matrices, key=lambda pair: -pair[0].numel()))
    for (_, result), update in zip(own, work([matrix for matrix, _ in own]), strict=True):
        result.copy_(update)
    _sum_in_one_message(results)  # everybody else's entry is zero
    return results


def _matrices(tensors: list[Tensor]) -> list[Tensor]:
    """Every single matrix (out, in) as a view; a stack of experts gives one for each."""
    return [matrix for tensor in tensors for matrix in tensor.reshape(-1, *tensor.shape[-2:])]


def _sum_in_one_message(tensors: list[Tensor]) -> None:
    """Replace tensors of one dtype by their sums over all ranks."""
    if not tensors:
        return
    packed = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(packed, op=dist.ReduceOp.SUM)
    for tensor, part in zip(tensors, packed.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
