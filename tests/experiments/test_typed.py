"""What is typed by hand: every request can be met, and what looks like it is not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from kimi_mini.experiments.verifiers import typed
from kimi_mini.experiments.verifiers.typed_requests import DESKS, NAME, REQUESTS, tools_of


def work(request, calls, answer, finish="stop"):
    """Those calls through the real tools, then that answer: whether the request is met."""
    desk, tools = tools_of(request.desk)
    by_name = {tool.name: tool.function for tool in tools}
    for name, *arguments in calls:
        by_name[name](*arguments)
    said = [{"role": "assistant", "content": answer}]
    return typed.met(request, desk, SimpleNamespace(finish=finish, messages=said))


def right(request):
    return (*request.reads, *request.deeds), "I have no tool for that." if request.refuse else ", ".join(
        request.says
    ) or "done"


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.text)
def test_the_right_work_meets_it_and_less_or_more_does_not(request_):
    calls, answer = right(request_)
    assert work(request_, calls, answer)
    assert not work(request_, calls, answer, finish="length")
    assert not work(request_, calls, "done" if request_.refuse else "I have no tool for that.")
    for call in calls:
        assert not work(request_, [other for other in calls if other != call], answer)
    deed = {"shop": "order", "library": "lend", "office": "pay", "garden": "water"}.get(request_.desk)
    if deed:
        name = next(iter(DESKS[request_.desk][1]))
        assert not work(request_, [*calls, (deed, name, 88)], answer)
    for word in request_.says:
        assert not work(request_, calls, answer.replace(word, "-"))


def test_what_is_done_twice_or_with_another_number_is_not_what_was_asked():
    (request,) = (one for one in REQUESTS if one.text == "Order 2 {red lamp}.")
    assert not work(request, [("order", "red lamp", 2)] * 2, "done")
    assert not work(request, [("order", "red lamp", 3)], "done")
    assert work(request, [("price_of", "red lamp"), ("order", "Red Lamp", 2)], "done")


def test_a_thing_that_is_not_there_is_an_error_and_no_call():
    desk, tools = tools_of("shop")
    for tool, more in zip(tools, ((), (), (3,))):
        with pytest.raises(ValueError, match="green hat is not there"):
            tool.function("green hat", *more)
    assert desk.called == []


def test_names_that_can_be_looked_up_are_in_the_tables_and_missing_ones_are_not():
    assert len(REQUESTS) > 50 and {one.desk for one in REQUESTS} == set(DESKS)
    for request in REQUESTS:
        names = [name.lower() for name in NAME.findall(request.text)]
        there = [name in DESKS[request.desk][1] for name in names]
        assert all(there) is (request.kind != "missing") or request.kind == "no tool"
        assert request.refuse is (request.kind in ("missing", "no tool", "talk"))


def test_names_stand_with_quotes_or_without():
    request = replace(REQUESTS[0], text="Pay {Anna} and {John Smith}.")
    assert request.typed(True) == 'Pay "Anna" and "John Smith".'
    assert request.typed(False) == "Pay Anna and John Smith."


def test_no_sentence_is_a_trained_one_word_by_word():
    """A name that stands in the exam of the desk would be no leak, but a whole sentence would be recall of its form;
    the shortest questions are the same in every mouth, and these are the only ones."""
    from kimi_mini.worlds.desk.language.frames import FRAMES, LATER, PLAIN

    trained = [frame for frames in (*FRAMES.values(), *PLAIN.values(), *LATER.values()) for frame in frames]
    forms = {frame.format_map(Blank()).rstrip(".?!") for frame in trained}
    same = [one.text for one in REQUESTS if blank(one) in forms]
    assert len(same) <= len(REQUESTS) / 5, same


class Blank(dict):
    def __missing__(self, key):
        return "_"


def blank(request):
    """The sentence with a blank for each name and for the column's word."""
    text = NAME.sub("_", request.text).rstrip(".?!")
    for word in ("price", "stock", "temperature", "rain", "pages", "age", "boss", "height", "sequel"):
        text = text.replace(word, "_")
    return text
