"""The plan holds every number that decides a run's numbers: whatever is changed in it is refused, whatever the stages
use is in it, and what is in it they use."""

import ast
import copy
import dataclasses
import importlib
import re
from dataclasses import asdict, fields, is_dataclass, replace

import pytest
import torch
from tiny import tiny_model

from kimi_mini import __main__ as command_line
from kimi_mini.base import paths, processes
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import flat
from kimi_mini.evaluation import scoreboard
from kimi_mini.model.compact import int4
from kimi_mini.pipeline import Plan, Run, go_on, plan, reinforce, shared, stages
from kimi_mini.pipeline.plan import Drill, Finetune, Optimizer, Schedule, Text
from kimi_mini.pipeline.text import symbols_in_use
from kimi_mini.training.machine.placement import choose_device
from kimi_mini.training.rl import rounds as rl
from kimi_mini.worlds import FAMILIES

FOLDER = paths.ROOT / "kimi_mini" / "pipeline"
WORK = [file.stem for file in FOLDER.glob("*.py") if file.stem not in ("__init__", "plan", "options")]
STAGES = ("text", "synthesise", "finetune", "reinforce", "evaluate")  # files that hold nothing but stages


def leaves(part, prefix=""):
    """Dotted names of all numbers and words of a plan."""
    for entry in fields(part):
        value = getattr(part, entry.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}"


def changed(part, dotted):
    """The plan with another value in one place."""
    name, _, rest = dotted.partition(".")
    value = getattr(part, name)
    if rest:
        return replace(part, **{name: changed(value, rest)})
    others = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 0.125, str: lambda v: v + "x"}
    others |= {tuple: lambda v: v[:-1], type(None): lambda v: 1}
    checked = {
        "objective": "grpo",
        "clip": (0.1, 0.1),
        "tasks": (("buy", 1),),
        "hide": "results",
        "loops": 4,
    }  # which take no value but a right one
    return replace(part, **{name: checked.get(name) or others[type(value)](value)})


@pytest.mark.parametrize("name", leaves(Plan()))
def test_whatever_is_changed_in_a_plan_is_refused_by_name(tmp_path, name):
    other = changed(Plan(), name)
    assert other != Plan()
    Run(tmp_path, Plan()).begin()
    Run(tmp_path, Plan()).begin()  # the same goes on
    before = (tmp_path / "plan.json").read_text()
    with pytest.raises(KimiError, match=f"a run with another {re.escape(name)}: use --folder"):
        Run(tmp_path, other).begin()
    assert (tmp_path / "plan.json").read_text() == before


def test_a_run_that_goes_on_with_another_rate_is_refused(tmp_path):
    folder, faster = tmp_path / "run", replace(Plan.rehearsal(), optimizer=Optimizer(lr=0.1))
    begun = Run(folder, Plan.rehearsal())
    begun.begin(**stages.tables(begun))
    with pytest.raises(KimiError, match="another optimizer.lr"):
        go_on(Run(folder, faster))
    assert sorted(file.name for file in folder.iterdir()) == [".lock", "plan.json"]


@pytest.mark.parametrize(
    ("table", "entry", "named"),
    [
        ("sources", {"share": 0.5}, "sources.chain/think.share"),
        ("rows", {"limits": {"turns": 3}}, "rows.shop/buy.limits.turns"),
    ],
)
def test_what_the_worlds_say_is_part_of_the_plan(tmp_path, table, entry, named):
    """Shares of the sources, rows and their limits: written when there is work, and compared."""
    now = stages.tables(Run())
    Run(tmp_path).begin(**now)
    Run(tmp_path).begin(**now)
    row = {"sources": "chain/think", "rows": "shop/buy"}[table]
    other = {**now[table], row: {**now[table][row], **entry}}
    other[row] = {
        **now[table][row],
        **{k: {**now[table][row][k], **v} if isinstance(v, dict) else v for k, v in entry.items()},
    }
    with pytest.raises(KimiError, match=f"another {named}:"):
        Run(tmp_path).begin(**{**now, table: other})
    with pytest.raises(KimiError, match=f"another {table}.{row}"):
        Run(tmp_path).begin(
            **{**now, table: {name: value for name, value in now[table].items() if name != row}}
        )
    Run(tmp_path).begin()  # a run that is done need not ask the worlds


def is_number(value):
    if isinstance(value, (tuple, list, set)):
        return any(map(is_number, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def numbers_of(module):
    """Global names of a module that hold numbers, its own and imported ones."""
    return [name for name, value in vars(module).items() if not name.startswith("__") and is_number(value)]


@pytest.mark.parametrize("name", WORK)
def test_no_stage_has_a_number_of_its_own(name):
    assert numbers_of(importlib.import_module(f"kimi_mini.pipeline.{name}")) == []


def large(source):
    """Literals that decide something: no index, no name of a random stream, no format."""
    found = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return [value for value in found if type(value) is float or (type(value) is int and abs(value) > 9)]


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_writes_a_number_where_it_works(name):
    assert large((FOLDER / f"{name}.py").read_text()) == []


def test_the_checks_for_numbers_can_fail():
    module = type(plan)("stage")
    module.STEP_TOKENS, module.SHARES, module.name = 4096, (0.5, 0.5), "text"
    assert numbers_of(module) == ["STEP_TOKENS", "SHARES"]
    assert large("wsd(step, steps, 4, decay_start=int(0.35 * steps)); tokens = 128") == [128, 0.35]


def test_every_number_of_the_plan_is_used():
    """A field that no stage reads would be refused for nothing, and the number that counts would stand elsewhere."""
    text = "".join((FOLDER / f"{name}.py").read_text() for name in WORK)
    whole = (
        "optimizer",
        "rl",
    )  # handed on as they are: MuonClip and RLConfig refuse a name that they do not know
    names = [name for name in leaves(Plan()) if name.split(".")[0] not in whole and "schedule" not in name]
    assert [name for name in names if not re.search(rf"\.{name.split('.')[-1]}\b", text)] == []
    assert text.count(".schedule") == 3


def test_every_number_of_rl_is_used():
    folder = FOLDER.parent / "training" / "rl"
    text = "".join(
        (folder / f"{name}.py").read_text()
        for name in ("rounds", "objective", "rewards", "curriculum", "budget", "partial")
    )
    text += (FOLDER / "reinforce.py").read_text()
    assert [name for name in vars(Plan().rl) if not re.search(rf"config\.{name}\b", text)] == []


def test_a_rehearsal_is_a_plan_of_the_same_shape():
    shapes = [flat(asdict(plan)).keys() for plan in (Plan.rehearsal(), Plan.reader(), Plan())]
    assert shapes[0] == shapes[1] == shapes[2]
    assert Plan.rehearsal(seed=3).seed == 3 and Plan.rehearsal() != Plan()


@pytest.mark.parametrize(
    ("scale", "tokens"), [(1.0, 1_300_000), (0.1, 130_000), (1e-9, 8192), (2.0, 2_600_000)]
)
def test_budgets_scale_down_to_a_few_steps(scale, tokens):
    scaled = Plan().scaled(scale)
    assert scaled.pretrain.tokens == tokens and scaled.rl.rounds >= 2
    assert 8 <= scaled.evaluation.tasks <= 200  # more tasks than there are would be no better
    few = Plan.rehearsal().evaluation.tasks
    assert Plan.rehearsal().scaled(scale).evaluation.tasks == few < 8


@pytest.fixture
def started(monkeypatch):
    """How many processes were started, on a machine that has eight to spare."""
    counts = []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(processes, "default_count", lambda: 8)
    monkeypatch.setattr(processes, "start", lambda command, count, threads: counts.append(count))
    return counts


@pytest.mark.parametrize(("words", "count"), [([], 8), (["--rehearsal"], 4), (["--processes", "16"], 16)])
def test_a_run_starts_no_process_without_a_window_of_its_own(started, tmp_path, words, count):
    command_line.main(["run", "--folder", str(tmp_path), *words])
    assert started == [count]


@pytest.mark.parametrize("launcher", ["--processes", "torchrun"])
def test_more_processes_than_windows_are_refused_before_anything_is_written(
    started, tmp_path, capsys, monkeypatch, launcher
):
    words = ["run", "--rehearsal", "--folder", str(tmp_path / "run")]
    if launcher == "torchrun":
        monkeypatch.setenv("WORLD_SIZE", "5")
    else:
        words += ["--processes", "5"]
    assert command_line.main(words) == 2 and not started and not list(tmp_path.iterdir())
    assert "4 windows cannot be shared by 5 processes: take --processes 4" in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"preset": "na', "[]", "null"])
def test_a_damaged_plan_is_one_line(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(KimiError, match="plan.json"):
        Run(tmp_path).begin()


def test_schedules_are_those_of_the_published_run():
    """Factors at some steps of the real number of steps, written down."""
    steps = 317
    rate = Plan().pretrain.schedule.over(steps)
    assert [round(rate(step), 4) for step in (0, 19, 222, 223, 316)] == [0.05, 1.0, 1.0, 0.9916, 0.2084]
    rate = Finetune().schedule.over(1000)
    assert [round(rate(step), 4) for step in (0, 350, 351, 999)] == [0.05, 1.0, 0.9985, 0.0015]
    assert Schedule().over(8)(0) == 0.5 and Schedule().over(292)(291) == 1.0


def test_the_plan_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Plan().text.window = 3
    assert Text().window == 256


def test_the_alphabet_of_the_drills_is_held_grows_and_is_whole():
    settings, sizes = Drill(whole=True), []
    for step in range(100):
        sizes.append(symbols_in_use(settings, step, 100, 1000))
    assert sizes[:30] == [128] * 30 and sizes[60:] == [1000] * 40
    assert all(128 < size < 1000 for size in sizes[31:60]) and sizes == sorted(sizes)
    assert symbols_in_use(Drill(), 0, 100, 126) == 126


def test_rl_takes_all_trained_worlds_of_a_plain_run_in_one_stage():
    """One family, or levels that the scoreboard measures beyond training, would be another stage."""
    for made in (Plan(), Plan.rehearsal()):
        assert {FAMILIES[family].world for family, _ in made.rl.tasks} == {"chain", "shop", "repair"}
        assert made.rl.prioritised
    measured = {
        (row.family, level) for row in scoreboard.ROWS for level in row.levels if "beyond" in row.name
    }
    assert measured and not measured & set(Plan().rl.tasks)


def test_a_run_that_leaves_its_device_open_goes_on_from_its_checkpoints(tmp_path):
    run = Run(tmp_path, Plan(device="auto"))
    shared.save_checkpoint(run, tiny_model(vocab_size=1024), "drilled")
    assert shared.load_checkpoint(run, "drilled").lm_head.weight.device == choose_device("auto")


@pytest.mark.parametrize("rounded", [False, True])
def test_an_agent_that_learned_in_int4_is_saved_as_int4_keeps_it(tmp_path, monkeypatch, rounded):
    """What it computed with is what is measured and shipped, and not the weights behind it."""
    model, saved = tiny_model(), []
    fields = {"reward": 0.0, "success": 0.5, "tokens": 8.0, "successes": [0.5]}
    one = rl.Round(**fields, moderate=0.5, temperature=1.0)
    monkeypatch.setattr(reinforce, "load_checkpoint", lambda run, name: model)
    monkeypatch.setattr(reinforce, "training_pools", lambda run: {})
    monkeypatch.setattr(reinforce, "save_checkpoint", lambda run, model, name: saved.append(model))
    monkeypatch.setattr(reinforce.rl, "reinforce", lambda *rest, **more: rest[7](0, one))
    expected = copy.deepcopy(model)
    if rounded:
        int4.round_experts(expected)
    reinforce.reinforce(Run(tmp_path, Plan(rl=plan.joint(int4=rounded))))
    assert all(map(torch.equal, saved[0].state_dict().values(), expected.state_dict().values()))
