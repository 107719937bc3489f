"""What a run ships takes the place of what was shipped before, under the feet of nobody."""

import numpy as np
import pytest
import torch

from kimi_mini import KimiMini
from kimi_mini.agent import conversation
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.evaluation.scoreboard import ROWS
from kimi_mini.inference.generation import generate
from kimi_mini.pipeline.publish import SHIPPED, from_experiments, ship
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer


def shipped_over(copy, tmp_path):
    """What a reader that has the old file mapped into memory sees once the new one is there."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, value in ((old, 1), (new, 2)):
        folder.mkdir()
        np.full(4096, value, np.uint8).tofile(folder / "model.safetensors")
    mapped = np.memmap(old / "model.safetensors", np.uint8, "r")
    copy(new, old)
    assert (np.fromfile(old / "model.safetensors", np.uint8) == 2).all()
    return mapped[0]


def test_weights_that_somebody_has_mapped_stay_as_they_were(tmp_path):
    assert shipped_over(ship, tmp_path) == 1
    assert sorted(file.name for file in (tmp_path / "old").iterdir()) == ["model.safetensors"]


def test_writing_over_the_file_would_be_seen(tmp_path):
    def write_over(source, target):
        (target / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())

    assert shipped_over(write_over, tmp_path) == 2


def test_the_runs_log_holds_its_own_rows_and_the_experiments_keep_theirs():
    """Each as its row says today; what several seeds measured stands in the log of its experiment alone."""
    own = {part.name: part.said() for row in ROWS for part in (row, *row.parts)}
    before = {f"before_rl/{row.name}" for row in ROWS if row.before_rl}
    board = read_json(RESULTS / "run.json")["scoreboard"]
    assert set(board) == own.keys() | before and not board.keys() & from_experiments().keys()
    assert all(board[name] == board[name] | said for name, said in own.items())
    assert not any(board[name]["main"] or board[name]["floor"] for name in before)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_agent_ends_its_turn(name):
    """By the public interface alone: the ends stand in config.json."""
    folder = RESULTS.parent / "checkpoints" / name
    model, tokenizer = KimiMini.from_pretrained(folder).eval(), Tokenizer.load(folder)
    ends = [tokenizer.special["<|im_end|>"], tokenizer.special["[EOS]"]]
    assert model.config.eos_token_id == ends and model.config.pad_token_id == tokenizer.special["[PAD]"]
    if name == "final":
        prompt = chat.encode(
            tokenizer,
            [
                {"role": "system", "content": conversation.SYSTEM},
                {"role": "user", "content": "Start with 82, h *2, i -4, end. Two digits, modulo 100?"},
            ],
            add_generation_prompt=True,
        )[0]
        written = generate(model, torch.tensor([prompt]), 80)[0, len(prompt) :].tolist()
        assert written[-1] == ends[0] and chat.parse_ids(tokenizer, written)["content"] == "60"


def test_rates_stay_between_zero_and_one():
    for name, row in read_json(RESULTS / "run.json")["scoreboard"].items():
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1, name
