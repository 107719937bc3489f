"""The desk's pools: a trained and a held-out part that share nothing, and no held-out part in any training stream."""

import itertools
import random
import re
from functools import partial

import pytest

from kimi_mini.agent import loop
from kimi_mini.pipeline.plan import Plan
from kimi_mini.text.corpus import book_documents, stdlib_documents
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.synthesis import SOURCES, VARIED, numbered, trajectory
from kimi_mini.worlds import FAMILIES
from kimi_mini.worlds.desk import application, world
from kimi_mini.worlds.desk.application import FORMATS, HELD_OUT_FORMATS
from kimi_mini.worlds.desk.composed import COMPOSED
from kimi_mini.worlds.desk.domains import DOMAINS, HELD_OUT, TRAINED, UNSEEN, made_up
from kimi_mini.worlds.desk.evolution import _DESCRIPTIONS, KINDS, evolve
from kimi_mini.worlds.desk.language import wordings, words
from kimi_mini.worlds.desk.surface import (
    HELD_OUT_SYSTEMS,
    HELD_OUT_TRANSIENT,
    SYSTEMS,
    TRANSIENT,
    Surface,
    dressed,
)
from kimi_mini.worlds.desk.tasks import PATTERNS, SIZES
from kimi_mini.worlds.desk.world import LIMITS, PROBES


def parts(text):
    """Words of a text in small letters; camelCase is two of them, and one."""
    return set(re.findall(r"[a-z]+", text.lower())) | {
        part.lower() for part in re.findall(r"[A-Z]?[a-z]+", text)
    }


# ---- the pools ------------------------------------------------------------------------------------------------


def bare(text):
    """A frame without what any wording may add: case, marks, politeness."""
    return re.sub(r"[^a-z{} ]|\bplease\b", "", text.lower()).split()


def styled(pool):
    return {style(["fig", "tea", "plum"]) for style in pool}


@pytest.mark.parametrize(
    ("trained", "held_out", "least"),
    [
        (words.trained(), words.HELD_OUT, 120),
        ((*wordings.OPENINGS, *wordings.LATER_OPENINGS), wordings.HELD_OUT_OPENINGS, 8),
        ((*wordings.ENDINGS, *wordings.LATER_ENDINGS), wordings.HELD_OUT_ENDINGS, 7),
        (SYSTEMS, HELD_OUT_SYSTEMS, 4),
        ((*wordings.TALK, *wordings.LATER_TALK), wordings.HELD_OUT_TALK, 25),
        (FORMATS, HELD_OUT_FORMATS, 4),
        (styled(wordings.LIST_STYLES), styled(wordings.HELD_OUT_LIST_STYLES), 4),
        (TRANSIENT, HELD_OUT_TRANSIENT, 3),
        ([domain.name for domain in TRAINED], HELD_OUT, 3),
        *[
            (
                {spec.name for domain in TRAINED for spec in evolve(domain.name) if spec.kind == kind},
                {spec.name for domain in UNSEEN for spec in evolve(domain.name) if spec.kind == kind},
                3,
            )
            for kind in ("read", "link", "deed", "harm")
        ],
    ],
)
def test_trained_and_held_out_parts_share_nothing(trained, held_out, least):
    assert len(set(held_out)) == len(held_out) >= least and not (set(trained) & set(held_out)) - {""}


SLOTS = {
    "ask": "list word",
    "trace": "a word",
    "branch": "a limit other then word",
    "least": "list word",
    "orders": "list verb",
    "search": "key n word",
    "copy": "a b word",
    "create": "a n word",
}
BELOW = (
    r"below|under|(less|smaller|lower) .*than|(is|finds|with|anything) (less|lower)|beneath|<|short|not (reach|attained)"
    r"|[Nn]ot yet|at least|or (more|higher|even more)|[Mm]iss(es|ed)|reached|(greater|too high).*:|fails|tops|inferior|lacks"
    r"|more than its|get to|negative|Lighter|already enough|got to|is less|or (beyond|over)|from .* (up|on)"
    r"|attained|[Ss]maller|even higher|[Aa]ny (less|lower)|counted as high|being lower|exceed|a higher figure|attains|matched or passed|the latter is"
)
AT_MOST = r"at most|up to|\bor (less|below|under|fewer)|no more than|not more than|<="


def runs(texts, length=4):
    """All runs of so many words in texts; slots are left out, and words on both sides of one are neighbours."""
    spoken = [re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", text.lower())) for text in texts]
    return {tuple(said[i : i + length]) for said in spoken for i in range(len(said) - length + 1)}


def clear(pattern, frame):
    """Whether a frame has all slots of its pattern, no further ones, and a condition that is strict."""
    strict = re.search(BELOW, frame, re.IGNORECASE) and not re.search(AT_MOST, frame)
    slots = sorted(set(re.findall(r"\{(\w+)\}", frame)) - {"thing", "things"})
    return slots == SLOTS[pattern].split() and (pattern != "branch" or bool(strict)) and "'" not in frame


@pytest.mark.parametrize("pattern", PATTERNS)
def test_there_are_many_wordings_and_no_frame_is_shared(pattern):
    trained = wordings.FRAMES[pattern] + wordings.LATER[pattern]
    held_out = wordings.HELD_OUT_FRAMES[pattern]
    frames = [tuple(bare(frame)) for frame in (*trained, *held_out)]
    assert len(wordings.FRAMES[pattern]) >= 40 and len(trained) >= 375 and len(held_out) >= 15
    assert len(set(frames)) == len(frames)
    said = itertools.chain(*wordings.FRAMES.values(), *wordings.LATER.values(), *wordings.PLAIN.values())
    assert not runs(held_out) & runs(said)
    assert [frame for frame in (*trained, *held_out) if not clear(pattern, frame)] == []
    slots = dict.fromkeys("a b list word thing things n limit then other verb key".split(), "x")
    sides = [
        {wordings.said(random.Random(i), pattern, side, **slots) for i in range(600)}
        for side in (False, True)
    ]
    assert len(sides[0]) >= 400 and len(sides[1]) >= 150 and not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("pattern", "frame"),
    [
        ("branch", "If the {word} of {a} is at most {limit}, {then}, else {other}."),
        ("branch", "If the {word} of {a} is below {limit}, {then}."),
        ("branch", "If the {word} of {a} is {limit} or below, {then}, else {other}."),
        ("search", "Which of all {things} has the lowest {word}?"),
        ("ask", "What's the {word} of {list}?"),
        ("ask", "What is the {word} of {list} and {a}?"),
    ],
)
def test_a_frame_that_is_not_clear_is_found(pattern, frame):
    assert not clear(pattern, frame)


def test_a_short_sentence_of_the_exam_is_the_end_of_none_that_is_trained():
    """It has no run of four words (`Kindly {verb} {list}.`), and would be a part of many texts by its words alone."""
    short = {
        (pattern, frame.lower())
        for pattern, frames in wordings.HELD_OUT_FRAMES.items()
        for frame in frames
        if not runs([frame])
    }
    assert ("orders", "kindly {verb} {list}.") in short
    ends = [
        (p, one, frame)
        for p, one in short
        for frame in wordings.FRAMES[p] + wordings.LATER[p]
        if frame.lower().endswith(one)
    ]
    assert ends == []


def test_a_run_of_words_that_is_shared_is_found():
    """Mutants: a trained frame with another slot order, or a few words before it."""
    trained = runs(wordings.FRAMES["ask"])
    assert runs(["{list}. Now, tell me the {thing} of {word}"]) & trained
    assert runs(["Do say what the {list} is in {word}"]) & trained


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("each", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_the_experts_work_passes_in_every_wording(monkeypatch, pattern, each):
    trained = wordings.FRAMES[pattern] + wordings.LATER[pattern]
    for held_out, frames in ((False, trained), (True, wordings.HELD_OUT_FRAMES[pattern])):
        surface = Surface(wordings=held_out)
        for frame in frames:
            pool = wordings.HELD_OUT_FRAMES if held_out else wordings.FRAMES
            monkeypatch.setitem(pool, pattern, (frame,))
            rng = random.Random(frame)
            for _ in range(each):
                task = dressed(rng, pattern, pattern, rng.choice(SIZES[pattern]), surface)
                verdict = loop.play(task, random.Random(0)).verdict()
                assert verdict.passed, (frame, task.prompt, verdict.evidence)


def test_openings_endings_lists_talk_and_descriptions_are_many():
    assert len(set(wordings.OPENINGS) - {""}) >= 25 and len(set(wordings.ENDINGS) - {""}) >= 20
    assert len(styled(wordings.LIST_STYLES)) >= 10 and len(set(wordings.TALK)) >= 60
    assert not runs(wordings.HELD_OUT_TALK, 3) & runs((*wordings.TALK, *wordings.LATER_TALK), 3)
    texts = [text for kind in KINDS for text in _DESCRIPTIONS[kind]]
    assert all(len(_DESCRIPTIONS[kind]) >= 8 for kind in KINDS) and len(set(texts)) == len(texts)
    assert all("{what}" in text for text in texts)


def test_a_held_out_word_stands_in_no_text_that_is_trained():
    """Neither in the corpus nor in anything that the desk says."""
    texts = [document.text for document in (*book_documents(), *stdlib_documents())]
    texts += [
        *wordings.FRAMES.values(),
        *wordings.LATER.values(),
        wordings.OPENINGS,
        wordings.ENDINGS,
        wordings.TALK,
        *wordings.AROUND.values(),
        SYSTEMS,
        TRANSIENT,
    ]
    texts += [[spec.name, spec.description] for domain in DOMAINS for spec in evolve(domain)] + list(
        DOMAINS.values()
    )
    said = set().union(*(parts(str(text)) for text in texts))
    assert "whale" in said and "import" in said and "calories" in said
    assert not said & set(words.HELD_OUT) and not set(words.trained()) & set(words.HELD_OUT)


def test_held_out_things_are_named_by_held_out_words_alone():
    rng = random.Random(0)
    held_out = parts(
        " ".join([*words.names(rng, 60, True), *(words.identifier(rng, True) for _ in range(60))])
    )
    trained = parts(" ".join([*words.names(rng, 600), *(words.identifier(rng) for _ in range(600))]))
    assert all(any(part.startswith(word) for word in words.HELD_OUT) for part in held_out)
    assert not trained & set(words.HELD_OUT) and len(trained) > 1000


def test_a_made_up_domain_has_a_word_for_everything_and_none_of_an_unseen_one():
    rng, unseen, things = random.Random(3), parts(str(UNSEEN)), set()
    for _ in range(300):
        domain = made_up(rng)
        own = [domain.thing, *domain.numbers, *domain.links, *(d.verb for d in domain.deeds), *domain.harms]
        assert (
            len(own) == len(set(own)) == 12 and not set(own) & unseen and not set(own) & set(words.HELD_OUT)
        )
        assert all(deed.unit == "" or "#" in deed.unit for deed in domain.deeds)
        things.add(domain.thing)
    assert len(things) > 280


def test_the_pools_widen_from_one_domain_and_a_few_wordings_to_all(monkeypatch):
    def met(breadth):
        tasks = [
            world.generate(random.Random(f"{breadth}/{i}"), "ask", 1, breadth=breadth) for i in range(300)
        ]
        return {task.data["domain"] for task in tasks}, tasks

    narrow, half, whole = (met(breadth)[0] for breadth in (0.05, 0.5, 1.0))
    assert narrow == {TRAINED[0].name} and len(half) == round(len(TRAINED) / 2) and "made up" not in half
    assert whole == {domain.name for domain in TRAINED} | {"made up"}

    def asked(breadth):
        said = (wordings.said(random.Random(i), "ask", breadth=breadth) for i in range(2000))
        return {int(number) for text in said for number in re.findall(r"\d+", text)}

    monkeypatch.setitem(wordings.FRAMES, "ask", tuple(f"({number})" for number in range(60)))
    assert asked(0.05) == set(range(4)) and asked(0.5) == set(range(30)) and asked(1.0) == set(range(60))


def test_the_later_voices_are_for_further_courses_and_for_no_exam(monkeypatch):
    for pool in (wordings.LATER, wordings.LATER_PLAIN):
        for pattern in PATTERNS:
            assert len(pool[pattern]) >= 55
            monkeypatch.setitem(pool, pattern, tuple("Xylater " + frame for frame in pool[pattern]))

    def said(breadth, families, count):
        rng = random.Random(0)
        tasks = [
            world.generate(rng, name, rng.choice(FAMILIES[name].levels), breadth=breadth)
            for name in families
            for _ in range(count)
        ]
        return [task for task in tasks if not task.data.get("talk")]

    assert not [
        task.prompt
        for task in said(1.0, (*PATTERNS, *PROBES, "plain", "composed"), 30)
        if "ylater " in task.prompt
    ]
    further = said(2.0, (*PATTERNS, "plain"), 30)
    assert 0.35 < sum("ylater " in task.prompt for task in further) / len(further) < 0.65
    made_up = sum(task.data["domain"] == "made up" for task in further) / len(further)
    assert 0.25 < made_up < 0.55  # no more than when the pools are just open


# ---- what training shows --------------------------------------------------------------------------------------


def gaps(frame):
    """A frame as a pattern: its fixed words in their order, anything between them."""
    pieces = [re.escape(piece) for piece in re.split(r"\{\w+\}", frame.rstrip(".?!"))]
    return re.compile(".{1,400}?".join(pieces), re.DOTALL | re.IGNORECASE)


def form(text):
    """A result format as a pattern."""
    filled = text.format(key="KEY", name="NAME", value="VALUE", json="JSON")
    return re.compile(re.sub("KEY|NAME|VALUE|JSON", ".+", re.escape(filled)), re.DOTALL)


NEW = set().union(*(parts(str(domain)) for domain in UNSEEN)) - set().union(*(parts(str(d)) for d in TRAINED))
NEW_TOOLS = {spec.name for domain in UNSEEN for spec in evolve(domain.name)} - {
    spec.name for domain in TRAINED for spec in evolve(domain.name)
}
REWORDED = [gaps(frame) for frames in wordings.HELD_OUT_FRAMES.values() for frame in frames if runs([frame])]
ASKED_ANEW = [
    gaps(frame)
    for frame in (
        "has the second lowest {word}: {list}",
        "has the highest {word}: {list}",
        "the one with the lower {word}",
        "Which is the last but one?",
        "{word} of {list} together",
        "If the {word} of the {link} of {a} is below",
    )
]


def leaks(text):
    """Which held-out pools a dialogue shows, told by its decoded tokens alone."""
    declared = re.search(r"tool_declare<\|im_middle\|>(.*?)<\|im_end\|>", text, re.DOTALL)
    found = re.findall(r"## Return of functions\.find_tools:\d+\n(.*?)<\|im_end\|>", text, re.DOTALL)
    tools = (declared[1] if declared else "") + "".join(found)
    system = re.search(r"<\|im_system\|>system<\|im_middle\|>(.*?)<\|im_end\|>", text, re.DOTALL)
    user = re.search(r"<\|im_user\|>user<\|im_middle\|>(.*?)<\|im_end\|>", text, re.DOTALL)
    request = user[1] if user else ""
    results = re.findall(r"## Return of [^\n]*\n(.*?)<\|im_end\|>", text, re.DOTALL)
    quiet = re.sub(r"""(["'])(?:\w| )+?\1""", "Q", request)
    for name in re.findall(r'"((?:\w| )+)"', " ".join(re.findall("<think>(.*?)</think>", text))):
        quiet = re.sub(rf"\b{name}\b", "Q", quiet)  # where a name has no quotes, the thought says what it is
    described = " ".join(re.findall(r'"description":"(.*?)"', tools))
    found = {
        "names": parts(request + " ".join(results)) & set(words.HELD_OUT),
        "renamed": parts(tools) & set(words.HELD_OUT),
        "wordings": [one for one in REWORDED if one.search(quiet)]
        + [one for one in wordings.HELD_OUT_OPENINGS if one and request.startswith(one)]
        + [one for one in wordings.HELD_OUT_ENDINGS if one and request.endswith(one)]
        + [one for one in wordings.HELD_OUT_TALK if gaps(one).fullmatch(request.rstrip(".?!"))]
        + re.findall(r"Q / |Q \| | plus (?:\d|\w+ )?Q|\n\* ", quiet),
        "systems": [one for one in HELD_OUT_SYSTEMS if system and one == system[1]],
        "formats": [one for one in HELD_OUT_FORMATS for result in results if form(one).fullmatch(result)],
        "domains": [name for name in NEW_TOOLS if f'"name":"{name}"' in tools] + list(parts(described) & NEW),
        "errors": [one for one in HELD_OUT_TRANSIENT if one in text],
        "composed": [one for one in ASKED_ANEW if one.search(quiet)],
    }
    return {pool for pool, what in found.items() if what}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


EVERY, OURS = [*SOURCES, *VARIED], VARIED


@pytest.mark.parametrize("plan", [Plan.reader(), Plan.further(seed=4)], ids=["reader", "further"])
@pytest.mark.parametrize("each", [10, pytest.param(40, marks=pytest.mark.slow)])
def test_nothing_held_out_is_in_a_training_trajectory(tokenizer, each, plan):
    """As `make run` draws them; and each fits the context of the model and the budget of a turn."""
    for source in EVERY:
        for index in range(each if source in OURS else each // 5):
            item = numbered(tokenizer, source, index, plan.seed, breadth=plan.synthesis.breadth)
            text = tokenizer.decode(item.example.ids)
            assert not leaks(text), (source.family, index, leaks(text), text)
            if source in OURS and source.mode != "sheet":
                fits(tokenizer, item)


@pytest.mark.parametrize(
    "probe", ["names", "wordings", "systems", "formats", "renamed", "domains", "errors", "composed"]
)
def test_a_leak_is_found(tokenizer, probe):
    """Mutant: a probe among the training sources."""
    for index in range(12):
        level = FAMILIES[probe].levels[index % len(FAMILIES[probe].levels)]
        item = trajectory(tokenizer, f"planted/{index}", probe, level, "think", 0.0)
        found = leaks(tokenizer.decode(item.example.ids))
        assert probe in found, (found, tokenizer.decode(item.example.ids))


def test_no_source_trains_a_probe():
    probes = {*PROBES, "composed"}
    assert {source.family for source in OURS} == {*PATTERNS, "plain"} and not probes & {
        s.family for s in SOURCES
    }
    assert not any(FAMILIES[probe].shares for probe in probes)
    assert len(ASKED_ANEW) == len(COMPOSED) >= 6


# ---- budgets --------------------------------------------------------------------------------------------------


def fits(tokenizer, item):
    """The dialogue fits the context, every turn its budget, the calls theirs."""
    ids, ends = item.example.ids.tolist(), tokenizer.token_id("<|im_end|>")
    begins = [place for place, one in enumerate(ids) if one == tokenizer.token_id("<|im_assistant|>")]
    turns = [
        ids.index(ends, place) - ids.index(tokenizer.token_id("<|im_middle|>"), place) for place in begins
    ]
    assert len(ids) <= LIMITS.context == 2048 and len(turns) <= LIMITS.turns
    assert max(turns) <= LIMITS.turn_tokens, (max(turns), tokenizer.decode(ids))


@pytest.mark.parametrize("probe", [*PROBES, "composed"])
def test_the_work_of_a_probe_fits_into_its_rows_limits(tokenizer, probe):
    for index in range(16):
        level = FAMILIES[probe].levels[index % len(FAMILIES[probe].levels)]
        item = trajectory(tokenizer, f"fits/{index}", probe, level, "think", 0.0, held_out=True)
        assert item.passed
        fits(tokenizer, item)


def with_finder(tokenizer, count):
    """Trajectories of training of which every one has its tools to find: all patterns, sizes and outcomes."""
    for index in range(count):
        pattern = list(PATTERNS)[index % len(PATTERNS)]
        levels = FAMILIES[pattern].levels
        yield trajectory(
            tokenizer, f"long/{index}", pattern, levels[-1 - index // 8 % len(levels)], "think", 0.15
        )


def test_what_was_found_fits_into_the_context(tokenizer, monkeypatch):
    """All the tools that a result can hold would not."""
    monkeypatch.setattr(world, "FINDER", 1.0)
    items = list(with_finder(tokenizer, 32))
    assert all("find_tools" in tokenizer.decode(item.example.ids) for item in items)
    for item in items:
        fits(tokenizer, item)
    monkeypatch.setattr(application.Finder, "_ranked", lambda box, asked: list(box.hidden.values()))
    monkeypatch.setattr(application, "Finder", partial(application.Finder, best=60))
    assert any(len(item.example.ids) > LIMITS.context for item in with_finder(tokenizer, 64))
