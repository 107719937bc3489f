"""A text so short that its policy gradient can be computed exactly: every order, every text, nothing sampled.

Three tokens of an alphabet of three, behind a context of two. The reward is 1 if all three agree, and a little more for
a first token of one kind: no token is right by itself. The sum over the 6 orders and 27 texts of chance times reward,
differentiated, is the exact gradient; beside it stands what the estimators give, as samples grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import torch
from torch import Tensor

from kimi_mini.inference.diffusion import Refined
from kimi_mini.model import kernels
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kernels.both_ways import both_ways
from kimi_mini.model.kimi import KimiMini
from kimi_mini.training.diffusion.bound import Noised, refined_losses
from kimi_mini.training.diffusion.estimators import Estimator, Written

CONTEXT, SIZE, TOKENS = (1, 2), 3, 3
MASK = TOKENS
ORDERS = tuple(permutations(range(SIZE)))
TEXTS = tuple(product(range(TOKENS), repeat=SIZE))
SHAPE = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
    kv_lora_rank=8,
    intermediate_size=16,
    moe_intermediate_size=8,
    n_routed_experts=4,
    num_experts_per_tok=2,
)


def toy_model(seed: int) -> KimiMini:
    """Random weights, large enough for a token to depend on the others."""
    torch.manual_seed(seed)
    config = KimiConfig.preset("nano", vocab_size=TOKENS + 1, initializer_range=0.5, **SHAPE)
    model = KimiMini(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    return model


def reward(text: Sequence[int]) -> float:
    """1 if all tokens agree; 0.2 for a first token 0."""
    return float(len(set(text)) == 1) + 0.2 * (text[0] == 0)


def gradient(model: KimiMini, value: Tensor, keep: bool = False) -> Tensor:
    """Of a number, by all weights, in one vector (P,)."""
    found = torch.autograd.grad(value, list(model.parameters()), retain_graph=keep, allow_unused=True)
    pairs = zip(found, model.parameters())
    return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for g, w in pairs])


def chances(model: KimiMini) -> Tensor:
    """Log-probability of every way to write every text, (orders, texts), with gradients."""
    canvases = list(product(range(TOKENS + 1), repeat=SIZE))
    ids = torch.tensor([[*CONTEXT, *canvas] for canvas in canvases])
    marked = torch.tensor([[False] * (len(CONTEXT) - 1) + [True] * (SIZE + 1)]).expand(len(ids), -1)
    with kernels.using(attention=both_ways(marked)):
        table = model(ids).logits[:, len(CONTEXT) - 1 : -1, :MASK].log_softmax(-1)  # (canvases, L, V - 1)
    rows = []
    for order in ORDERS:
        for text in TEXTS:
            canvas, total = [MASK] * SIZE, 0.0
            for place in order:
                total = total + table[canvases.index(tuple(canvas)), place, text[place]]
                canvas[place] = text[place]
            rows.append(total)
    return torch.stack(rows).view(len(ORDERS), len(TEXTS))


def exact(model: KimiMini) -> tuple[Tensor, Tensor]:
    """The gradient of the expected reward (P,), and the chance of each order and text, (orders, texts)."""
    paths = chances(model).exp() / len(ORDERS)
    value = (paths * torch.tensor([reward(text) for text in TEXTS])).sum()
    return gradient(model, value), paths.detach()


class _EvenDice(np.random.Generator):
    """Dice whose permutations begin with each number equally often: the step that is drawn leaves nothing to luck."""

    turn = 0

    def permutation(self, count: int) -> np.ndarray:
        """The next of the rotations of 0 .. count - 1."""
        self.turn += 1
        return np.roll(np.arange(count), self.turn)


def outcomes(model: KimiMini, estimator: Estimator, draws: int = 600) -> tuple[Tensor, Tensor]:
    """All that an estimator can answer: for each order and text, by its own dice, a gradient of the expected reward.

    Returns them (outcomes, P), and the chance of each under the policy. The estimator, one that looks once at a text,
    is asked `draws` times for each writing; the same answer counts once, as often as it came.
    """
    _, paths = exact(model)
    rng, found, weights = _EvenDice(np.random.PCG64(0)), [], []
    for order, row in zip(ORDERS, paths):
        when = [order.index(place) for place in range(SIZE)]
        for text, chance in zip(TEXTS, row):
            done = Refined(
                torch.tensor([text] * draws), torch.tensor([when] * draws), torch.zeros(draws, SIZE), SIZE
            )
            batch = estimator(Written.of([CONTEXT] * draws, done, MASK), rng)
            seen = torch.cat([batch.noisy.double(), batch.weight.double()], 1)
            _, kind, count = seen.unique(dim=0, return_inverse=True, return_counts=True)
            first = [int((kind == number).nonzero()[0]) for number in range(len(count))]
            if not reward(text):  # its gradient is zero, whatever was chosen
                first, count = first[:1], count.sum()[None]
            fields = ("ids", "mask", "valid", "noisy", "weight")
            parts = Noised(**{name: getattr(batch, name)[first] for name in fields})
            losses = torch.zeros(len(first), len(batch.ids[0])).masked_scatter(
                parts.weight != 0, refined_losses(model, parts)
            )
            found += [-reward(text) * gradient(model, one, keep=True) for one in losses.sum(1)]
            weights += (chance * count / draws).tolist()
    return torch.stack(found), torch.tensor(weights)


def errors(
    model: KimiMini, estimator: Estimator, samples: Sequence[int], repeats: int = 20, seed: int = 0
) -> dict:
    """Distance from the exact gradient, relative to its length: of the mean over so many sampled texts, {samples:
    root mean square over repeats}, and of the mean over all there are, the bias."""
    wanted, _ = exact(model)
    found, weights = outcomes(model, estimator)
    rng, chance = np.random.default_rng(seed), weights.double().numpy()
    chance = chance / chance.sum()

    def error(mean: Tensor) -> float:
        return ((mean - wanted).norm() / wanted.norm()).item()

    curve = {}
    for count in samples:
        drawn = rng.multinomial(count, chance, size=repeats) / count  # (repeats, outcomes)
        off = [error(torch.from_numpy(row).float() @ found) for row in drawn]
        curve[count] = float(np.sqrt(np.mean(np.square(off))))
    return {"bias": error(torch.from_numpy(chance).float() @ found), "error": curve}
