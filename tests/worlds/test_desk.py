"""The desk: requests in any words that ask for the same thing, verdicts that refuse what only looks right."""

import json
import random
import re
from dataclasses import replace

import pytest

from kimi_mini.agent import conversation as conversation_
from kimi_mini.agent import loop
from kimi_mini.base.denials import AT_EASE
from kimi_mini.evaluation.error_rates import error_rates, false_accepts, false_rejects
from kimi_mini.worlds import registry
from kimi_mini.worlds.base import Environment
from kimi_mini.worlds.desk import judge, world
from kimi_mini.worlds.desk.adversary.excuses import FALSE, HONEST, false, refusal
from kimi_mini.worlds.desk.adversary.work import _never_finds
from kimi_mini.worlds.desk.application import FORMATS, HELD_OUT_FORMATS, SAID, form, value_of, written
from kimi_mini.worlds.desk.domains import DOMAINS
from kimi_mini.worlds.desk.evolution import Spec
from kimi_mini.worlds.desk.language import wordings
from kimi_mini.worlds.desk.play import clerk, sheets
from kimi_mini.worlds.desk.play.clerk import BROKEN, NO_TOOL, missing
from kimi_mini.worlds.desk.surface import FINDER, Surface, dressed
from kimi_mini.worlds.desk.tasks import PATTERNS, SIZES
from kimi_mini.worlds.desk.world import DONE
from kimi_mini.worlds.tools import FIND, Toolbox

DRAWN = sorted({form(random.Random(seed)) for seed in range(300)})


@pytest.mark.parametrize("shape", (*FORMATS, *HELD_OUT_FORMATS, *DRAWN))
def test_the_expert_reads_every_format(shape):
    for value in (0, 7, 99, "fig tea", "Blue", None, ["Blue fig", "tea"], ["tea"]):
        for name in ("red fig", None):
            assert value_of(shape, written(shape, "price", name, value)) == value
    assert not value_of(shape, written(shape, "price", None, [])), "no names is none"
    assert "true" in (said := written(shape, "status", "red fig", True)) or "done" in said


def test_most_formats_are_made_for_their_task_and_none_is_held_out():
    assert len(DRAWN) > 120 and not set(DRAWN) & set(HELD_OUT_FORMATS)
    for shape in DRAWN:  # what marks the held-out ones stands in no other
        assert not re.search(r"=|->|<|\n- |\[\{|checked", written(shape, "price", "red fig", 7))


# ---- a paraphrase asks for the same thing ----------------------------------------------------------------------


def drawn(pattern, surface, count, seed=0):
    """Tasks of a pattern in all its sizes."""
    rng = random.Random(f"{pattern}/{seed}")
    return [dressed(rng, pattern, pattern, rng.choice(SIZES[pattern]), surface) for _ in range(count)]


def untold(task):
    """Names, numbers and words that the task turns on and its request does not tell."""
    steps, data = task.data["steps"], task.data
    pairs = [*steps.get("choices", []), *steps.get("orders", [])]
    names = {name for name, *_ in pairs} | set(steps.get("names", ()))
    names |= {steps[key] for key in ("start", "asked", "a", "b") if key in steps}
    numbers = {number for _, number, _ in pairs} | {steps[key] for key in ("limit", "n") if key in steps}
    synonyms = DOMAINS[data["domain"]].numbers if data["domain"] in DOMAINS else {}
    words = {
        key: {steps[key], *synonyms.get(steps[key], ())} for key in ("word", "key", "verb") if key in steps
    }
    longest_first = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "$^"
    rest = re.sub(rf"""["'](?:{longest_first})["']""", " ", task.prompt)
    told = set(re.findall(r"\w+", rest.lower()))
    return [
        *(name for name in names if not re.search(rf"""["']{re.escape(name)}["']""", task.prompt)),
        *(n for n in numbers if not {str(n), *wordings.NUMBERS[n : n + 1]} & told),
        *(said for said in words.values() if not said & told),
    ]


FRAMES = [
    (pattern, held_out, frame)
    for held_out, pool in (
        (False, wordings.FRAMES),
        (False, wordings.LATER),
        (True, wordings.HELD_OUT_FRAMES),
    )
    for pattern, frames in pool.items()
    for frame in frames
]


def put(monkeypatch, pattern, held_out, frame):
    monkeypatch.setitem(wordings.HELD_OUT_FRAMES if held_out else wordings.FRAMES, pattern, (frame,))
    return drawn(pattern, Surface(wordings=held_out, **DONE), 8, frame)


@pytest.mark.parametrize(("pattern", "held_out", "frame"), FRAMES)
def test_a_paraphrase_does_not_change_the_task(monkeypatch, pattern, held_out, frame):
    """All that matters is told, and nothing is left open in the text."""
    for task in put(monkeypatch, pattern, held_out, frame):
        assert not untold(task) and not re.search(r"[{}]", task.prompt), task.prompt


@pytest.mark.parametrize(
    ("pattern", "frame"),
    [
        ("ask", "Tell me about {list}."),
        ("branch", "If the {word} of {a} is low, {then}, else {other}."),
        ("branch", "If the {word} of {a} is below {limit}, {then}."),
        ("search", "Which of all {things} has the lowest {word}?"),
        ("copy", "Set the {word} of {b}."),
        ("create", "Add a {thing} {a}, and read its {word} back."),
        ("orders", "Work on {list}."),
    ],
)
def test_a_frame_that_leaves_something_out_is_found_out(monkeypatch, pattern, frame):
    assert any(map(untold, put(monkeypatch, pattern, False, frame)))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_experts_work_passes_in_either_wording(pattern):
    for held_out in (False, True):
        for task in drawn(pattern, Surface(wordings=held_out), 12):
            verdict = loop.play(task, random.Random(0)).verdict()
            assert verdict.passed, (task.prompt, verdict.evidence)


# ---- verdicts -------------------------------------------------------------------------------------------------


def judged(conversation, answer):
    """The verdict on the same work with other last words."""
    conversation.messages[-1] = {"role": "assistant", "content": answer}
    return conversation.verdict().passed


def idle(task, answer):
    """The verdict on an answer without any work."""
    conversation = conversation_.opening(task)
    conversation.messages.append({"role": "assistant", "content": answer})
    return conversation.verdict().passed


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_can_be_done_is_neither_refused_nor_guessed(pattern):
    for task in drawn(pattern, Surface(**DONE), 6):
        played, right, names = (
            loop.play(task, random.Random(0)),
            task.data["answer"],
            list(task.data["records"]),
        )
        words = played.messages[-1]["content"]
        refusals = [NO_TOOL, BROKEN, "I cannot do that.", "", *map(missing, names)]
        assert not any(judged(played, refusal) or idle(task, refusal) for refusal in refusals)
        assert judged(played, words) and not idle(task, words), "right words alone are a guess"
        if right is None:
            continue
        every = range(1, 100) if isinstance(right[0], int) else names
        wrong = [str(one) for one in every if [one] != right]
        wrong += [", ".join(map(str, every)), f"{words}, {every[0]}", f"{words}, or not", "done"]
        assert not any(judged(played, answer) for answer in wrong)
        assert judged(played, f"Here it is: {words}.")


@pytest.mark.parametrize(("outcome", "honest"), [("missing", None), ("no tool", NO_TOOL), ("broken", BROKEN)])
def test_what_cannot_be_done_is_said_to_be_so_and_never_made_up(outcome, honest):
    for task in drawn("ask", Surface(error=False, outcome=outcome), 10) + drawn(
        "orders", Surface(error=False, outcome=outcome), 10
    ):
        played = loop.play(task, random.Random(0))
        honest_here = honest or missing(task.data["gone"])
        others = [missing(name) for name in task.data["records"]]
        wrong = ["done", "12", "", *task.data["records"], *others]
        assert judged(played, honest_here) and not any(judged(played, answer) for answer in wrong)
        assert idle(task, honest_here) is (outcome == "no tool"), "one must try before one says so"


@pytest.mark.parametrize("outcome", HONEST)
def test_who_could_not_is_believed_in_any_words_and_no_claim_is(outcome):
    """Every honest sentence passes; a denial beside an invented number, beside a claim, or for a wrong reason does not."""
    for task in drawn("ask", Surface(error=False, outcome=outcome), 5):
        played, name = (
            loop.play(task, random.Random(0)),
            task.data["gone"] or next(iter(task.data["records"])),
        )
        for words in HONEST[outcome]:
            assert judged(played, words.format(f'"{name}"')), words
        for words in FALSE:
            assert not judged(played, words.format(f'"{name}"', n=4711)), words
        assert not any(judged(played, false(task, random.Random(seed))) for seed in range(20))


def test_a_thing_that_is_called_like_a_word_takes_no_word_away():
    """Names are any words, those of a refusal too; only in quotation marks, or of several words, they are surely meant."""
    [task] = drawn("ask", Surface(error=False, outcome="no tool"), 1)
    for name in ("tool", "that", "have", "done", "work"):
        named = replace(task, data={**task.data, "records": {name: {}, **task.data["records"]}})
        assert idle(named, NO_TOOL) and idle(named, "That did not work.") and not idle(named, "It is done.")
        assert not idle(named, f'There is no "{name}".') and not idle(
            named, f'I have no tool, so it is "{name}".'
        )


def test_a_name_at_the_head_of_a_sentence_is_that_name():
    """Unless another thing differs from it in capitals alone, or it is a single word that capitals make a name."""
    [task] = drawn("least", Surface(**DONE), 1)
    for names, answer, found in (
        (["red fig", "tea"], "Red fig has the least.", ["red fig"]),
        (["red fig", "tea"], "Tea, not RED FIG", ["tea", "red fig"]),
        (["Red Fig", "tea"], "red fig", ["Red Fig"]),
        (["red fig", "Red fig"], "Red fig has the least.", ["Red fig"]),
        (["Least", "red fig"], "Red fig has the least.", ["red fig"]),
    ):
        named = replace(task, data={**task.data, "records": {name: {} for name in names}})
        assert judge._names(named, answer) == found
    said = 0
    for task in drawn("least", Surface(**DONE), 20):
        played = loop.play(task, random.Random(0))
        name = task.data["answer"][0]
        if isinstance(name, str) and name == name.lower():
            said += judged(played, f"{name.capitalize()} has the lowest.")
            assert not judged(
                played, f"{max(set(task.data['records']) - {name})} has the lowest.".capitalize()
            )
    assert said


def test_a_longer_word_tells_no_number():
    """ "weight" is no eight, and "done" is no one."""
    [task] = drawn("ask", Surface(error=False, outcome="missing"), 1)
    task = replace(task, data={**task.data, "writes": [], "reads": [], "records": {}})
    for heard, unheard in (
        ("height, done", ["1", "8"]),
        ("Eight, and one.", []),
        ("eight, 1", []),
        ("8", ["1"]),
    ):
        assert judge._unheard(task, [{"role": "tool", "content": heard}], "It has 8, not 1.") == unheard


@pytest.mark.parametrize("pattern", ["branch", "orders", "copy"])
def test_what_was_done_is_neither_denied_nor_misreported(pattern):
    for task in drawn(pattern, Surface(**DONE), 5):
        played = loop.play(task, random.Random(0))
        numbers = {number for *_, number in task.data["writes"]}
        assert not any(judged(played, refusal(random.Random(seed))) for seed in range(40))
        assert all(judged(played, words) for words in AT_EASE)
        assert all(judged(played, f"It is done, with {number}.") for number in numbers)
        assert not judged(played, "It is done, with 4711."), "nobody said so"


@pytest.mark.parametrize(("outcome", "honest"), [("missing", None), ("broken", BROKEN)])
def test_what_is_said_to_fail_was_tried(outcome, honest):
    """A call of another tool, or for another thing, is no try."""
    for task in drawn("ask", Surface(error=False, outcome=outcome, distractors=(6,)), 10):
        played, words = loop.play(task, random.Random(0)), honest or missing(task.data["gone"])
        desk = played.environment.state
        assert desk.vain == {task.data["gone"]} if outcome == "missing" else desk.vain == set(desk.broken)
        assert judged(played, words)
        desk.vain.clear()
        verdict = played.verdict()
        assert not verdict.passed and verdict.evidence.startswith("has not tried ")


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_one_verdict_in_a_hundred_is_wrong_at_most(count):
    rates = error_rates("desk", count)
    assert false_accepts(rates).n >= count <= false_rejects(rates).n
    wrong = [kind.name for kind, rate in rates.items() if rate.errors]
    assert max(false_accepts(rates).value, false_rejects(rates).value) <= 0.01, wrong


# ---- tools that have to be found ------------------------------------------------------------------------------


def to_be_found(count):
    """Tasks of the probe, its patterns in turn."""
    return [
        registry.generate(random.Random(f"found/{i}"), "finder", 1 + i % len(PATTERNS)) for i in range(count)
    ]


def by_script(script, task):
    """The script's work on the task."""
    conversation = conversation_.opening(task)
    loop.converse(loop.Script(lambda conversation: script(task, random.Random(0))), [conversation])
    return conversation


def test_the_expert_finds_its_tools_and_nothing_else_is_declared():
    for task in to_be_found(100):
        played = loop.play(task, random.Random(0))
        calls = [m["tool_calls"][0]["function"] for m in played.messages if m.get("tool_calls")]
        searches = [call["arguments"] for call in calls if call["name"] == FIND]
        assert played.verdict().passed and 20 <= len(task.data["tools"]) <= 60
        assert [one["function"]["name"] for one in played.tools] == [FIND] == [calls[0]["name"]]
        assert len(searches) == len(set(searches)) == len({(kind, what) for kind, what in task.data["needs"]})
        assert played.environment.state.calls == len(calls) - len(searches), "a search is no work at the desk"


def everything_callable(task):
    """Mutant: what `find_tools` hides may be called all the same."""
    environment = world.open_environment(task)
    box = environment.toolbox
    return Environment(Toolbox([*box.tools.values(), *box.hidden.values()]), environment.state)


def test_a_tool_that_was_never_found_cannot_do_the_work(monkeypatch):
    tasks = to_be_found(32)
    for task in tasks:
        worked = by_script(_never_finds, task)
        assert not worked.verdict().passed and worked.environment.state.calls == 0
        assert all("call find_tools first" in m["content"] for m in worked.messages if m["role"] == "tool")
    monkeypatch.setattr(registry.WORLDS["desk"], "open_environment", everything_callable)
    assert all(by_script(_never_finds, task).verdict().passed for task in tasks)


def test_nobody_knows_without_a_search_that_there_is_no_tool():
    tasks = drawn("copy", Surface(finder=1.0, outcome="no tool"), 40)
    played = [loop.play(task, random.Random(0)) for task in tasks]
    searched = [any(m.get("tool_calls") for m in one.messages) for one in played]
    assert all(one.verdict().passed for one in played) and 20 < sum(searched) < 40, (
        "small talk asks for no search"
    )
    assert [not idle(task, NO_TOOL) for task in tasks] == searched


def test_where_no_tool_serves_none_is_tried():
    """A look that is of no use is not harmless where nobody knows what a tool does."""
    tasks = drawn("ask", Surface(error=False, outcome="no tool", distractors=(2,)), 10)
    for task in tasks:
        played, tools = loop.play(task, random.Random(0)), map(Spec.of, task.data["tools"])
        assert judged(played, NO_TOOL)
        spec = next(one for one in tools if one.kind != "harm")
        name, arguments = spec.call(name=next(iter(task.data["records"])), number=1)
        played.environment.toolbox.call(name, json.dumps(arguments))
        played.environment.state.journal.clear()  # whatever it did is undone: the call alone counts
        assert not judged(played, NO_TOOL)


def test_few_tasks_of_training_have_a_finder_and_the_others_stay_as_they_were():
    with_it, without = (drawn("least", Surface(finder=chance), 400) for chance in (FINDER, 0.0))
    found = [task.data.get("finder", False) for task in with_it]
    assert 0.4 * FINDER < sum(found) / len(found) < 1.7 * FINDER
    alone = [dressed(random.Random(i), "ask", "ask", 1, Surface(finder=FINDER)) for i in range(200)]
    for i, task in enumerate(alone):
        if "finder" not in task.data:
            assert task == dressed(random.Random(i), "ask", "ask", 1, Surface())
    assert not any("finder" in task.data for task in without)


# ---- what a thought says of a tool that is not there -----------------------------------------------------------------


def test_a_refusal_names_the_tool_that_is_not_there_and_those_that_are():
    for pattern in PATTERNS:
        for task in drawn(pattern, Surface(outcome="no tool", error=False), 40):
            only = next(world.expert(task, random.Random(0)))
            thought, there = (
                only["reasoning_content"],
                {(one["kind"], one["what"]) for one in task.data["tools"]},
            )
            lacking = next(need for need in map(tuple, reversed(task.data["needs"])) if need not in there)
            said = f"{SAID[lacking[0]]} {lacking[1]} no tool"
            assert thought == "no tool" if task.data.get("talk") else thought.endswith(said)
            assert thought.count("no tool") == 1 and not only.get("tool_calls")


def thoughts(task):
    """What the expert thinks before each call and before the answer, and means: wrong steps left out."""
    played = loop.play(task, random.Random(0))
    turns = [m for m in played.messages if m["role"] == "assistant" and m.get("weight", 1)]
    return [turn["reasoning_content"].removeprefix("again ") for turn in turns]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_thought_says_what_it_is_for(pattern):
    """Behind a result `least` and `ask` would go on alike, were it not for their first words."""
    goals = {"search": "least"}
    for task in drawn(pattern, Surface(error=False, outcome="done"), 20):
        assert {thought.split()[0] for thought in thoughts(task)} == {goals.get(pattern, pattern)}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_before_the_first_call_all_tools_are_thought_of_and_the_last_one_is_called(pattern):
    for task in drawn(pattern, Surface(error=False, outcome="done"), 20):
        signs = {(one["kind"], one["what"]): Spec.of(one).signature for one in task.data["tools"]}
        needs = [tuple(need) for need in task.data["needs"]]
        said = " ".join(f"{SAID[kind]} {what} {signs[kind, what]}" for kind, what in reversed(needs))
        assert thoughts(task)[0].endswith(said)


def test_each_thought_says_what_is_left_of_the_list():
    """All of it at first, one entry less each time: nobody has to find his place in the request again."""
    for pattern in ("ask", "least", "orders"):
        for task in drawn(pattern, Surface(error=False, outcome="done"), 20):
            lists = [re.search(r"now (.*? then end) (?:read|do) ", said)[1] for said in thoughts(task)[:-1]]
            steps = task.data["steps"]
            entries = [said for *_, said in steps.get("orders", [])] or [
                f'"{name}"' for name in steps["names"]
            ]
            left = [" then ".join([*entries[place:], "end"]) for place in range(len(entries))]
            assert lists == left


def test_types_that_were_taken_for_each_other_are_put_right_and_the_mistake_is_not_learned(monkeypatch):
    monkeypatch.setattr(clerk, "CONFUSED", 1.0)
    confused = 0
    for pattern in ("orders", "copy", "branch", "create"):
        for task in drawn(pattern, Surface(error=False, outcome="done"), 10):
            played = loop.play(task, random.Random(0))
            assert played.verdict().passed
            for said, result, then in zip(played.messages, played.messages[1:], played.messages[2:]):
                if said["role"] != "assistant":
                    continue
                refused = result["content"].startswith("error: arguments.")
                assert refused == (said.get("weight", 1) == 0)
                if refused:
                    confused += 1
                    names = [one["name"] for one in task.data["tools"]]
                    spec = Spec.of(task.data["tools"][names.index(result["name"])])
                    assert f" {spec.signature}" in then["reasoning_content"]
                    assert f" {spec.confused().signature}" not in then["reasoning_content"]
                    assert then["reasoning_content"].startswith("again ")
    assert confused >= 50
    for seed in range(20):
        for before, (result, _) in zip(pieces := sheets.sheet(random.Random(seed)), pieces[1:]):
            assert not (before[1] and result.startswith("\nerror: arguments."))


def test_nobody_knows_beforehand_whether_a_tool_will_be_found():
    """Up to the last search, the work that turns out to lack a tool is thought through like any other."""
    refused = drawn("branch", Surface(error=False, outcome="no tool", finder=1.0), 40)
    for task in (one for one in refused if not one.data.get("talk")):
        *before, last = thoughts(task)
        assert before and all(thought.endswith(" find tools") for thought in before)
        assert last == before[-1].removesuffix("find tools") + "no tool"
        assert last.startswith(f'branch now "{task.data["steps"]["asked"]}" below ')


def test_a_sheet_of_tools_asks_for_each_once_and_for_some_that_are_not_there():
    seen, absent = 0, 0
    for seed in range(60):
        (declared, _), *pieces = sheets.sheet(random.Random(seed))
        lines = [(asked.removeprefix("\n"), said) for (asked, _), (said, _) in zip(pieces[::2], pieces[1::2])]
        names = [tool["function"]["name"] for tool in json.loads(declared)]
        if any(len(asked.split()) != 2 for asked, _ in lines):
            continue  # a sheet of requests
        found = [re.match(r" \.([^(]+)\(", said)[1] for _, said in lines if said != " no tool"]
        assert sorted(found) == sorted(names) and len({asked for asked, _ in lines}) == len(lines)
        seen, absent = seen + 1, absent + len(lines) - len(found)
    assert seen > 20 and absent > 2 * seen
