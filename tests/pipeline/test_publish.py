"""What is shipped takes the place of what was shipped before, under the feet of nobody; and only a whole run is."""

import json
import shutil

import numpy as np
import pytest
import torch

from kimi_mini import KimiMini
from kimi_mini.base import ledger
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import FAILS, HOLDS
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.course.figures import scores
from kimi_mini.evaluation.scoreboard import ROWS
from kimi_mini.inference.generation import generate
from kimi_mini.pipeline import Plan, Run
from kimi_mini.pipeline import publish as publishing
from kimi_mini.pipeline.publish import SHIPPED, publish, ship
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.base import SYSTEM


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
    logs = ledger.read_logs(RESULTS)
    board = logs.pop("run.json")["scoreboard"]
    assert set(board) == own.keys() | before and not board.keys() & ledger.join(logs).keys()
    assert all(board[name] == board[name] | said for name, said in own.items())
    assert not any(board[name]["main"] or board[name]["floor"] for name in before)


def finished(folder, plan=None):
    """A finished run whose weights are a few bytes, and whose log is the shipped one."""
    run = Run(folder, plan or Plan())
    run.begin()
    for name in SHIPPED:
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "model.safetensors").write_text(f"new {name}")
    shutil.copy(RESULTS / "run.json", folder)
    return folder


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Somewhere else to ship to, and a ledger that only says that it was asked."""
    for name, folder in (("RESULTS", "results"), ("CHECKPOINTS", "checkpoints"), ("FIGURES", "figures")):
        monkeypatch.setattr(publishing, name, tmp_path / folder)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "rl_gap.json").write_text((RESULTS / "rl_gap.json").read_text())
    monkeypatch.setattr(ledger, "update", lambda: (tmp_path / "results" / "README.md").write_text("asked"))
    return tmp_path


def test_a_finished_run_is_shipped_whole(clone, capsys):
    publish(finished(clone / "run"))
    assert [(clone / "checkpoints" / name / "model.safetensors").read_text() for name in SHIPPED] == [
        f"new {name}" for name in SHIPPED
    ]
    assert read_json(clone / "results" / "run.json") == read_json(RESULTS / "run.json")
    assert {file.stem for file in (clone / "figures").iterdir()} == {
        "scoreboard",
        "chain_by_length",
        "training",
    }
    assert (clone / "results" / "README.md").read_text() == "asked" and "ships now" in capsys.readouterr().out


@pytest.fixture
def board(clone, monkeypatch):
    """The rows of the scoreboard that is drawn, once there is something to draw from."""
    for name in ("run", "run_reader", "reflex_control"):
        shutil.copy(RESULTS / f"{name}.json", clone / "results")
    drawn, scoreboard = {}, scores.scoreboard
    monkeypatch.setattr(scores, "scoreboard", lambda rows: drawn.update(rows) or scoreboard(rows))
    return drawn


def test_the_scoreboard_shows_the_main_rows_of_both_agents_and_nothing_else(clone, board):
    publishing.draw_shipped()
    logs = [read_json(RESULTS / f"{name}.json")["scoreboard"] for name in ("run", "run_reader")]
    assert board == {name: row for rows in logs for name, row in rows.items() if row["main"]}
    assert "shop/buy" in board and "reader/desk/names" in board and not any("gap" in name for name in board)


def test_shipping_the_agent_that_reads_draws_it(clone, board, monkeypatch):
    monkeypatch.setattr(publishing, "ship_reader", lambda folder, before: None)
    publishing.publish_reader(finished(clone / "run", Plan.reader()))
    assert "reader/desk/names" in board and (clone / "figures" / "scoreboard.png").is_file()


def test_what_the_run_of_the_reader_took_is_claimed_beside_what_it_should_take():
    claims = publishing.cost_claims({"seeds": [0], "total_seconds": 25 * 60, "peak_bytes": 5_000_000_000})
    assert [(one["name"], one["value"], one["verdict"]) for one in claims] == [
        ("reader/minutes", 25, HOLDS),
        ("reader/memory", 5, FAILS),
    ]


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        (Plan.rehearsal(), "step_tokens"),
        (Plan(seed=1), "seed"),
        (Plan(preset="mini"), "preset"),
        (Plan().scaled(0.5), "drill.tokens"),
    ],
)
def test_another_run_is_not_shipped(clone, plan, named):
    with pytest.raises(KimiError, match=f"another {named}"):
        publish(finished(clone / "run", plan))
    assert not (clone / "checkpoints").exists() and not (clone / "figures").exists()


@pytest.mark.parametrize("missing", ["run.json", "plan.json", "checkpoints/tuned", None])
def test_a_run_without_its_end_is_not_shipped(clone, missing):
    folder = finished(clone / "run") if missing else clone / "nowhere"
    gone = folder / (missing or "")
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
    with pytest.raises(KimiError, match="no finished run in"):
        publish(folder)
    assert not (clone / "checkpoints").exists() and (missing or not folder.exists())


def test_the_plan_of_a_run_that_is_shipped_is_left_as_it_was(clone):
    folder = finished(clone / "run")
    before = json.loads((folder / "plan.json").read_text())
    publish(folder)
    assert json.loads((folder / "plan.json").read_text()) == before


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
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": "Start with 82, h *2, i -4, end. Two digits, modulo 100?"},
            ],
            add_generation_prompt=True,
        )[0]
        written = generate(model, torch.tensor([prompt]), 80)[0, len(prompt) :].tolist()
        assert written[-1] == ends[0] and chat.parse_ids(tokenizer, written)["content"] == "60"


def test_rates_stay_between_zero_and_one():
    for name, row in read_json(RESULTS / "run.json")["scoreboard"].items():
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1, name
