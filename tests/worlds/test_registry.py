"""A world is one file and one line: a toy world is found everywhere, and one that leaves something out is refused."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kimi_mini import evaluation, worlds
from kimi_mini.base.errors import KimiError
from kimi_mini.evaluation import scoreboard
from kimi_mini.worlds import FAMILIES, WORLDS, Family, Row, World, chain, registry
from kimi_mini.worlds.registry import held_out_tasks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

TOY = '''"""World `echo`: say the words again."""

from kimi_mini.worlds.base import Environment, Kinds, Task, Verdict, final_answer, turn
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.rows import Row

WORDS = "fig pear plum lime kiwi nut bean corn rice salt oil tea".split()
KINDS = Kinds("echo")


def generate(rng, family, level):
    """Some words."""
    words = rng.sample(WORDS, level)
    return Task("echo", family, level, f"Echo {' '.join(words)}.", {"words": words})


def open_environment(task):
    """No tools."""
    return Environment()


def expert(task, rng, mistake=None):
    """Says them; with a mistake one is left out."""
    words = task.data["words"][1:] if mistake else task.data["words"]
    yield turn(" ".join(words), content=" ".join(words))


def verify(task, messages, environment):
    """All of them, in order."""
    return Verdict(final_answer(messages) == " ".join(task.data["words"]), "heard")


@KINDS.wrong("says them backwards")
def _backwards(task, rng):
    yield turn("", content=" ".join(reversed(task.data["words"])))


register(
    World(
        "echo", generate, open_environment, expert, verify,
        {"echo": Family(range(2, 5), {"think": 0.03, "reflex": 0.01})},
        (Row("echo/echo", "echo", floor=0.9, says="say it again"),),
        KINDS,
        colour="#123456",
        words=[f" {word}" for word in WORDS] + ["zyx"],
        recital=lambda rng: "echo " + " ".join(rng.sample(WORDS, 3)),
        shortcuts={"reads words": lambda task, messages, environment: True},
        demo=Demo(lambda words: Task("echo", "echo", 1, words) if words.startswith("Echo") else None,
                  examples=["Echo fig."], place="a cave", left=lambda task, environment: "nothing left"),
    )
)
'''

LOOK = """
import json, random
from matplotlib.colors import to_hex
from kimi_mini.agent import loop, terminal
from kimi_mini.course.figures import scores
from kimi_mini.evaluation import error_rates, scoreboard
from kimi_mini.experiments.pretraining import vocabulary
from kimi_mini.experiments.rl import gap
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import synthesis

tokenizer, found = Tokenizer.load(), {}
sources = [source for source in synthesis.SOURCES if source.family == "echo"]
found["sources"] = [[source.mode, source.share, source.levels] for source in sources]
made = [item for source in sources for item in synthesis.synthesise(tokenizer, source, 30, 0, mistakes=0.5)]
found["kept"], found["made"] = len(synthesis.passed_only(made)), len(made)
found["drill"] = set(tokenizer.encode_plain("zyx")) <= set(synthesis.drill_alphabet(tokenizer).tolist())

rates = error_rates.error_rates("echo", 30)
found["kinds"] = sorted(kind.name for kind in rates)
found["audit"] = [error_rates.false_accepts(rates).errors, error_rates.false_rejects(rates).errors]
rates = error_rates.error_rates("echo", 30, error_rates.VERIFIERS["reads words"])
found["fooled"] = error_rates.false_accepts(rates).value

scoreboard.solve = lambda model, tokenizer, tasks, *rest, **more: [loop.play(t, random.Random(0)) for t in tasks]
row = next(row for row in scoreboard.ROWS if row.family == "echo")
entry = scoreboard.measure(None, None, row, 20)
found["row"] = [row.name, *(entry[key] for key in ("value", "n", "main", "floor", "says"))]
[ax] = scores.scoreboard({row.name: entry}).axes
found["colour"] = [to_hex(patch.get_facecolor()) for patch in ax.patches]
found["others"] = "echo" in gap.OTHERS

talk = terminal.Talk(None, None)
talk.draw_tasks()
talk.help()
talk.handle("/echo")
found["listed"] = [task.prompt for task in talk.tasks if task.world == "echo"]
found["own"] = [terminal.own_task(words).task.world for words in ("Echo fig nut.", "Buy f 2.", "hello")]
vocabulary.CONVERSATIONS = 1
found["texts"] = sum("Echo" in text or text.startswith("echo ") for text in vocabulary.world_texts())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[dict, str]:
    """What the package says once it has a file and a line more; and what the terminal showed."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "kimi_mini", folder / "kimi_mini", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "kimi_mini" / "worlds" / "echo.py").write_text(TOY)
    with (folder / "kimi_mini" / "worlds" / "__init__.py").open("a") as door:
        door.write("from kimi_mini.worlds import echo\n")
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", LOOK]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    shown, _, last = ran.stdout.rstrip().rpartition("\n")
    return json.loads(last), shown


def test_synthesis_makes_its_trajectories_and_the_drill_its_words(seen):
    found, _ = seen
    plain = [family for family in FAMILIES.values() if not WORLDS[family.world].varied]
    total = 0.04 + sum(sum(family.shares.values()) for family in plain)
    modes, shares, levels = zip(*found["sources"])
    assert (modes, levels) == (("think", "reflex"), ([2, 3, 4], [2, 3, 4]))
    assert shares == pytest.approx((0.03 / total, 0.01 / total))
    assert found["made"] == 60 and 20 < found["kept"] < 40 and found["drill"] and found["texts"] == 4


def test_the_audit_tries_its_verifier_on_its_expert_and_on_its_own_players(seen):
    found, _ = seen
    assert set(found["kinds"]) == {registry.SLIP, "as the expert does it", "says them backwards"}
    assert found["audit"] == [0, 0] and found["fooled"] == 1.0


def test_the_scoreboard_measures_its_row_and_the_figure_shows_it_in_its_colour(seen):
    found, _ = seen
    assert found["row"] == ["echo/echo", 1.0, 20, True, 0.9, "say it again"]
    assert found["colour"] == ["#123456"] and found["others"]


def test_chat_lists_its_tasks_and_takes_its_words(seen):
    found, shown = seen
    [prompt] = found["listed"]
    assert prompt.startswith("Echo ") and f"echo   {prompt}" in shown
    assert "Echo fig." in shown and "a cave" in shown
    assert found["own"] == ["echo", "shop", "chain"]


# ---- worlds that leave something out ----------------------------------------------------------------------------


def toy(**changes) -> World:
    """A world of the functions of another one, and a family of its own."""
    plain = chain.world
    functions = (plain.generate, plain.open_environment, plain.expert, plain.verify)
    parts = {"families": {"toy": Family(range(1, 3), {"think": 0.1})}, "rows": (Row("toy/toy", "toy"),)}
    return World("toy", *functions, **parts | changes)


def test_a_world_that_is_whole_is_accepted():
    world = toy()
    assert world.rows[0].levels == (1, 2) and world.families["toy"].world == "toy"
    assert [kind.name for kind in world.kinds] == ["as the expert does it", registry.SLIP]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": ()}, "no main row of the scoreboard for toy"),
        ({"rows": (Row("toy/toy", "toy", main=False),)}, "no main row of the scoreboard for toy"),
        (
            {"rows": (Row("toy/toy", "toy"), Row("toy/more", "buy"))},
            "row toy/more of family buy is not its own",
        ),
        ({"rows": (Row("shop/toy", "toy"),)}, "row shop/toy of family toy is not its own"),
    ],
)
def test_a_world_whose_row_is_missing_or_another_worlds_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        toy(**changes)


@pytest.mark.parametrize("mode", ["window", "sheet", "sleep"])
def test_a_share_of_what_a_family_cannot_do_is_refused(mode):
    with pytest.raises(ValueError, match=f"mode {mode}"):
        Family(range(1, 3), {"think": 0.1, mode: 0.1})


def test_names_that_are_taken_are_refused_and_change_nothing():
    before = dict(WORLDS), dict(FAMILIES)
    for world in (replace(toy(), name="shop", rows=(Row("shop/toy", "toy"),)), toy_with_family("buy")):
        with pytest.raises(ValueError, match="stands for something else already"):
            registry.register(world)
    assert (WORLDS, FAMILIES) == before


def toy_with_family(name):
    return toy(families={name: Family(range(1, 3), {})}, rows=(Row("toy/toy", name),))


# ---- what is there -----------------------------------------------------------------------------------------------


def test_families_know_their_world_and_rows_their_levels():
    names = ["chain", "algebra", "shop", "repair", "project", "write", "desk", "data", "notes", "telecom"]
    assert list(WORLDS) == [*names, "search"]
    for world in WORLDS.values():
        for name, family in world.families.items():
            assert FAMILIES[name] is family and (family.name, family.world) == (name, world.name)
    assert all(row.levels and row.says for row in scoreboard.ROWS)
    assert all(
        part.floor is None and not part.main for row in scoreboard.ROWS if row.by_level for part in row.parts
    )


@pytest.mark.parametrize(("held_out", "says"), [(True, "none is held out"), (False, "all are held out")])
def test_a_family_without_tasks_on_one_side_ends_in_one_line(monkeypatch, held_out, says):
    """Wrong: draw for ever."""
    task, drawn = next(iter(held_out_tasks("add", [2], 1, 0))), []
    task = task if not held_out else registry.generate(random.Random(0), "add", 2)

    def the_same(rng, family, level):
        drawn.append(level)
        assert len(drawn) < 10_000
        return task

    monkeypatch.setattr(WORLDS["chain"], "generate", the_same)
    with pytest.raises(KimiError, match=f"add at level 2 were drawn, and {says}"):
        worlds.generate(random.Random(0), "add", 2, held_out)


@pytest.mark.parametrize("door", [worlds, evaluation])
def test_a_door_has_at_most_twelve_names(door):
    assert 1 <= len(door.__all__) <= 12 and all(hasattr(door, name) for name in door.__all__)
