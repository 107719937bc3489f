"""Rewriting keeps every fact; the check finds what a rewriter got wrong, and cheaper checks do not."""

from collections import Counter

import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini.base.evidence import FAILS, HOLDS, OPEN, Log
from kimi_mini.experiments.pretraining import fact_pages, reading, rephrasing
from kimi_mini.text import planted_errors, rephrase
from kimi_mini.text.planted_errors import plant
from kimi_mini.text.rephrase import Fact, page, people, problems, read, rewrite, same_words, write_chunk
from kimi_mini.training.batch import Example


def some_pages(count: int, seed: int = 0) -> list[str]:
    everybody = people(3 * count, np.random.default_rng(seed))
    return [page(everybody[i : i + 3]) for i in range(0, 3 * count, 3)]


def test_people_have_names_of_their_own():
    rng = np.random.default_rng(0)
    first = people(200, rng)
    second = people(200, rng, frozenset(person.name for person in first))
    assert len({person.name.split()[1] for person in first + second}) == 400
    with pytest.raises(ValueError, match="names are left"):
        people(10_000, rng)


def test_a_page_says_what_its_people_are():
    group = people(3, np.random.default_rng(0))
    assert read(page(group)) == [fact for person in group for fact in person.facts]
    assert read("He lives in Oslo.", "Alma Berg lives in Rome. Otto Bach plays the harp.") == [
        Fact("Otto Bach", "town", "Oslo")
    ]
    assert read("He lives in Oslo.") == [Fact("?", "town", "Oslo")]
    assert read("She lives in Oslo.", "Otto Bach plays the harp.") == [Fact("?", "town", "Oslo")]


def test_a_rewrite_keeps_the_facts_and_changes_the_words():
    rng = np.random.default_rng(0)
    for text in some_pages(60):
        versions = [rewrite(text, rng) for _ in range(10)]
        assert all(set(read(new)) == set(read(text)) and refused == 0 for new, refused in versions)
        assert len({new for new, _ in versions}) == 10
    assert rewrite(text, np.random.default_rng(1)) == rewrite(text, np.random.default_rng(1))


def test_chunks_cut_through_people_and_only_the_context_tells_who():
    """The second chunk of a page of three begins with a pronoun."""
    text = some_pages(1)[0]
    first, second, _ = rephrase.chunks(text)
    assert second.startswith(("She", "He"))
    assert read(second)[0].person == "?" and read(second, first)[0] in read(text)

    def forgetful(chunk, context, rng):
        return write_chunk(chunk, "", rng)

    rng = np.random.default_rng(0)
    assert set(read(rewrite(text, rng, forgetful, check=False)[0])) != set(read(text))
    kept, refused = rewrite(text, rng, forgetful)
    assert set(read(kept)) == set(read(text)) and refused >= 8
    assert second in kept  # a chunk that never comes out right is taken over from the source


@pytest.mark.parametrize("error", planted_errors.ERRORS)
def test_every_planted_error_is_caught(error):
    rng, planted = np.random.default_rng(0), 0
    for text in some_pages(60):
        wrong = plant(rewrite(text, rng)[0], error, rng)
        if wrong is not None:
            planted += 1
            assert problems(text, wrong), wrong
    assert planted >= 40


SOURCE = "Dora Kalstein was born in the year 1951. She lives in the town of Cairo. She works as a painter. She plays the cello."


@pytest.mark.parametrize(
    "wrong",
    [
        "Dora Kalstein was born in Cairo. She lives in 1951. She works as a painter. She plays the cello.",
        "Dora Kalstein was born in 1951. She lives in Cairo. She works as a cello. She plays the painter.",
        "Dora Kalstein was born in 1951. She lives in Cairo. She is a child of a painter. She plays the cello.",
        "1951 Cairo painter cello Dora Kalstein.",
    ],
)
def test_the_right_values_behind_the_wrong_words_are_caught(wrong):
    """All names and values stand there; only the sentences around them say something else."""
    assert same_words(SOURCE, wrong) and problems(SOURCE, wrong)
    assert not problems(
        SOURCE,
        "By trade Dora Kalstein is a painter and lives in Cairo and plays the cello. "
        "It was in 1951 that she was born.",
    )


def test_a_dropped_digit_is_caught_whichever_it_is():
    text = "Alma Berg was born in 1962. She lives in Oslo."
    for place in range(4):
        year = "1962"[:place] + "1962"[place + 1 :]
        assert problems(text, f"In Oslo lives Alma Berg. She was born in {year}.")


def test_a_check_of_words_alone_does_not_see_whose_facts_they_are():
    source = "Alma Berg lives in Oslo. Otto Bach lives in Rome."
    wrong = "Alma Berg lives in Rome. Otto Bach lives in Oslo."
    assert same_words(source, wrong) and len(problems(source, wrong)) == 4
    assert not same_words(source, "Alma Berg lives in Rome.")


def test_a_check_without_context_is_blind_at_the_start_of_a_chunk():
    before, done = (
        "Otto Bach lives in Rome. Alma Berg plays the harp.",
        "Alma Berg plays the harp. Otto Bach lives in Rome.",
    )
    chunk = "She lives in Oslo."
    assert problems(chunk, "She lives in Oslo.") == []  # the wrong version: nobody said who she is
    assert problems(chunk, "She lives in Oslo.", before, done)  # here she would be Otto
    assert problems(chunk, "Alma Berg lives in Oslo.", before, done) == []


def test_a_rewriter_that_errs_loses_nothing_behind_the_check():
    rng = np.random.default_rng(0)

    def careless(chunk, context, rng):
        text = write_chunk(chunk, context, rng)
        return (
            plant(text, str(rng.choice(sorted(planted_errors.ERRORS))), rng) or text
            if rng.random() < 0.5
            else text
        )

    kept = [(text, *rewrite(text, rng, careless)) for text in some_pages(40)]
    assert all(set(read(new)) == set(read(text)) for text, new, _ in kept)
    assert sum(refused for *_, refused in kept) > 20
    loose = [(text, rewrite(text, rng, careless, check=False)[0]) for text in some_pages(40)]
    assert sum(set(read(new)) != set(read(text)) for text, new in loose) > 20


# ------------------------------------------------------------------------------------------ the experiment
@pytest.fixture(scope="module")
def tokenizer():
    return fact_pages.vocabulary()


def read_in(arm: str, tokenizer, epochs: int) -> list[list[str]]:
    """What an arm reads, epoch by epoch: pages only, in their order."""
    texts = reading.wordings(arm, some_pages(4), np.random.default_rng(0), Counter())
    return [texts() for _ in range(epochs)]


def test_the_arms_read_the_same_facts_in_one_wording_or_many(tokenizer):
    raw, one, ten = (read_in(arm, tokenizer, 10) for arm in rephrasing.ARMS)
    facts = [set(read(text)) for text in raw[0]]
    for epochs in (raw, one, ten):
        assert all([set(read(text)) for text in texts] == facts for texts in epochs)
    assert [len({tuple(texts) for texts in epochs}) for epochs in (raw, one, ten)] == [1, 1, 10]
    assert raw[0] == some_pages(4) and set(one[0]).isdisjoint(raw[0])
    sizes = [
        sum(len(tokenizer.encode(text)) for texts in epochs for text in texts) for epochs in (raw, one, ten)
    ]
    assert max(sizes) < 1.1 * min(sizes)


def test_every_word_is_a_token_and_only_answers_are_learned_of_questions(tokenizer):
    person = people(1, np.random.default_rng(0))[0]
    example = fact_pages.question(tokenizer, person, "town")
    learned = tokenizer.decode(example.ids[example.mask])
    assert learned == f" {person.values['town']}[EOS]" and example.mask.sum() == 2
    by_heart = fact_pages.recital(tokenizer, person, "music")
    assert tokenizer.decode(by_heart.ids[by_heart.mask]) == " " + person.values["music"]
    assert tokenizer.decode(by_heart.ids) in page([person])


def test_steps_hold_the_same_tokens_whatever_the_examples(tokenizer):
    examples = [fact_pages.text_example(tokenizer, text) for text in some_pages(30)]
    steps = reading.steps_of(iter([examples] * 10), 5000, 512)
    sizes = [sum(len(example.ids) for example in step) for step in steps]
    assert 5000 <= sum(sizes) < 5000 + 700 and min(sizes) >= 512


def test_right_counts_whole_answers(tokenizer):
    """A model without a head says token 0 every time: right about an answer of zeros, wrong when its end differs."""
    model = tiny_model(vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    mask = np.array([False, False, True, True])
    answers = [
        Example(np.array(ids, np.uint16), mask)
        for ids in ([5, 7, 0, 0], [0, 0, 0, 1], [9, 9, 9, 0], [3, 3, 3, 3])
    ]
    assert reading.right(model, answers) == 0.25


def fake_log(raw, one, ten, refused=100) -> Log:
    log = Log("rephrasing", seeds=[0, 1, 2])
    for arm, values in {"raw": raw, "one": one, "ten": ten}.items():
        for seed, value in enumerate(values):
            for share in rephrasing.RAW_EVERY:
                log.row(seed=seed, arm=arm, raw_pages=share, never_asked=value)
    for kind in ("none", *planted_errors.ERRORS):
        log.row(seed=0, error=kind, planted=100, refused=0 if kind == "none" else refused, refused_by_words=0)
    rephrasing.report(log)
    return log


def test_claims_hold_only_when_they_are_reached():
    good = fake_log([0.2, 0.3, 0.4], [0.4, 0.5, 0.6], [0.5, 0.6, 0.7])
    assert [claim["verdict"] for claim in good.claims] == [HOLDS] * 5 + [OPEN] * 2  # 100 tries show no 1%
    assert good.claims[0]["value"] == pytest.approx(0.3) and good.claims[0]["floor"] == 0.10
    bad = fake_log([0.5, 0.5, 0.5], [0.4, 0.4, 0.4], [0.55, 0.55, 0.55], refused=90)
    assert [claim["verdict"] for claim in bad.claims] == [FAILS] * 3 + [HOLDS, FAILS, FAILS, OPEN]
