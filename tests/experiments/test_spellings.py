"""Spellings: pages of results, what counts as copied, verdicts."""

import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kimi_mini.base.evidence import Log
from kimi_mini.experiments.pretraining import spellings
from kimi_mini.training.synthesis import sheet_of
from kimi_mini.worlds.desk.language import words


class Oracle(torch.nn.Module):
    """Says the next token of the page it sees, but where `wrong` begins a name."""

    def __init__(self, wrong: int | None = None):
        super().__init__()
        self.wrong = wrong

    def forward(self, ids):
        after = torch.cat([ids[0, 1:], ids[0, :1]])
        if self.wrong is not None:
            after = torch.where(after == self.wrong, 0, after)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(after, 1024).float()[None])


@pytest.mark.parametrize("held_out", [False, True])
def test_a_page_holds_names_in_sentences_and_in_json(held_out):
    pieces, kinds = spellings.page(random.Random(1), held_out)
    assert len(pieces) == 2 * len(kinds) and sorted(set(kinds)) == ["json", "plain"]
    for kind, (result, asked), (copy, learned) in zip(kinds, pieces[::2], pieces[1::2], strict=True):
        name = re.fullmatch('now "(.*)"', copy)[1]
        assert learned and not asked and name in result
        assert (f'"{name}"' in result) == (kind == "json")
        assert all((word in words.HELD_OUT) == held_out for word in name.lower().split())


def test_what_is_measured_are_names_that_nobody_has_seen(monkeypatch):
    seen, page = [], spellings.page
    monkeypatch.setattr(spellings, "page", lambda *how, **more: seen.append(page(*how, **more)) or seen[-1])
    spellings.copied(Oracle(), spellings.vocabulary(False), 2, seed=0)
    copies = [copy for pieces, _ in seen for copy, learned in pieces if learned]
    said = {word for copy in copies for word in copy.lower()[5:-1].split()}
    assert len(copies) == 2 * spellings.LINES and said <= set(words.HELD_OUT)


def test_only_a_whole_name_is_copied():
    tokenizer = spellings.vocabulary(True)
    everything = spellings.copied(Oracle(), tokenizer, 3, seed=0)
    assert everything == {"json": 1.0, "plain": 1.0}
    ids, mask = sheet_of(tokenizer, spellings.page(random.Random("held out/0"), True)[0])
    last = ids[next(spellings.spans(mask)).stop - 2]  # the last piece of the first name
    assert 0 < min(spellings.copied(Oracle(last), tokenizer, 3, seed=0).values()) < 1
    assert [ids[span][0] for span in spellings.spans(mask)] == [tokenizer.encode("now")[0]] * spellings.LINES
    assert sum(span.stop - span.start for span in spellings.spans(np.array(mask))) == int(mask.sum())


@pytest.mark.parametrize(("attached", "verdict"), [(0.4, "holds"), (0.99, "does not hold")])
def test_verdicts_follow_what_is_measured(tmp_path, attached, verdict):
    log = Log("spellings", seeds=[0, 1, 2], folder=tmp_path, steps=1)
    for seed in range(3):
        for arm, plain in (("attached", attached), ("apart", 0.95)):
            log.row(seed=seed, arm=arm, seconds=1.0, tokens=1, json=0.97, plain=plain + seed / 1000)
    spellings.report(log)
    found = {claim["name"]: claim["verdict"] for claim in log.as_dict()["claims"]}
    assert found["spellings/plain"] == verdict and found["spellings/apart"] == "holds"
    assert len(spellings.draw(log.as_dict()).axes) == 1


def test_an_arm_is_trained_and_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(spellings, "STEPS", 2)
    log = Log("spellings", seeds=[0], folder=tmp_path, steps=2)
    spellings.run_arm(log, "apart", 0, 0.05)
    (row,) = log.rows
    assert row["tokens"] >= 2 * 4096 and 0 <= row["plain"] <= 1
