"""Synthesis: what failed is not kept, long levels do not vanish, windows hide what they say, nothing leaks."""

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation
from kimi_mini.pipeline.plan import Plan
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.batch import collate
from kimi_mini.training.synthesis import SOURCES, VARIED, Source, mixture, passed_only, synthesise, trajectory
from kimi_mini.worlds import FAMILIES, registry
from kimi_mini.worlds.base import Verdict
from kimi_mini.worlds.registry import world_of


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


def pool(tokenizer, family, mode="think", levels=(2,), count=40, seed=0, mistakes=0.15):
    return list(synthesise(tokenizer, Source(family, mode, 1.0, tuple(levels)), count, seed, mistakes))


def learned_text(tokenizer, item):
    return tokenizer.decode(item.example.ids[item.example.mask])


def same(first, second):
    """Equal in every field and every token."""
    return (
        first[1:] == second[1:]
        and np.array_equal(first.example.ids, second.example.ids)
        and np.array_equal(first.example.mask, second.example.mask)
    )


# ---- verify and filter ----------------------------------------------------------------------------------------


def sums_are_right(tokenizer, items):
    """The answers of `add` trajectories, read from their tokens."""
    texts = [tokenizer.decode(item.example.ids) for item in items]
    found = [
        re.search(r"Add (\d+) and (\d+), end\..*</think>(\d+)<\|im_end\|>$", text, re.DOTALL)
        for text in texts
    ]
    return [int(match[1]) + int(match[2]) == int(match[3]) for match in found]


def test_only_what_passed_is_kept(tokenizer):
    """Mutant: keep everything. Judged by the tokens themselves, not by the verdict that stands beside them."""
    made = pool(tokenizer, "add", levels=(2, 3), count=120, mistakes=0.5)
    kept = passed_only(made)
    assert 30 < len(kept) < 90
    assert all(sums_are_right(tokenizer, kept))
    assert not all(sums_are_right(tokenizer, made))
    assert [item.passed for item in made] == sums_are_right(tokenizer, made)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_verdict_beside_a_trajectory_is_that_of_its_mistake(tokenizer, family):
    made = pool(tokenizer, family, levels=(2,), count=60, mistakes=0.5)
    assert all(item.passed for item in made if item.mistake is None)
    failed = [item for item in made if item.mistake]
    assert 15 < len(failed) < 45 and np.mean([item.passed for item in failed]) < 0.25


def test_as_many_mistakes_as_asked_for(tokenizer):
    made = pool(tokenizer, "buy", levels=(1,), count=400)
    mistakes = Counter(item.mistake for item in made)
    assert 0.10 < 1 - mistakes[None] / 400 < 0.20
    assert mistakes["slip"] > mistakes["lazy"] > 0
    assert {item.mistake for item in pool(tokenizer, "chain", count=60, mistakes=1.0)} == {"slip"}


# ---- quota ----------------------------------------------------------------------------------------------------


def levels_in_plan(plan):
    return Counter(level for step in plan for (_, level), _ in step)


def test_levels_take_turns_so_that_long_episodes_do_not_vanish(tokenizer):
    """An expert that errs more the longer it works: of its longest episodes few pass. The plan gives every level its
    turn all the same. Mutant: draw from whatever passed."""
    source = Source("follow", "think", 1.0, (1, 2, 3, 4, 5))
    made = []
    for index in range(200):
        level = source.levels[index % 5]
        name = f"long/{index}"
        made.append(trajectory(tokenizer, name, "follow", level, "think", mistakes=1 - 0.55 ** (level - 1)))
    kept = passed_only(made)
    assert Counter(item.level for item in made) == dict.fromkeys(source.levels, 40)

    plan = sft.make_plan(sft.pools_of({source: kept}), 200_000, 2000, seed=0, ramp=(0.0, 1e-9))
    with_quota = levels_in_plan(plan)
    assert min(with_quota.values()) > 0.7 * max(with_quota.values())
    without = Counter(random.Random(0).choices([item.level for item in kept], k=with_quota.total()))
    assert without[5] < 0.5 * without[1], "the mutant would have been noticed"


@pytest.mark.parametrize("source", [*SOURCES, *VARIED], ids=lambda s: f"{s.family}-{s.mode}")
def test_every_level_of_every_source_gets_a_pool(tokenizer, source):
    """Even at the smallest scale."""
    count = synthesis.wanted(source, 8192)
    kept = passed_only(list(synthesise(tokenizer, source, count, seed=0)))
    levels = Counter(item.level for item in kept)
    assert set(levels) == set(source.levels) and min(levels.values()) >= 4


def test_shares_add_up_and_every_family_is_taught():
    """But for the probes, which measure what nobody is taught, and the worlds that wait for a run."""
    assert sum(source.share for source in SOURCES) == pytest.approx(1.0, abs=0.03)
    for sources, varied in ((SOURCES, False), (VARIED, True)):
        taught = {
            name for name, family in FAMILIES.items() if family.trained and world_of(name).varied is varied
        }
        assert {source.family for source in sources if source.mode == "think"} == taught
    assert {"desk"} == {world_of(source.family).name for source in VARIED}


def test_a_mixture_keeps_the_shares_within_each_kind():
    assert mixture(1.0) is SOURCES
    mixed = mixture(0.2)
    assert [replace(a, share=0) for a in mixed] == [replace(a, share=0) for a in (*SOURCES, *VARIED)]
    shares = [sum(source.share for source in part) for part in (mixed[: len(SOURCES)], mixed[len(SOURCES) :])]
    assert shares == pytest.approx([0.2, 0.8])
    assert mixed[0].share / mixed[1].share == pytest.approx(SOURCES[0].share / SOURCES[1].share)


def test_a_replay_has_its_share_and_an_even_one_as_much_of_each_family():
    plain, even = (synthesis.replay(0.35, one) for one in (False, True))
    assert sum(one.share for one in plain) == pytest.approx(0.35) == sum(one.share for one in even)
    assert [one.share for one in plain] == [one.share * 0.35 for one in synthesis.SOURCES]
    each = {
        name: sum(one.share for one in even if one.family == name) for name in {one.family for one in even}
    }
    assert len(each) >= 8 and list(each.values()) == pytest.approx([0.35 / len(each)] * len(each))


def test_no_source_stands_twice():
    every = [(source.family, source.mode) for source in (*SOURCES, *VARIED)]
    assert len(set(every)) == len(every)


# ---- what is learned ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_assistants_words_are_learned(tokenizer, family):
    for mode in ("think", "reflex"):
        for item in pool(tokenizer, family, mode, levels=(2,), count=6):
            text = learned_text(tokenizer, item)
            assert "Return of" not in text and "<|im_user|>" not in text and "<|im_system|>" not in text
            assert ("<think>" in text) == (mode == "think")
            assert item.example.ids.dtype == np.int32 and item.example.mask.dtype == bool
            assert item.example.mask[-1] and text.endswith("<|im_end|>")


def turns_of(tokenizer, item):
    """(text, was it learned?) of each assistant turn; half learned is an error."""
    ids, mask = item.example.ids.tolist(), item.example.mask
    opening, end = tokenizer.token_id("<|im_middle|>"), tokenizer.token_id("<|im_end|>")
    turns = []
    for place, token in enumerate(ids):
        if token == tokenizer.token_id("<|im_assistant|>"):
            first = ids.index(opening, place) + 1
            last = ids.index(end, first)
            learned = mask[first : last + 1]
            assert learned.all() or not learned.any()
            turns.append((tokenizer.decode(ids[first:last]), bool(learned.all())))
    return turns


def check_windows(tokenizer, items):
    for item in items:
        turns = turns_of(tokenizer, item)
        assert [learned for _, learned in turns] == [False] + [True] * (len(turns) - 1)
        assert len(turns) >= 3


def windows(tokenizer, family="follow", levels=(3, 4, 5, 6), count=40):
    return passed_only(pool(tokenizer, family, "window", levels, count))


@pytest.mark.parametrize(("family", "levels"), [("follow", (3, 4, 5, 6)), ("buy", (4, 5, 6))])
def test_the_first_turn_of_a_window_is_not_learned(tokenizer, family, levels):
    """What it followed from is hidden: learned, it would teach to make things up."""
    check_windows(tokenizer, windows(tokenizer, family, levels))


def test_a_window_that_teaches_its_first_turn_is_found_out(tokenizer):
    """Mutant: the mask of the chat format, as it comes."""

    def all_learned(item):
        ids = item.example.ids
        opening, end = tokenizer.token_id("<|im_assistant|>"), tokenizer.token_id("<|im_end|>")
        mask, own = np.zeros(len(ids), bool), 0
        for place, token in enumerate(ids):
            own = 3 if token == opening else own  # opening, "assistant", middle
            mask[place] = own == 1
            own = max(own - 1, 1) if own > 1 else own
            own = 0 if token == end else own
        return item._replace(example=item.example._replace(mask=mask))

    items = windows(tokenizer, count=8)
    with pytest.raises(AssertionError):
        check_windows(tokenizer, [all_learned(item) for item in items])


def test_a_window_is_what_is_left_when_old_turns_are_hidden(tokenizer):
    """The opening in full, then turns from some later one on, with call ids that go on counting."""
    for item in windows(tokenizer):
        text = tokenizer.decode(item.example.ids)
        asked = re.search(r'Follow next from "([^"]+)"', text)[1]
        calls = re.findall(r'functions\.next:(\d+)<\|tool_call_argument_begin\|>\{"item":"([^"]+)"\}', text)
        numbers = [int(number) for number, _ in calls]
        assert numbers == list(range(numbers[0], numbers[0] + len(calls))) and numbers[0] >= 1
        assert calls[0][1] != asked, "the first call is among those hidden"
        assert text.startswith("<|im_system|>tool_declare") and text.count("<|im_user|>") == 1
        assert text.count("Return of") == len(calls) < item.level


def test_windows_of_lazy_episodes_are_no_crash(tokenizer):
    """An expert who stops at once has a single turn."""
    made = pool(tokenizer, "buy", "window", (4, 5, 6), count=120, mistakes=1.0)
    lazy = [item for item in made if item.mistake == "lazy"]
    assert any(len(turns_of(tokenizer, item)) == 1 for item in lazy) and not any(item.passed for item in lazy)


@pytest.mark.parametrize("source", [s for s in SOURCES if s.mode == "sheet"], ids=lambda s: s.family)
def test_a_sheet_teaches_its_answers_alone(tokenizer, source):
    for item in synthesise(tokenizer, source, 5, seed=0):
        pieces = FAMILIES[source.family].sheet(random.Random(item.key))
        assert tokenizer.decode(item.example.ids) == "".join(text for text, _ in pieces)
        assert learned_text(tokenizer, item) == "".join(text for text, learned in pieces if learned)


# ---- the split ------------------------------------------------------------------------------------------------


def leaked(tokenizer, family="times", level=2):
    """Held-out tasks whose key stands in a pool of a small family."""
    keys = {item.key for item in pool(tokenizer, family, levels=(level,), count=600)}
    exam = {task.key for task in registry.held_out_tasks(family, [level], 25, seed=0)}
    assert len(keys) > 300
    return keys & exam


def test_no_task_of_the_exam_is_in_a_pool(tokenizer):
    assert not leaked(tokenizer)


def test_a_pool_that_ignores_the_split_is_found_out(tokenizer, monkeypatch):
    """Mutant: generate tasks without asking which side they are on."""
    exam = {task.key for task in registry.held_out_tasks("times", [2], 25, seed=0)}
    generate = lambda rng, family, level, held_out=False, breadth=1.0: world_of(family).generate(
        rng, family, level
    )
    monkeypatch.setattr(worlds, "generate", generate)
    monkeypatch.setattr(registry, "held_out_tasks", lambda *args, **kwargs: _keyed(exam))
    assert leaked(tokenizer)


def _keyed(keys):
    return [type("Task", (), {"key": key}) for key in keys]


@pytest.mark.parametrize("family", FAMILIES)
def test_pools_hold_training_tasks_and_the_exam_does_not(tokenizer, family):
    """The key beside a trajectory is that of the task it was made from, which is on the training side."""
    for index, item in enumerate(pool(tokenizer, family, count=20)):
        task = worlds.generate(random.Random(f"0/{family}/think/{index}"), family, 2)
        assert item.key == task.key and not task.held_out
        prompt, _ = chat.encode(tokenizer, [{"role": "user", "content": task.prompt}])
        inner = tokenizer.decode(prompt).partition("<|im_user|>")[2]
        assert inner in tokenizer.decode(item.example.ids)
    exam = registry.held_out_tasks(family, [2, 3] if family != "condition" else [1, 2], 16, seed=0)
    assert all(task.held_out for task in exam) and len({task.key for task in exam}) == 16


def dialogue(task) -> tuple[str, ...]:
    """All that a model gets to read of a task: tools, what is asked, and what the tools answer on the right way."""
    played = loop.play(task, random.Random(0), None, True, 0)
    played.environment.close()
    told = [message["content"] for message in played.messages if message["role"] != "assistant"]
    return json.dumps(played.tools), *told


def seen_in_training(family, levels) -> int:
    """How many of the scoreboard's tasks show the model a dialogue that the training stream of `make run` has shown."""
    stream = set()
    for source in SOURCES:
        if source.family == family and source.mode != "sheet":
            for index in range(synthesis.wanted(source, Plan().finetune.tokens)):
                if (level := source.levels[index % len(source.levels)]) in levels:
                    name = f"{Plan().seed}/{family}/{source.mode}/{index}"
                    stream.add(dialogue(worlds.generate(random.Random(name), family, level)))
    return sum(dialogue(task) in stream for task in registry.held_out_tasks(family, levels, 200, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_scoreboard_shows_the_model_nothing_that_training_has_shown(family):
    """Stronger than the split by key, which also counts what stays hidden in the database."""
    assert seen_in_training(family, registry.measured_levels(family)) == 0


def test_a_level_with_too_few_dialogues_is_found_out():
    """Chains of a single record: the split by key calls them new, the model has seen a third of them."""
    assert seen_in_training("follow", (1,)) > 20


def test_the_exam_is_the_same_for_everyone():
    first, again = (registry.held_out_tasks("buy", [1, 2, 3], 30, seed=0) for _ in range(2))
    assert [task.key for task in first] == [task.key for task in again]
    assert Counter(task.level for task in first) == {1: 10, 2: 10, 3: 10}
    assert first != registry.held_out_tasks("buy", [1, 2, 3], 30, seed=1)


# ---- once more ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES[::3], ids=lambda s: f"{s.family}-{s.mode}")
def test_a_seed_makes_the_same_trajectories(tokenizer, source):
    """And the i-th does not depend on how many there are."""
    few, many = list(synthesise(tokenizer, source, 6, seed=1)), list(synthesise(tokenizer, source, 9, seed=1))
    assert all(map(same, few, many))
    assert not any(map(same, few, synthesise(tokenizer, source, 6, seed=2)))


def test_saved_and_loaded(tokenizer, tmp_path):
    sources = [SOURCES[0], SOURCES[-1], next(s for s in SOURCES if s.mode == "window")]
    made = {source: list(synthesise(tokenizer, source, 12, seed=0, mistakes=0.4)) for source in sources}
    synthesis.save(tmp_path / "new" / "trajectories.npz", made)
    back = synthesis.load(tmp_path / "new" / "trajectories.npz")
    assert list(back) == sources
    for source in sources:
        assert len(back[source]) == 12 and all(map(same, back[source], made[source]))
        assert back[source][0].example.ids.dtype == np.int32 and back[source][0].example.mask.dtype == bool
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["trajectories.npz"]


def test_ids_of_a_large_vocabulary_stay_what_they_are(tokenizer, tmp_path, monkeypatch):
    """K2 has 163,840 tokens; two bytes wrap at 65,536."""
    encode, encode_plain = chat.encode, tokenizer.encode_plain
    far = lambda ids: [token + 150_000 for token in ids]
    monkeypatch.setattr(chat, "encode", lambda *words: (far(encode(*words)[0]), encode(*words)[1]))
    monkeypatch.setattr(tokenizer, "encode_plain", lambda text: far(encode_plain(text)))
    made = {source: list(synthesise(tokenizer, source, 3, seed=0)) for source in (SOURCES[0], SOURCES[-1])}
    synthesis.save(tmp_path / "trajectories.npz", made)
    for items in (*made.values(), *synthesis.load(tmp_path / "trajectories.npz").values()):
        assert min(item.example.ids.min() for item in items) >= 150_000
        assert min(collate([item.example]).ids.min() for item in items) >= 150_000


# The random streams of the run that is shipped: first trajectories of each source, as tokens.
STREAMS = {
    "chain/think": (0.22, (1, 2, 3, 4, 5, 6, 7, 8), "4d1bfeaf"),
    "add/think": (0.04, (2, 3, 4), "b26751c0"),
    "times/think": (0.05, (2, 3, 4), "f3e88750"),
    "follow/think": (0.02, (1, 2, 3, 4, 5), "ed85c671"),
    "condition/think": (0.06, (1, 2), "1e32b456"),
    "cheapest/think": (0.16, (2, 3, 4, 5), "ff4710b8"),
    "buy/think": (0.05, (1, 2, 3, 4), "3a097c54"),
    "repair/think": (0.2, (2, 3, 4), "1d5e1aca"),
    "chain/reflex": (0.02, (1, 2, 3, 4, 5, 6, 7, 8), "61fe5844"),
    "add/reflex": (0.003, (2, 3, 4), "325bcd6a"),
    "times/reflex": (0.003, (2, 3, 4), "d4bde6ca"),
    "follow/reflex": (0.007, (1, 2, 3, 4, 5), "361a68c9"),
    "condition/reflex": (0.007, (1, 2), "a85be2dd"),
    "buy/reflex": (0.01, (1, 2, 3, 4), "52935225"),
    "repair/reflex": (0.01, (2, 3, 4), "889597e0"),
    "follow/window": (0.03, (3, 4, 5, 6), "ae3fdbdd"),
    "buy/window": (0.01, (4, 5, 6), "97f76eb6"),
    "chain/sheet": (0.02, (1,), "0a8008e2"),
    "condition/sheet": (0.03, (1,), "764b6312"),
    "repair/sheet": (0.05, (1,), "8709c825"),
}


def test_the_sources_of_the_shipped_run_stay_in_their_order():
    assert [f"{source.family}/{source.mode}" for source in SOURCES] == list(STREAMS)


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: f"{s.family}-{s.mode}")
def test_the_streams_of_the_shipped_run_stay(tokenizer, source):
    """Order, shares and levels of the sources decide which trajectory is seen when; another stream is another run."""
    share, levels, first = STREAMS[f"{source.family}/{source.mode}"]
    assert (FAMILIES[source.family].shares[source.mode], source.levels) == (share, levels)
    assert streamed(tokenizer, source) == first


def streamed(tokenizer, source) -> str:
    """Eight hexadecimal digits of the first trajectories: what they say, what of it is learned, and their verdicts."""
    made = synthesise(tokenizer, source, 4, seed=0, mistakes=0.5)
    told = [(item.example.ids.tolist(), item.example.mask.tolist(), item[1:]) for item in made]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:8]


def test_drills_use_whole_words(tokenizer):
    alphabet = synthesis.drill_alphabet(tokenizer)
    assert len(alphabet) == len(set(alphabet.tolist())) > 100 and alphabet.max() < tokenizer.first_special


def test_drills_of_a_reader_are_made_of_every_token_but_the_markers(tokenizer):
    """In an order of their own: a drill begins with a part of them, and names may be made of any."""
    alphabet, other = (synthesis.whole_alphabet(tokenizer, seed).tolist() for seed in (0, 1))
    assert sorted(alphabet) == sorted(other) == list(range(tokenizer.first_special)) and alphabet != other
    assert max(alphabet[:128]) > 500, "not in the order of the vocabulary"


@pytest.mark.parametrize("held_out", [False, True])
def test_a_held_out_task_among_the_examples_is_refused(tokenizer, held_out):
    item = trajectory(tokenizer, "0", "buy", 2, "think", 0.0, held_out)
    if not held_out:
        return synthesis.refuse_held_out([item])
    with pytest.raises(ValueError, match="a held-out task of buy, level 2"):
        synthesis.refuse_held_out([item])


def test_passed_is_the_verdict_and_not_what_was_meant(tokenizer, monkeypatch):
    """An expert that errs without meaning to is found out."""
    refused = Verdict(False, "the shelf is empty")
    monkeypatch.setattr(Conversation, "verdict", lambda self: refused)
    item = trajectory(tokenizer, "0", "buy", 2, "think", 0.0)
    assert item.mistake is None and not item.passed


def test_chains_of_a_dialogue_are_learned_whole_and_each_in_its_own_context(tokenizer):
    """Two answers at least: the user of telecom speaks again. Behind an answer no earlier thought is left."""
    rng = random.Random("2")
    played = loop.play(worlds.generate(rng, "line", 3), rng, None, True, 0)
    made = synthesis.chains(tokenizer, played)
    turns = [message for message in played.messages if message["role"] == "assistant"]
    answers = [message for message in turns if not message.get("tool_calls")]
    assert len(made) == len(answers) > 1
    ends = tokenizer.special["<|im_end|>"]
    assert sum(int((one.ids[one.mask] == ends).sum()) for one in made) == len(turns)  # every turn, once
    for number, (one, answer) in enumerate(zip(made, answers)):
        before, learned = (
            tokenizer.decode(part.tolist()) for part in np.split(one.ids, [int(one.mask.argmax())])
        )
        assert ("<think></think>" in before) is (number > 0)
        assert answer["content"] in learned
        assert all(earlier["reasoning_content"] not in before for earlier in turns[: 2 * number])


def test_one_answer_is_one_chain(tokenizer):
    rng = random.Random("3")
    played = loop.play(worlds.generate(rng, "buy", 2), rng, None, True, 0)
    (only,) = synthesis.chains(tokenizer, played)
    ids, mask = chat.encode(tokenizer, played.messages, played.tools)
    assert only.ids.tolist() == ids and only.mask.tolist() == list(mask)
