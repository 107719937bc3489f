"""Right and plausible wrong answers to the exercises of notebook 05."""

import json

from kimi_mini.course.exercises import agent as ex

MARK = "<|tool_call_argument_begin|>"


def learned(piece, thinking):
    return thinking if piece == "think tags" else piece in ("thought", "call", "answer", "end")


def parse_call(text):
    call_id, _, arguments = text.partition(MARK)
    return call_id.strip().rpartition(":")[0].removeprefix("functions."), arguments


def hide(messages, keep):
    return messages[:2] + messages[max(2, len(messages) - 2 * keep) :]


def two_parts(text):
    call_id, arguments = text.split(MARK)
    return parse_call(call_id)[0], arguments


RIGHT = [(ex.check_learned, learned), (ex.check_parse_call, parse_call), (ex.check_hide_turns, hide)]


WRONG = [
    (ex.check_learned, lambda piece, thinking: True, "environment"),
    (ex.check_learned, lambda piece, thinking: piece in ("thought", "call", "answer", "think tags"), "stop"),
    (
        ex.check_learned,
        lambda piece, thinking: piece in ("thought", "call", "answer", "end", "think tags"),
        "reflex",
    ),
    (ex.check_learned, lambda piece, thinking: piece in ("call", "answer", "end"), "thought"),
    (ex.check_parse_call, lambda text: (text.split(".")[1].split(":")[0], text.split(MARK)[1]), "IndexError"),
    (ex.check_parse_call, lambda text: (text.split(":")[0].split(".")[-1], text.split(MARK)[1]), "spaces"),
    (ex.check_parse_call, lambda text: (parse_call(text)[0], text.split(MARK)[1]), "as they stand"),
    (ex.check_parse_call, lambda text: (parse_call(text)[0], parse_call(text)[1].strip()), "as they stand"),
    (ex.check_parse_call, two_parts, MARK + "\"} ' your function raised"),
    (ex.check_parse_call, lambda text: (parse_call(text)[0], json.loads(parse_call(text)[1])), "plain"),
    (ex.check_hide_turns, lambda messages, keep: messages[-2 * keep :], "forgets its task"),
    (ex.check_hide_turns, lambda messages, keep: messages[:2] + messages[-keep:], "these stay: 1 calls"),
    (
        ex.check_hide_turns,
        lambda messages, keep: messages[:2] + messages[-2 * keep :],
        "nothing has to be hidden",
    ),
    (
        ex.check_hide_turns,
        lambda messages, keep: messages[:2] + messages[2:][1 - 2 * keep :],
        "result without its",
    ),
    (ex.check_hide_turns, lambda messages, keep: 3, "list"),
    (ex.check_hide_turns, lambda messages, keep: messages[:2] + messages[2:][-2 * keep :], "a slice from -0"),
    (
        ex.check_learned,
        lambda piece, thinking: learned(piece, thinking) and (thinking or piece != "call"),
        "reflex",
    ),
    (
        ex.check_learned,
        lambda piece, thinking: learned(piece, thinking) and (thinking or piece != "end"),
        "reflex",
    ),
]
