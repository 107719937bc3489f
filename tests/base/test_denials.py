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
