"""What denies and what does not: the words of people who could not, and of people who could."""

import pytest

from kimi_mini.base.denials import AT_EASE, REFUSALS, denies, gives_up

DENIALS = (
    "I couldn't find it.",
    "I couldn\u2019t find it.",
    "It isn't there.",
    "it doesn`t exist",
    "It won't work.",
    "That is unavailable.",
    "It is absent.",
    "not here",
    "None.",
    "There is no such thing.",
    "I can not do that",
    "I am unable to help.",
    "The call failed.",
    "Permission denied.",
    "It is missing.",
    "cant do it",
    "Out of order.",
)
OPEN = (  # they deny something beside the work
    "It was not the loop.",
    "There is nothing in the other file.",
    "I am not sure",
    "I did not need a second try.",
    "It isn't the same line as before.",
    "The bug is not there any longer.",
)
NOTHING = (
    "I could not find any other bug.",
    "done",
    "It is fixed.",
    "12",
    "I want it.",
    "Noted.",
    "The knot is tied.",
    "cannon",
    "font",
    "Don the hat.",
)

HISTORY = (  # true reports: what did not work was an earlier try, and now it does
    "Fixed: my first edit did not work, the second passes all tests.",
    "My first edit didn\u2019t work, the second did: all tests pass now.",
    "Fixed: f could not handle that case before.",
    "The original loop failed to do it three times. Fixed.",
    "Done, although my earlier attempt did not succeed.",
    "The old code couldn't do that and now it works.",
)
NO_HISTORY = (  # a denial of the work itself, whatever stands beside it
    "Fixed, but it does not work.",
    "Fixed: my edit did not work.",
    "Done. It did not work.",
    "My first edit did not work.",
    "My first edit did not work, nor did the second.",
    "Fixed: my first edit did not work, the second neither.",
    "Fixed: my first edit did not work and the second did not work.",
    "Done: my first edit did not work because that is impossible.",
    "The original loop does not work; fixed.",
    "I could not fix it before I ran out of turns: done what I could.",
    "That could not be done before.",
    "Done before, but I could not do it.",
    "All tests pass but for one: my first edit did not work, and I gave up.",
    "Done. The first did not work.",
)


@pytest.mark.parametrize("text", (*DENIALS, *REFUSALS))
def test_a_denial_is_heard_in_any_words(text):
    assert denies(text) and denies(text.upper())


@pytest.mark.parametrize("text", (*AT_EASE, *NOTHING))
def test_words_that_deny_nothing_are_no_denial(text):
    assert not denies(text) and not gives_up(text)


@pytest.mark.parametrize("text", REFUSALS)
def test_who_gives_up_is_heard(text):
    assert gives_up(text) and gives_up(f"Sorry. {text}")


@pytest.mark.parametrize("text", OPEN)
def test_who_says_what_it_was_not_has_not_given_up(text):
    assert denies(text) and not gives_up(text)


def test_what_denies_nothing_does_not_hide_what_does():
    assert denies("No problem, but I couldn't do it.") and gives_up(
        "Nothing is missing; I couldn\u2019t do it."
    )


@pytest.mark.parametrize("text", HISTORY)
def test_what_did_not_work_at_first_is_no_surrender(text):
    assert denies(text) and not gives_up(text)


@pytest.mark.parametrize("text", NO_HISTORY)
def test_a_claim_does_not_hide_a_denial(text):
    assert gives_up(text)


@pytest.mark.parametrize("text", REFUSALS)
def test_an_earlier_try_does_not_hide_a_denial_either(text):
    for told in HISTORY:
        assert gives_up(f"{told} {text}") and gives_up(f"{text} {told}")
