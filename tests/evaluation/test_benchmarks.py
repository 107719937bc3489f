"""The mini benchmarks: files that can be made again, verifiers that hold on them, and scores that count right."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from engines import served

from kimi_mini import __main__ as command
from kimi_mini.agent import loop
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import read_json
from kimi_mini.base.intervals import wilson
from kimi_mini.evaluation import by_endpoint, scoreboard
from kimi_mini.evaluation.adversary import perform
from kimi_mini.evaluation.benchmarks import BENCHMARKS, Item, audit, datasheet, make, store, suite
from kimi_mini.evaluation.benchmarks.store import FOLDER, items
from kimi_mini.evaluation.error_rates import shortcut
from kimi_mini.worlds import Kind
from kimi_mini.worlds.base import turn

EVERY = pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda one: one.name)
SECTIONS = ("was made", "hard it is", "is judged", "training has seen", "cannot tell")


# ---- the files -----------------------------------------------------------------------------------------------


@EVERY
def test_the_file_is_what_its_seed_makes_and_what_its_checksum_says(benchmark):
    make.check(benchmark)


def test_another_seed_and_a_changed_task_are_noticed(tmp_path, monkeypatch):
    benchmark = BENCHMARKS["mini_telecom"]
    text = store.text_of(make.made(benchmark))
    (tmp_path / make.CHECKSUMS).write_text(f'{{"mini_telecom": "{store.checksum(text)}"}}')
    store.write(tmp_path / benchmark.name, text)
    make.check(benchmark, tmp_path)
    store.write(tmp_path / benchmark.name, text.replace("Refund at most 2", "Refund at most 3", 1))
    with pytest.raises(KimiError, match="the file is not what"):
        make.check(benchmark, tmp_path)
    store.write(tmp_path / benchmark.name, text)
    monkeypatch.setattr(make.made, "__defaults__", (8,))
    with pytest.raises(KimiError, match="what the seed makes is not what"):
        make.check(benchmark, tmp_path)


@EVERY
def test_tasks_are_held_out_and_different_and_as_many_as_the_table_says(benchmark):
    found = items(benchmark)
    assert Counter(item.part for item in found) == {part.name: part.count for part in benchmark.parts}
    assert len({item.task.key for item in found}) == len(found)
    assert all(item.task.held_out for item in found)
    for part in benchmark.parts:
        own = [item for item in found if item.part == part.name]
        assert {item.task.family for item in own} == set(part.families)
        assert {item.limits for item in own} == {part.limits}


@EVERY
def test_a_datasheet_says_what_it_must(benchmark):
    page = (FOLDER / benchmark.name / "DATASHEET.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")].__len__() == len(SECTIONS)
    assert all(section in page for section in SECTIONS) and benchmark.blind in page and "licence: MIT" in page
    checksum = read_json(FOLDER / make.CHECKSUMS)[benchmark.name]
    assert checksum in page and page == datasheet.text(benchmark, items(benchmark), checksum, FOLDER)
    assert f"benchmarks.make {benchmark.name}`" in page
    assert store.file_of(FOLDER / benchmark.name).stat().st_size < 2_100_000


def test_a_task_is_the_same_behind_its_line():
    item = items(BENCHMARKS["mini_tools"], 1)[0]
    assert Item.of(item.line()) == item and Item.of(item.line()).line() == item.line()


def test_many_tasks_are_packed_and_read_alike(tmp_path, monkeypatch):
    store.write(tmp_path, "a\n")
    monkeypatch.setattr(store, "MOST", 1)
    store.write(tmp_path, "a\nb\n")
    assert store.file_of(tmp_path).name == store.PACKED and store.read(tmp_path) == "a\nb\n"
    assert [file.name for file in tmp_path.iterdir()] == [store.PACKED]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (store.PACKED, b"no gzip"),
        (store.FILE, b"{}\n"),
        (store.FILE, b"x\n"),
        (store.FILE, b"\xff"),
        (None, b""),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_one_line(tmp_path, name, content):
    (tmp_path / "mini_swe").mkdir()
    if name:
        (tmp_path / "mini_swe" / name).write_bytes(content)
    with pytest.raises(KimiError):
        items(BENCHMARKS["mini_swe"], folder=tmp_path)


# ---- their verifiers -----------------------------------------------------------------------------------------


def few(benchmark, each=24):
    """Some tasks of every part."""
    return items(benchmark, 2 if benchmark.name == "long_horizon" else each)


def shares(found, tasks):
    """Of each kind of player, the share of its games that was judged wrongly."""
    games = Counter(kind.name for item in tasks for kind in audit.players(item))
    return {kind: count / games[kind] for kind, count in Counter(one.kind for one in found).items()}


@EVERY
def test_right_players_are_accepted_and_wrong_ones_refused(benchmark):
    """One guess in a hundred is right; nothing else may come through."""
    tasks = few(benchmark)
    kinds = {(kind.name, kind.right) for item in tasks for kind in audit.players(item)}
    assert sum(right for _, right in kinds) >= 1 and sum(not right for _, right in kinds) >= 3
    wrongly = shares(audit.faults(tasks), tasks)
    assert all(share <= 0.1 and kind.startswith("guess") for kind, share in wrongly.items()), wrongly


@EVERY
def test_a_verifier_that_accepts_the_adversary_is_caught(benchmark):
    tasks = few(benchmark, 8)
    assert max(shares(audit.faults(tasks, lambda played: True), tasks).values()) == 1
    found = shares(audit.faults(tasks, shortcut("reads words")), tasks)
    assert max(found.values()) > 0.5, found


# ---- scores --------------------------------------------------------------------------------------------------


def no_use(task, rng):
    yield turn("", content="?")


NO_USE = Kind("says nothing of use", False, (), no_use)


def solver(right):
    """In place of a model: the expert where right(number), else somebody who says nothing of use."""

    def solve(model, tokenizer, tasks, limits, thinking=True, temperature=0.0, seed=0, numbers=None):
        done = []
        for number, task in zip(numbers, tasks, strict=True):
            rng = random.Random(task.key)
            played = loop.play(task, rng) if right(number) else perform(NO_USE, task, rng)
            played.written = 10 + number
            done.append(played)
        return done

    return solve


def test_a_board_counts_tasks_tokens_and_parts(monkeypatch):
    monkeypatch.setattr(scoreboard, "solve", solver(lambda number: number % 4))
    seen = []
    board = suite.measured(None, None, BENCHMARKS["mini_math"], 8, on_part=seen.append)
    names = [part.name for part in BENCHMARKS["mini_math"].parts]
    assert list(board) == ["mini_math", *(f"mini_math/{name}" for name in names)] and seen == names
    first = board[f"mini_math/{names[0]}"]
    assert (first["value"], first["n"], first["tokens"]) == (0.75, 8, 13.5)
    assert (first["low"], first["high"]) == wilson(6, 8)
    assert [one[1] for one in first["tasks"]] == [False, True, True, True] * 2
    whole = board["mini_math"]
    assert (whole["n"], whole["value"], whole["tokens"]) == (8 * len(names), 0.75, 13.5)
    assert suite.measured(None, None, BENCHMARKS["mini_math"], 4, only=[names[1]]).keys() == {
        f"mini_math/{names[1]}"
    }


def test_several_attempts_pay_for_all_of_them_and_one_is_judged(monkeypatch):
    asked = []

    def solve(model, tokenizer, tasks, limits, thinking=True, temperature=0.0, seed=0, numbers=None):
        asked.append((temperature, list(numbers)))
        return solver(lambda number: number % 2)(model, tokenizer, tasks, limits, numbers=numbers)

    monkeypatch.setattr(scoreboard, "solve", solve)
    way = suite.Way(attempts=2, choose=lambda group: group[1])
    board = suite.measured(None, None, BENCHMARKS["mini_swe"], 3, way, only=["one file"])
    (entry,) = board.values()
    assert (entry["value"], entry["tokens"]) == (1.0, (10 + 11 + 12 + 13 + 14 + 15) / 3)
    assert asked == [(scoreboard.SAMPLING_TEMPERATURE, list(range(6)))]
    first = suite.measured(None, None, BENCHMARKS["mini_swe"], 3, suite.Way(attempts=2), only=["one file"])
    assert next(iter(first.values()))["value"] == 0.0


# ---- the command ---------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch, tmp_path):
    monkeypatch.setattr(by_endpoint, "RUNS", tmp_path / "run")
    return tmp_path / "run"


def words(url, *more):
    return ["eval", "--endpoint", url, "--model", "m", "--suite", "mini_swe", "--tasks", "6", *more]


def test_an_endpoint_sits_the_suite_and_goes_on_where_it_was_stopped(runs, tmp_path, capsys):
    tasks = [item.task for item in items(BENCHMARKS["mini_swe"], 6)]
    out = tmp_path / "board.json"
    with served(tasks, troubles=(None,) * 8 + (401,)) as (engine, url):
        assert command.main(words(url, "--parallel", "1")) == 2
        first = len(engine.requests)
        assert command.main(words(url, "--parallel", "1", "--out", str(out))) == 0
    assert first == 9 and "8 answers are kept" in capsys.readouterr().out
    board = read_json(out)
    entry = board["suite"]["mini_swe/one file"]
    assert (entry["value"], entry["n"]) == (1.0, 6) and entry["tokens"] > 7 and board["thinking"] is True
    assert not list(runs.rglob("*.jsonl"))


def test_a_seed_reaches_an_endpoint_that_samples(runs):
    tasks = [item.task for item in items(BENCHMARKS["mini_swe"], 6)]
    sent = []
    for seed in ("0", "7"):
        with served(tasks) as (engine, url):
            assert command.main(words(url, "--temperature", "1", "--seed", seed)) == 0
        sent.append({one["seed"] for one in engine.requests})
    assert sent[0] and sent[0].isdisjoint(sent[1])


def test_a_board_in_reflex_has_a_name_of_its_own_and_says_how_it_was_asked_for(runs):
    tasks = [item.task for item in items(BENCHMARKS["mini_swe"], 6)]
    with served(tasks) as (_, url):
        assert command.main(words(url)) == 0
        assert command.main(words(url, "--reflex", "--temperature", "0.5", "--max-tokens", "99")) == 0
    boards = {file.name: read_json(file) for file in runs.rglob("*.json")}
    assert {
        name: (one["thinking"], one["temperature"], one["max_tokens"]) for name, one in boards.items()
    } == {"board.json": (True, None, None), "board_reflex.json": (False, 0.5, 99)}


def test_the_same_on_this_machine(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suite, "load_agent", lambda folder: (None, None))
    monkeypatch.setattr(scoreboard, "solve", solver(lambda number: number))
    out = tmp_path / "board.json"
    asked = ["eval", "--processes", "1", "--checkpoint", "x", "--suite", "mini_swe", "mini_telecom"]
    assert command.main([*asked, "--tasks", "4", "--out", str(out)]) == 0
    board = read_json(out)["suite"]
    assert board["mini_telecom/whole calls"]["value"] == 0.75 == board["mini_swe/one file"]["value"]
    said = capsys.readouterr().out
    assert "mini_swe/one file" in said and "2 benchmarks in" in said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--reflex"], "--reflex is of the suite"),
        (["--suite", "all", "--rows", "shop"], "in place of the rows"),
        (["--endpoint", "http://x/v1", "--checkpoint", "x"], "two models"),
        (["--temperature", "0"], "--temperature is of an endpoint"),
        (["--key-file", "x"], "--key-file is of an endpoint"),
        (["--rows", "nothing"], "there are chain/thinking"),
    ],
)
def test_an_option_that_would_be_passed_over_is_one_line(capsys, more, says):
    assert command.main(["eval", "--processes", "1", *more]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_name_that_is_none_is_one_line(capsys):
    assert command.main(["eval", "--processes", "1", "--checkpoint", "x", "--suite", "swe_bench"]) == 2
    said = capsys.readouterr().err
    assert "there are mini_swe" in said and said.count("\n") == 1


def test_limits_of_a_part_hold_for_a_model(monkeypatch):
    """The suite works within the limits of the files, not those of the scoreboard."""
    seen = []
    monkeypatch.setattr(
        scoreboard.loop, "run", lambda policy, tokenizer, tasks, limits, thinking: seen.append(limits) or []
    )
    monkeypatch.setattr(scoreboard, "LocalPolicy", lambda *_, **__: None)
    found = items(BENCHMARKS["long_horizon"], 1)[:1]
    suite.attempted(None, None, [(0, replace(found[0]))])
    assert seen == [BENCHMARKS["long_horizon"].parts[0].limits] and seen[0].manage
