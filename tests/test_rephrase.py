"""Rewriting keeps every fact; the check finds what a rewriter got wrong, and cheaper checks do not."""

import numpy as np
import pytest

from kimi_mini import rephrase
from kimi_mini.rephrase import Fact, page, people, plant, problems, read, rewrite, same_words, write_chunk


def some_pages(count: int, seed: int = 0) -> list[str]:
    everybody = people(3 * count, np.random.default_rng(seed))
    return [page(everybody[i : i + 3]) for i in range(0, 3 * count, 3)]


def test_people_have_names_of_their_own():
    rng = np.random.default_rng(0)
    first = people(200, rng)
    second = people(200, rng, frozenset(person.name for person in first))
    assert len({person.name for person in first + second}) == 400
    with pytest.raises(ValueError, match="names are left"):
        people(10_000, rng)


def test_a_page_says_what_its_people_are():
    group = people(3, np.random.default_rng(0))
    assert read(page(group)) == [fact for person in group for fact in person.facts]
    assert read("He lives in Oslo.", "Alma Berg lives in Rome. Otto Bach plays the harp.") == [Fact("Otto Bach", "town", "Oslo")]
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


@pytest.mark.parametrize("error", rephrase.ERRORS)
def test_every_planted_error_is_caught(error):
    rng, planted = np.random.default_rng(0), 0
    for text in some_pages(60):
        wrong = plant(rewrite(text, rng)[0], error, rng)
        if wrong is not None:
            planted += 1
            assert problems(text, wrong), wrong
    assert planted >= 40


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
    before, done = "Otto Bach lives in Rome. Alma Berg plays the harp.", "Alma Berg plays the harp. Otto Bach lives in Rome."
    chunk = "She lives in Oslo."
    assert problems(chunk, "She lives in Oslo.") == []  # the wrong version: nobody said who she is
    assert problems(chunk, "She lives in Oslo.", before, done)  # here she would be Otto
    assert problems(chunk, "Alma Berg lives in Oslo.", before, done) == []


def test_a_rewriter_that_errs_loses_nothing_behind_the_check():
    rng = np.random.default_rng(0)

    def careless(chunk, context, rng):
        text = write_chunk(chunk, context, rng)
        return plant(text, str(rng.choice(sorted(rephrase.ERRORS))), rng) or text if rng.random() < 0.5 else text

    kept = [(text, *rewrite(text, rng, careless)) for text in some_pages(40)]
    assert all(set(read(new)) == set(read(text)) for text, new, _ in kept)
    assert sum(refused for *_, refused in kept) > 20
    loose = [(text, rewrite(text, rng, careless, check=False)[0]) for text in some_pages(40)]
    assert sum(set(read(new)) != set(read(text)) for text, new in loose) > 20
