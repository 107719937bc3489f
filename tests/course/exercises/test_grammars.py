"""The grammar of paraphrases of notebook 05: what is new, clear and the same task passes; a wording that changes the
task does not, because the work on it does not pass the desk's verifier."""

import re

import pytest

from kimi_mini.course.exercises import grammars as ex
from kimi_mini.worlds.desk.language.frames import FRAMES, HELD_OUT_FRAMES, VOICES, voice

COPY = """
Pass the {word} of {a} [on|along] to {b}.
{b} [inherits|borrows|receives] its {word} from {a}.
[As of now|From today|Henceforth], the {word} of {b} [equals|is] that of {a}.
What {a} has as {word} [goes|moves] into {b}, too.
"""
BRANCH = """
{word} of {a}: is it [below|under|lower than] {limit}? [Yes|If so]: {then}. No: {other}.
[Please|Kindly] {then}, but only for a {word} of {a} under {limit}; for all else {other}.
[Where|In case] {a} has a {word} of {limit} or more, {other}; [where|in case] it has less, {then}.
You {then} [so|as] long as the {word} of {a} is less than {limit}, and {other} from there on.
"""
ASK = """
{list}: [any|some|a|which] {word}? / [Report|Note] the {word} that {list} [has|have].
[Our|My] form has a gap at {word} for {list}. / Who can say the {word} of {list}, [please|today]?
"""


def swapped(text, one, other):
    return re.sub(rf"\{{({one}|{other})\}}", lambda match: f"{{{other if match[1] == one else one}}}", text)


@pytest.mark.parametrize(("grammar", "pattern"), [(COPY, "copy"), (BRANCH, "branch"), (ASK, "ask")])
def test_a_grammar_of_new_wordings_passes(grammar, pattern):
    found = ex.check_grammar(grammar, pattern)
    assert found and "new wordings" in found.text, found


@pytest.mark.parametrize(
    ("grammar", "pattern", "hint"),
    [
        (..., "copy", "begin with"),
        ("", "copy", "begin with"),
        (COPY, "trace", "the clerk reads"),
        (swapped(COPY, "a", "b"), "copy", "changes the task"),
        (COPY + "{a} [gets|takes] its {word} from {b}.", "copy", "changes the task"),
        (COPY + "{b} and {a}, one {word}.", "copy", "who gives and who gets"),
        (COPY + "{b} gets it all from {a}.", "copy", "leaves out {word}"),
        (COPY + "Into {b}, for {n} days, from {a}: {word}.", "copy", "{n} is no slot"),
        (COPY + "{b} gets {word from {a}: {word}.", "copy", "a word between braces"),
        (COPY + "{b} gets its {word} from Tom's {a}.", "copy", "apostrophe"),
        (COPY + "{b} [gets|takes its {word} from {a}.", "copy", "every ["),
        (COPY + "{b} [gets|[has to] take] its {word} from {a}.", "copy", "every ["),
        (COPY + HELD_OUT_FRAMES["copy"][-1], "copy", "is held out"),
        (COPY + "Bring {b} into line with {a}, {word} first.", "copy", "bring into line with"),
        (
            COPY + "What {a} has as {word} goes to {b}, and so on down and down to the bottom.",
            "copy",
            "a leak",
        ),
        ("\n".join(FRAMES["copy"]), "copy", "0 wordings"),
        (COPY.replace("|", ""), "copy", "4 wordings"),
        ("[Hand|Send|Move|Push] the {word} of {a} [over|on|out|up] to {b}.", "copy", "in the same order"),
        (
            COPY + "[a|b|c] [a|b|c] [a|b|c] [a|b|c] [a|b|c] {b} gets its {word} from {a}.",
            "copy",
            "are plenty",
        ),
        (swapped(BRANCH, "then", "other"), "branch", "changes the task"),
        (BRANCH.replace("under", "at most"), "branch", "changes the task"),
        (BRANCH.replace("less than", "no more than"), "branch", "changes the task"),
        (BRANCH.replace("or more", "or less"), "branch", "changes the task"),
        (BRANCH + "Mind {limit}: {word} of {a}, {then}, {other}.", "branch", "when is which"),
        (ASK + "Say the lowest {word} of {list}.", "ask", "changes the task"),
        (ASK + "What {word} has {list} in total?", "ask", "changes the task"),
    ],
)
def test_a_grammar_that_changes_the_task_or_leaks_gets_a_hint(grammar, pattern, hint):
    found = ex.check_grammar(grammar, pattern)
    assert not found and hint in found.text, found


@pytest.mark.parametrize(
    ("pattern", "frame"),
    [
        ("copy", "Let the {word} in {a} overwrite the one in {b}."),
        ("copy", "The {word} stored for {a} is also right for {b}."),
        ("copy", "{a} and {b} must agree on the {word}; trust {a}."),
        ("branch", "If {limit} is greater than the {word} of {a}, {then}, else {other}."),
        ("branch", "In case {limit} exceeds the {word} of {a}, {then}; in all other cases {other}."),
        ("branch", "If {limit} does not exceed the {word} of {a}, {other}, else {then}."),
        ("copy", "Paste the {word} of {a} over the one of {b}."),
        ("copy", "{a} shares its {word} with {b}."),
        ("branch", "{word} of {a} under {limit}? No: {other}. Yes: {then}."),
        ("branch", "Is the {word} of {a} below {limit}? If not, {other}; if so, {then}."),
        ("branch", "{then} unless the {word} of {a} is {limit} or more; then {other}."),
        ("branch", "Unless the {word} of {a} is below {limit}, {other}; if it is, {then}."),
        ("branch", "{other}, except when the {word} of {a} is below {limit}: then {then}."),
        ("branch", "Normally {other}; but if {a} has a {word} below {limit}, {then}."),
        ("branch", "If the {word} of {a} is not at least {limit}, {then}, else {other}."),
        ("ask", "To sum up, and in at most a minute: the {word} of {list}?"),
    ],
)
def test_the_clerk_reads_other_good_wordings(pattern, frame):
    ex._try_work(pattern, frame, ex._plans(pattern))


@pytest.mark.parametrize(
    ("pattern", "frame", "hint"),
    [
        ("copy", "Do not copy the {word} from {a} to {b}.", "'not'; say it without a negation"),
        ("copy", "Give {b} twice the {word} of {a}.", "twice"),
        ("copy", "Delete {b}, it has the {word} from {a}.", "delete"),
        ("copy", "{a} and {b} must agree on the {word}; trust {b}.", "who gives and who gets"),
        ("copy", "Tell me the {word} of {a} and of {b}, nothing goes to {b} from {a}.", "tell me"),
        ("branch", "If {limit} is below the {word} of {a}, {then}, else {other}.", "changes the task"),
        ("branch", "If {limit} is less than the {word} of {a}, {then}, else {other}.", "changes the task"),
        ("branch", "If {limit} is at least the {word} of {a}, {then}, else {other}.", "changes the task"),
        ("branch", "If the {word} of {a} is never below {limit}, {then}, else {other}.", "changes the task"),
        ("branch", "If the {word} of {a} is anything but below {limit}, {then}, else {other}.", "changes"),
        ("branch", "If the {word} of {a} is below {limit}, do not {then}, else {other}.", "do not"),
        ("branch", "If the {word} of {a} is below half of {limit}, {then}, else {other}.", "half"),
        ("branch", "{word} of {a} under {limit}? No: {then}. Yes: {other}.", "changes the task"),
        ("branch", "Is the {word} of {a} below {limit}? If not, {then}; if so, {other}.", "changes the task"),
        ("branch", "{other} unless the {word} of {a} is {limit} or more; then {then}.", "changes the task"),
        (
            "branch",
            "{then}, except when the {word} of {a} is below {limit}: then {other}.",
            "changes the task",
        ),
        ("branch", "Normally {then}; but if {a} has a {word} below {limit}, {other}.", "changes the task"),
        ("copy", "Add the {word} of {a} to that of {b}.", "'add'"),
        ("copy", "Swap the {word} of {a} with that of {b}.", "'swap'"),
        ("ask", "Delete the {word} of {list}.", "'delete'"),
        ("ask", "What do the {word} of {list} make when added up?", "changes the task"),
        (
            "branch",
            "If the {word} of {a} is below {limit}, {then}, and in any case {other}.",
            "a second deed",
        ),
    ],
)
def test_the_clerk_is_not_taken_in(pattern, frame, hint):
    with pytest.raises(ex.Hint, match=hint):
        ex._try_work(pattern, frame, ex._plans(pattern))


@pytest.mark.parametrize("pattern", ex.READ)
def test_the_clerk_reads_every_wording_in_plain_english(pattern):
    """And none of them with two slots exchanged: the verifier refuses the work on each."""
    plans = ex._plans(pattern)
    exchanged = {"copy": ("a", "b"), "branch": ("then", "other")}.get(pattern)
    for frame in (*voice("plain")[pattern], *HELD_OUT_FRAMES[pattern]):
        ex._try_work(pattern, frame, plans)
        if exchanged:
            with pytest.raises(ex.Hint, match="changes the task"):
                ex._try_work(pattern, swapped(frame, *exchanged), plans)


def read(pattern, frame):
    """Whether the clerk reads a wording as it is meant; None where it asks for other words."""
    if re.search(ex.ASIDE[pattern], frame.lower()):
        return None
    if pattern == "copy":
        return {"a": True, "b": False, None: None}[ex.giver(frame)]
    if (says := ex.condition(frame)) is None:
        return None
    return says == ("less" if frame.index("{then}") < frame.index("{other}") else "more")


@pytest.mark.parametrize(("pattern", "share"), [("copy", 0.85), ("branch", 0.8)])
def test_no_wording_of_any_voice_is_misread(pattern, share):
    """The clerk may ask for plainer words, but never takes a right wording for a wrong one."""
    found = {frame: read(pattern, frame) for name in VOICES for frame in voice(name)[pattern]}
    assert len(found) > 250 and [frame for frame, right in found.items() if right is False] == []
    assert sum(map(bool, found.values())) >= share * len(found)
