"""The picture of a conversation shows every piece in order, and keeps its size while a slider moves."""

import pytest
from drawn import texts

from kimi_mini.agent import traces
from kimi_mini.course.figures import trace

MESSAGES = [
    {"role": "system", "content": "You are Kimi."},
    {"role": "user", "content": "Price of <b>fig</b> & $x$?"},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "ask first",
        "tool_calls": [
            {"id": "functions.price:0", "function": {"name": "price", "arguments": '{"item": "fig"}'}}
        ],
    },
    {"role": "tool", "name": "price", "tool_call_id": "functions.price:0", "content": '{"price":7}'},
    {"role": "assistant", "content": "7", "reasoning_content": ""},
]


def test_pieces_are_what_was_said_by_whom_in_order():
    found = [(p.kind, p.author, p.text) for p in traces.pieces(MESSAGES)]
    assert found == [
        ("system", "template", "You are Kimi."),
        ("user", "user", "Price of <b>fig</b> & $x$?"),
        ("thought", "model", "ask first"),
        ("call", "model", 'price {"item": "fig"}'),  # arguments as they were written, spaces and all
        ("result", "environment", '{"price":7}'),
        ("answer", "model", "7"),
    ]
    with pytest.raises(ValueError, match="role"):
        traces.pieces([{"role": "wizard", "content": "x"}])


def test_content_in_parts_and_a_thought_by_another_name_are_shown():
    """As render reads them: a figure and a prompt say the same."""
    parts = [{"type": "text", "text": "Price of "}, {"type": "text", "text": "fig?"}]
    answer = {"role": "assistant", "content": parts[1:], "reasoning": "so"}
    found = [(p.kind, p.text) for p in traces.pieces([{"role": "user", "content": parts}, answer])]
    assert found == [("user", "Price of fig?"), ("thought", "so"), ("answer", "fig?")]
    assert "Price of fig?" in texts(trace.trace_figure([{"role": "user", "content": parts}]))
    with pytest.raises(ValueError, match="message 0: content"):
        traces.pieces([{"role": "user", "content": 5}])


def test_trace_figure_steps_without_changing_its_size():
    sizes = set()
    for step in range(1, 7):
        fig = trace.trace_figure(MESSAGES, step, tokens=[3, 9, 2, 8, 4, 1])
        shown = texts(fig)
        for index, piece in enumerate(traces.pieces(MESSAGES)):
            assert (piece.text in shown) == (index < step)
        assert any(
            f"step {step} of 6" in t and f"{sum([3, 9, 2, 8, 4, 1][:step])} tokens so far" in t for t in shown
        )
        sizes.add(tuple(fig.get_size_inches()))
    assert len(sizes) == 1


def test_a_long_trace_keeps_the_newest_in_sight_and_long_lines_whole():
    messages = [{"role": "user", "content": f"line {i}"} for i in range(200)]
    fig = trace.trace_figure(messages, step=150)
    assert "line 149" in texts(fig) and "line 150" not in texts(fig) and "line 100" not in texts(fig)
    assert any("earlier pieces" in t for t in texts(fig)) and fig.get_size_inches()[1] < 11
    words = " ".join(f"word{i}" for i in range(60))
    lines = texts(trace.trace_figure([{"role": "user", "content": words}]))
    assert words in "".join(line for line in lines if "word" in line)
