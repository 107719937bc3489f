"""A stage's bar announces the tokens that are trained on, so that it ends at exactly 100 %."""

import io
from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_model

from kimi_mini.pipeline import finetune, pretrain, shared
from kimi_mini.pipeline.plan import Finetune, Plan
from kimi_mini.training.batch import Example
from kimi_mini.training.loop import History
from kimi_mini.training.synthesis import Source


@pytest.fixture
def bars(monkeypatch):
    """The bars that were opened, each with the total that it announced."""
    opened = []

    class Watched(shared.tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, file=io.StringIO(), **options)
            self.announced = self.total
            opened.append(self)

    monkeypatch.setattr(shared, "tqdm", Watched)
    return opened


@pytest.mark.parametrize("width", [0, 48])
def test_fine_tuning_ends_at_a_hundred_per_cent(bars, width):
    """A step takes whole examples until it has enough, and a row of text more. Mutant: steps times tokens a step."""
    source, rng = Source("chain", "think", 1.0, (1, 2)), np.random.default_rng(0)
    pools = {
        (source, level): [Example(rng.integers(0, 60, 20 + n), np.ones(20 + n, bool)) for n in range(9)]
        for level in source.levels
    }
    text = rng.integers(0, 60, (5, width)) if width else None
    plan = Plan(step_tokens=160, finetune=Finetune(tokens=400))
    history = finetune.tune(tiny_model(), pools, plan, text)
    (bar,) = bars
    assert bar.announced == bar.n == sum(history.tokens) and len(history.tokens) > 1
    assert bar.announced != plan.step_tokens * len(history.tokens)


@pytest.mark.parametrize("step_tokens", [64, 1000, 1024])
def test_pretraining_ends_at_a_hundred_per_cent(step_tokens):
    """Also where windows do not fill a step."""
    plan = replace(Plan.rehearsal(), step_tokens=step_tokens)
    rows, steps = plan.rows, pretrain.steps_of(plan)
    data = pretrain.step_data(np.zeros((7, plan.text.window), int), rows, 0)
    read = sum(int(batch.valid.sum()) for step in range(steps) for batch in data(step))
    assert read == pretrain.tokens_to_read(plan)


def test_what_ends_early_is_done_and_what_fails_is_not(bars):
    history = History(loss=[1.0], tokens=[40], max_logit=[2.0])
    with shared.Bar(100) as bar:
        bar(0, history)
    with pytest.raises(KeyError), shared.Bar(100) as bar:
        bar(0, history)
        raise KeyError
    assert [(bar.n, bar.total) for bar in bars] == [(40, 40), (40, 100)]
