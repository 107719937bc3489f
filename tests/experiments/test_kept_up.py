"""The drills that are kept up: what is counted as looked up, and what the claims say of the rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kimi_mini.base.evidence import Log
from kimi_mini.experiments.pretraining import kept_up

ALPHABET = np.arange(100, 226)


class LooksUp:
    """Says what came after the last place where the token stood; `back`: a wrong one, what stood there."""

    def __init__(self, back: int = 0):
        self.back = back

    def __call__(self, ids):
        logits = torch.zeros(*ids.shape, 300)
        row = ids[0].tolist()
        for place in range(len(row)):
            earlier = [i for i in range(place) if row[i] == row[place]]
            if earlier:
                logits[0, place, row[earlier[-1] + 1 - self.back]] = 1
        return SimpleNamespace(logits=logits)


def test_pairs_that_are_looked_up_are_counted():
    assert kept_up.looked_up(LooksUp(), ALPHABET, 10, seed=0) == 1.0
    assert kept_up.looked_up(LooksUp(back=1), ALPHABET, 10, seed=0) == 0.0


def row(seed, arm, after, loss):
    return dict(seed=seed, arm=arm, before=0.99, after=after, validation_before=9.0, validation_loss=loss)


@pytest.mark.parametrize(("after", "verdict"), [(0.02, "holds"), (0.9, "does not hold")])
def test_the_claims_stand_on_their_own_arm(tmp_path, after, verdict):
    log = Log("kept_up", seeds=[0, 1, 2], folder=tmp_path, tokens=400_000, kept=512)
    for seed in range(3):
        log.row(**row(seed, "alone", after + seed / 1000, 3.5))
        log.row(**row(seed, "with drills", 0.9 + seed / 1000, 3.2 + seed / 1000))
    kept_up.report(log)
    found = {claim["name"]: claim["verdict"] for claim in log.as_dict()["claims"]}
    assert found == {"kept_up/alone": verdict, "kept_up/with_drills": "holds", "kept_up/loss": "holds"}
    assert len(kept_up.draw(log.as_dict()).axes) == 2


@pytest.mark.slow
def test_a_rehearsal_goes_through(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_up, "RUNS", tmp_path)
    log = Log("kept_up", seeds=[0], folder=tmp_path, tokens=1, kept=512)
    kept_up.run_seed(log, 0, 0.01)
    assert [row["arm"] for row in log.rows] == list(kept_up.ARMS) and not (tmp_path / "kept_up").exists()
