"""Which expert gets which token, as numbers: load, specialisation, and what is lost when an expert falls silent.

    routes               every choice of a model on some texts
    mutual_information   how much an expert says about a label (domain, kind of token), in bits
    shuffled_information the same with the labels dealt out at random, many times: what chance alone would show
    permutation_p        how often chance shows as much
    usage, coactivation  who serves which label; who is chosen together with whom
    LoadMeter            tokens an expert got, step by step of a training run
    silenced             a context in which one expert says nothing; damage: what that costs, domain by domain

Numbers in, numbers out: `course.figures.routing` draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini.model.kimi import KimiMini, evaluating


class Routes(NamedTuple):
    """Choices of L MoE layers on B sequences: experts (L, B, T, k) int64 and their gate weights (L, B, T, k)."""

    experts: np.ndarray
    weights: np.ndarray


def routes(model: KimiMini, ids: np.ndarray) -> Routes:
    """Every choice of `model` on ids (B, T)."""
    found = model.routing(torch.as_tensor(np.asarray(ids, np.int64)))
    return Routes(*(torch.stack([pair[i] for pair in found]).cpu().numpy() for i in (0, 1)))


# -- load ----------------------------------------------------------------------------------------------


def loads(experts: np.ndarray, count: int) -> np.ndarray:
    """Choices that each of `count` experts got. experts (L, ...) -> (L, count)."""
    return np.stack([np.bincount(layer.ravel(), minlength=count) for layer in experts])


def max_vio(load: np.ndarray) -> np.ndarray:
    """MaxVio of each layer: the fullest expert's load over the mean, minus 1. load (..., E) -> (...)."""
    load = np.asarray(load, float)
    return load.max(-1) / np.maximum(load.mean(-1), 1e-9) - 1


def dead(load: np.ndarray, share: float = 0.01) -> np.ndarray:
    """How many experts of each layer get less than `share` of the mean load. load (..., E) -> (...)."""
    load = np.asarray(load, float)
    return (load < share * load.mean(-1, keepdims=True)).sum(-1)


class LoadMeter:
    """The load of every step of a training run: give it to `train` as `progress`, then read `steps` (S, L, E)."""

    def __init__(self, model: KimiMini):
        self.statistics = model.statistics
        self.taken: list[np.ndarray] = []

    def __call__(self, step: int, history) -> None:
        self.taken.append(self.statistics.last_loads.cpu().numpy())

    @property
    def steps(self) -> np.ndarray:
        """(steps, MoE layers, experts): choices that each expert got in each step; empty for a dense model."""
        return np.stack(self.taken)


# -- specialisation ------------------------------------------------------------------------------------


def mutual_information(labels: np.ndarray, experts: np.ndarray) -> float:
    """I(label; expert) in bits, over all choices. labels (...,) ints; experts (..., k): the choices of each token.

    0 when knowing the expert says nothing about the label; log2(n) when each of n equally frequent labels has experts
    of its own.
    """
    labels = np.broadcast_to(np.asarray(labels)[..., None], experts.shape).ravel()
    shape = labels.max() + 1, experts.max() + 1
    joint = np.bincount(labels * shape[1] + experts.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    joint = joint / joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


def shuffled_information(
    labels: np.ndarray, experts: np.ndarray, draws: int = 20, seed: int = 0
) -> np.ndarray:
    """Mutual information (draws,) when the labels are dealt out at random over whole sequences.

    labels (B, T) and experts (B, T, k). Rows are exchanged as wholes: tokens of one text resemble each other, so a
    router that follows the text's topic would beat a control that shuffles single tokens, whatever the labels mean.
    Its mean is the floor of the measurement: it falls with the number of texts, so subtract it and do not divide by it.
    """
    rng = np.random.default_rng(seed)
    return np.array([mutual_information(labels[rng.permutation(len(labels))], experts) for _ in range(draws)])


def permutation_p(measured: float, shuffled: np.ndarray) -> float:
    """Chance of at least `measured` when labels mean nothing, from shuffled (draws,): (1 + hits) / (1 + draws).

    The measured order counts as one of the permutations, so that no number of draws gives 0 (Phipson and Smyth 2010).
    """
    return float((1 + np.sum(shuffled >= measured)) / (1 + len(shuffled)))


def usage(labels: np.ndarray, experts: np.ndarray, count: int) -> np.ndarray:
    """Share of each label's choices that go to each expert; rows sum to 1. -> (labels, count)."""
    labels = np.broadcast_to(np.asarray(labels)[..., None], experts.shape).ravel()
    table = np.zeros((labels.max() + 1, count))
    np.add.at(table, (labels, experts.ravel()), 1.0)
    return table / np.maximum(table.sum(1, keepdims=True), 1)


def coactivation(experts: np.ndarray, count: int) -> np.ndarray:
    """How often two experts serve the same token, over what a router would give that draws k different experts as often
    as this one uses them. experts (..., k) -> (count, count), 1 where they meet by chance, the diagonal 0."""
    flat = experts.reshape(-1, experts.shape[-1])
    chosen = np.zeros((len(flat), count))
    np.put_along_axis(chosen, flat, 1.0, axis=1)
    together, alone = chosen.T @ chosen / len(flat), chosen.mean(0)
    k = flat.shape[1]
    # a token never chooses one expert twice
    chance = np.outer(alone, alone) * ((k - 1) / k) / ((count - 1) / count)
    table = together / np.maximum(chance, 1e-12)
    np.fill_diagonal(table, 0.0)
    return table


TOKEN_CLASSES = ("word", "number", "sign", "space", "marker")


def token_class(piece: str) -> int:
    """Index into TOKEN_CLASSES of a token's text: letters, digits, other signs, white space alone, or a chat marker."""
    if piece.startswith(("<|", "[EOS", "<think", "</think")):
        return 4
    bare = piece.strip()
    if not bare:
        return 3
    return 0 if bare[0].isalpha() or bare[0] == "_" else 1 if bare[0].isdigit() else 2


# -- silence -------------------------------------------------------------------------------------------


class silenced:
    """Context: one expert of one MoE layer gets gate weight 0. It is still chosen, but what it says is not heard."""

    def __init__(self, model: KimiMini, layer: int, expert: int):
        self.router, self.expert = model.routers()[layer], expert

    def __enter__(self) -> silenced:
        self.handle = self.router.register_forward_hook(self._mute)
        return self

    def __exit__(self, *_) -> None:
        self.handle.remove()

    def _mute(self, router, arguments, routed: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        indices, weights = routed
        return indices, weights.masked_fill(indices == self.expert, 0.0)


@torch.no_grad()
def losses(
    model: KimiMini, texts: Mapping[str, np.ndarray], learned: np.ndarray | None = None
) -> dict[str, float]:
    """Mean loss in nats a token for each domain; its texts are ids (B, T). learned (T,) bool: places that count."""
    found = {}
    with evaluating(model):
        for name, ids in texts.items():
            ids = torch.as_tensor(np.asarray(ids, np.int64))
            counted = slice(None) if learned is None else torch.as_tensor(learned[1:])
            logits = model.lm_head(model.hidden_states(ids)[:, :-1][:, counted]).float()  # (B, counted, V)
            found[name] = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:][:, counted].flatten()).item()
    return found


def damage(model: KimiMini, texts: Mapping[str, np.ndarray], layer: int, expert: int) -> dict[str, float]:
    """How much each domain's loss rises when the expert is silenced, in nats a token."""
    before = losses(model, texts)
    with silenced(model, layer, expert):
        after = losses(model, texts)
    return {name: after[name] - before[name] for name in texts}


def top_expert(shares: np.ndarray, label: int) -> tuple[int, int]:
    """(layer, expert) whose share of the label's choices exceeds its mean share of the other labels' most.

    shares (L, labels, E), as `usage` gives them for each layer.
    """
    others = np.delete(shares, label, axis=1).mean(1)  # (L, E)
    return tuple(map(int, np.unravel_index((shares[:, label] - others).argmax(), others.shape)))
