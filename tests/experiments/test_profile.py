"""The profile of a training step: what is timed adds up, nothing is changed by being watched."""

from collections import Counter

import pytest
import torch

from kimi_mini.experiments.deployment import profile
from kimi_mini.experiments.deployment.compared import build
from kimi_mini.model import KimiConfig, kernels
from kimi_mini.training.batch import text_batch, token_losses

TINY = KimiConfig.preset("nano", vocab_size=64)


def step(watched):
    model, spent, work = build(TINY).train(), Counter(), Counter()
    data = text_batch(torch.arange(140).view(2, 70).remainder(64).numpy())
    if watched:
        with profile.timed(spent, work):
            token_losses(model, data).sum().backward()
    else:
        token_losses(model, data).sum().backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    return grads, model.statistics.max_logits, spent, work


def test_watching_changes_nothing_and_sees_every_kernel():
    grads, maxima, spent, work = step(True)
    plain, plain_maxima, *_ = step(False)
    assert torch.equal(grads, plain) and torch.equal(maxima, plain_maxima)
    assert set(spent) == set(kernels.TABLE) and all(seconds > 0 for seconds in spent.values())
    # 3 * 2 FLOPs for each weight and token, attention apart; the head sees 69 of 70 tokens a row
    head = TINY.vocab_size * TINY.hidden_size
    count = build(TINY).config.count_parameters().activated
    experts = 6 * 140 * 2 * 3 * 3 * TINY.moe_intermediate_size * TINY.hidden_size
    assert work["experts"] == experts and work["norm"] == 0
    embedding, router, norms = head, 2 * 16 * 96, 3 * (2 * 96 + 48) + 96
    others = count - embedding - router - norms - 2 * 3 * 3 * TINY.moe_intermediate_size * TINY.hidden_size
    assert work["linear"] == pytest.approx(6 * (140 * (others - head) + 138 * head), rel=1e-3)
    width = TINY.qk_head_dim + TINY.v_head_dim
    assert work["attention"] == 6 * 3 * 2 * 3 * (70 * 71 / 2) * width


def test_a_log_becomes_a_figure():
    rows = [
        dict(model=size, dtype="fp32", part=part, ms=1.0)
        for size in ("nano", "mid")
        for part in ("attention", "experts", "linear", "norm", "rest", "optimizer")
    ]
    figure = profile.draw({"rows": rows, "versions": {"processor": "a processor"}})
    assert "a processor" in figure.axes[0].get_title(loc="left")


def test_the_profile_of_a_small_step(monkeypatch):
    monkeypatch.setattr(profile, "ROUNDS", 1)
    parts = profile.profile(TINY, 32, 64, torch.float32)
    assert set(parts) == {*kernels.TABLE, "optimizer", "rest"}
    assert all(part["seconds"] > 0 for part in parts.values())
