"""Four training steps, alone or as one of several ranks, right and with each well-known mistake:

    python -m torch.distributed.run --nproc-per-node 2 tests/helpers/two_ranks.py OUT.json

The first rank writes what every variant measured, and how far the weights of the ranks have drifted apart.
"""

import contextlib
import json
import sys
import weakref
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from tiny import tiny_model

from kimi_mini import MuonClip
from kimi_mini.base import ranks
from kimi_mini.training.batch import Example, micro_batches
from kimi_mini.training.loop import History, train
from kimi_mini.training.machine import distributed
from kimi_mini.training.optim import muon

STEPS = 4


def examples(step):
    """Eight sequences of all lengths; about half of their tokens are learned, in the first ones nearly none."""
    rng = np.random.default_rng(step)
    made = []
    for index, length in enumerate(rng.integers(6, 30, 8)):
        mask = rng.random(length) < (0.9 if index % 2 else 0.2)
        mask[1] = True
        made.append(Example(rng.integers(0, 64, length).astype(np.uint16), mask))
    return made


def run(folder=None) -> tuple[History, torch.Tensor]:
    """Train; the history and all weights and biases as one vector."""
    model = tiny_model(vocab_size=64)
    optimizer = MuonClip(
        model, lr=0.02, adamw_lr=0.02, tau=1.0, ns_dtype=torch.float32
    )  # bf16 rounds 1e-7 up to 1e-3
    data = lambda step: micro_batches(ranks.share(examples(step)), 60)
    history = train(model, optimizer, data, STEPS, lambda step: 1.0, bias_rate=0.05, state_file=folder)
    return history, torch.cat([value.flatten() for value in model.state_dict().values()])


# ---- mistakes ------------------------------------------------------------------------------------------------


def summed(maxima):
    """QK-Clip on the sum of the ranks' maxima."""
    maxima = maxima.clone()
    dist.all_reduce(maxima, op=dist.ReduceOp.SUM)
    return maxima


def slices(tensors, work):
    """Every rank orthogonalises its rows of each matrix."""
    results = [torch.zeros_like(tensor) for tensor in tensors]
    for tensor, result in zip(tensors, results):
        rows = slice(ranks.rank(), None, ranks.world_size())
        result[..., rows, :] = work([tensor[..., rows, :].contiguous()])[0]
        dist.all_reduce(result)
    return results


def alone(name):
    """A function of `distributed` or `ranks` that does what it does in a single process."""
    same = {
        "largest": lambda maxima: maxima.clone(),
        "total": lambda *numbers: list(numbers),
        "join_step": lambda model: None,
        "share": lambda items: items,
    }
    return mock.patch.object(
        distributed if hasattr(distributed, name) and name != "share" else ranks, name, same[name]
    )


def loads_forgotten(model):
    distributed._sum_in_one_message([param.grad for param in model.parameters()])


def averaged(model):
    """What DistributedDataParallel does: right for a mean of means, wrong for a mean over all tokens."""
    distributed._sum_in_one_message([param.grad.div_(ranks.world_size()) for param in model.parameters()])
    distributed._sum_in_one_message([model.statistics.loads])


VARIANTS = {
    "right": contextlib.nullcontext(),
    "maxima summed": mock.patch.object(distributed, "largest", summed),
    "maxima of each rank": alone("largest"),
    "nothing joined": alone("join_step"),
    "loads of each rank": mock.patch.object(distributed, "join_step", loads_forgotten),
    "gradients averaged": mock.patch.object(distributed, "join_step", averaged),
    "learned tokens of each rank": alone("total"),
    "everybody reads everything": alone("share"),
    "slices orthogonalised": mock.patch.object(muon, "each_its_share", slices),
}


def drift(weights) -> float:
    """Largest difference between this rank's weights and those of the first."""
    first = weights.clone()
    dist.broadcast(first, src=0)
    apart = (weights - first).abs().max()
    dist.all_reduce(apart, op=dist.ReduceOp.MAX)
    return apart.item()


if __name__ == "__main__":
    found = {}
    with distributed.joined("cpu"):
        group = weakref.ref(dist.group.WORLD)
        for name, mistake in VARIANTS.items():
            with mistake:
                history, weights = run(Path(sys.argv[1] + ".pt") if name == "right" else None)
            found[name] = {**vars(history), "weights": weights.tolist(), "drift": drift(weights)}
        first = ranks.rank() == 0
    if first:
        found["group_left"] = group() is not None
        Path(sys.argv[1]).write_text(json.dumps(found))
