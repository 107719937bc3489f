"""Several ends of training as one model: the mean of their weights.

    theta = 1/n sum_i theta_i          Izmailov et al. 2018 (arXiv 1803.05407, Eq. 2), at the ends of cycles of the rate

Each course of a schedule that falls to zero ends somewhere else around what all of them approach; what sets one end
apart is mostly the noise of its last steps, and the mean has less of it. It needs no training and no more time to run.
Ends that have a common start can be averaged; weights that began at random apart cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kimi_mini.base.errors import KimiError
from kimi_mini.model.kimi import KimiMini


@torch.no_grad()
def set_to_mean(model: KimiMini, others: Sequence[KimiMini]) -> None:
    """Give `model` the mean of its own weights and those of `others`, the biases of the routers included; summed in
    fp64. KimiError for a model of another shape."""
    states = [one.state_dict() for one in (model, *others)]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise KimiError("weights of two shapes have no mean: average agents of one preset")
    for name, own in states[0].items():
        if own.is_floating_point():
            own.copy_(sum(state[name].double() for state in states) / len(states))
