"""Checkers for the exercises of notebook 05 (tools and the agent loop)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

from kimi_mini.course.exercises.base import Checked, checker, value_of
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.tools import Tool, Toolbox
from kimi_mini.worlds.tools.schema import jsonschema

LEARNED = (  # (piece, does the model think?, is it trained on?, hint)
    ("thought", True, True, "the model wrote its thought itself: that is what it has to learn"),
    ("call", True, True, "a call is the model's own; it learns to act by being trained on it"),
    ("call", False, True, "a call is the model's own in reflex mode too: only the thought was given"),
    ("answer", True, True, "an answer is the model's own, with or without a thought before it"),
    ("answer", False, True, "an answer is the model's own, with or without a thought before it"),
    ("end", True, True, "without its <|im_end|> the model never learns to stop"),
    ("end", False, True, "a reflex has to learn to stop too"),
    (
        "result",
        True,
        False,
        "a result comes from the environment: trained on it, a model invents results of its own",
    ),
    ("result", False, False, "a result comes from the environment in either mode"),
    ("user", True, False, "the user's words are given; the model need not learn to ask them"),
    ("user", False, False, "the user's words are given in either mode"),
    ("system", True, False, "the system prompt is given"),
    ("system", False, False, "the system prompt is given"),
    ("opening", True, False, "the opening <|im_assistant|>assistant<|im_middle|> is put there by the loop"),
    ("opening", False, False, "the opening <|im_assistant|>assistant<|im_middle|> is put there by the loop"),
    ("think tags", True, True, "a thinking model opens and closes its thought itself"),
    (
        "think tags",
        False,
        False,
        "in reflex mode the prompt gives the empty tags: the model did not choose them",
    ),
)


@checker
def check_learned(function: Callable[[str, bool], bool]) -> Checked:
    """function(piece, thinking) is whether the loss counts that piece's tokens."""
    for piece, thinking, right, hint in LEARNED:
        value = value_of(function, piece, thinking)
        if bool(value) != right:
            return Checked(False, f"{piece!r}, thinking={thinking}: {hint}")
    return Checked(True, "exactly the tokens that were sampled from the model")


REFUNDS = (  # (arguments, do they pass?, hint)
    ({"item": "red fig", "count": 2}, True, "the reason is optional"),
    ({"item": "red fig", "count": 9, "reason": "late"}, True, "9 and 'late' are allowed"),
    ({"item": "red fig", "count": 5, "reason": "damaged"}, True, "all of 1 to 9 and 'damaged' are allowed"),
    ({"count": 2}, False, "an item is required"),
    ({"item": "red fig"}, False, "a count is required"),
    ({"item": "red fig", "count": "two"}, False, "count must be an integer"),
    ({"item": "red fig", "count": 2.5}, False, "half an item cannot be counted: `integer`, not `number`"),
    ({"item": 5, "count": 2}, False, "an item is text: `string`"),
    ({"item": "red fig", "count": 0}, False, "count begins at 1: look for `minimum`"),
    ({"item": "red fig", "count": 10}, False, "count ends at 9: look for `maximum`"),
    ({"item": "red fig", "count": 1, "reason": "mood"}, False, "only two reasons exist: look for `enum`"),
    (
        {"item": "red fig", "count": 1, "reason": None},
        False,
        "who gives no reason leaves it out: null is none of the two",
    ),
    (
        {"item": "red fig", "count": 1, "colour": "red"},
        False,
        "arguments that you do not name are refused by `additionalProperties: False`",
    ),
    ({"item": "", "count": 1}, False, "an empty item is none: look for `minLength`"),
)


@checker
def check_refund_schema(schema: dict) -> Checked:
    """schema: parameters of a tool refund(item, count from 1 to 9, optional reason damaged or late)."""
    if not isinstance(schema, dict) or not schema:
        return Checked(False, 'begin with {"type": "object", "properties": {...}, "required": [...]}')
    try:
        box = Toolbox([Tool("refund", "", schema, lambda **arguments: "ok")])
    except (ValueError, TypeError) as error:
        return Checked(False, f"no tool takes this schema: {error}")
    for arguments, right, hint in REFUNDS:
        # a Tool closes an open schema itself
        if jsonschema.Draft202012Validator(schema).is_valid(arguments) != right:
            return Checked(False, f"{json.dumps(arguments)} {'is refused' if right else 'passes'}: {hint}")
    return Checked(
        True, f"{len(REFUNDS)} calls sorted; what the model would read: {box.call('refund', '{}').content}"
    )


MARK = "<|tool_call_argument_begin|>"
CALLS = (  # (id, arguments, name, hint)
    ("functions.price:0", '{"item":"red fig"}', "price", "the plain case"),
    ("functions.buy:12", "{}", "buy", "the index may have several digits"),
    ("search-web:3", "{}", "search-web", "some models leave out `functions.`, and a name may hold a -"),
    ("functions.note:1", '{"t":"12:30.5"}', "note", "arguments may hold : and ."),
    (
        "functions.buy:0",
        "{broken",
        "buy",
        "broken JSON is passed on as it stands: the tool says what is wrong with it",
    ),
    (" next:4 ", "{}", "next", "spaces around the id do not matter"),
    (
        "functions.note:2",
        f'{{"t":"{MARK}"}} ',
        "note",
        "arguments are passed on as they stand, with a marker in them and a blank at their end",
    ),
)


@checker
def check_parse_call(function: Callable[[str], tuple[str, str]]) -> Checked:
    """function(body of one call) is (name, arguments text)."""
    for call_id, arguments, name, hint in CALLS:
        text = f"{call_id}{MARK}{arguments}"
        value = value_of(function, text, case=f"for {text!r} ")
        if (tuple(value) if isinstance(value, list) else value) != (name, arguments):
            return Checked(False, f"{text!r} gives {value!r}: {hint}")
    return Checked(True, "a lenient parser keeps calls that a strict one loses")


def _dialogue(turns: int) -> list[dict]:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    for index in range(turns):
        message = turn(f"t{index}", call=("next", {"item": str(index)}))
        message["tool_calls"][0]["id"] = f"functions.next:{index}"
        messages += [
            message,
            {"role": "tool", "tool_call_id": f"functions.next:{index}", "content": f"r{index}"},
        ]
    return messages


@checker
def check_hide_turns(function: Callable[[list[dict], int], list[dict]]) -> Checked:
    """function(messages, keep) is the context with all but the last `keep` turns hidden, calls and results."""
    for turns, keep in ((6, 2), (3, 1), (2, 4), (4, 3), (3, 0)):
        messages = _dialogue(turns)
        value = value_of(function, copy.deepcopy(messages), keep)
        if value == messages[:2] + messages[max(2, len(messages) - 2 * keep) :]:
            continue
        if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
            return Checked(False, "return the messages that stay, as a list")
        if value[:2] != messages[:2]:
            return Checked(
                False, "what the system and the user said stays: without it the model forgets its task"
            )
        if keep == 0:
            return Checked(
                False, "keep=0 hides every turn, and a slice from -0 hides none: count from the front"
            )
        if turns <= keep:
            return Checked(False, f"with {turns} turns and keep={keep} nothing has to be hidden")
        roles = [message.get("role") for message in value[2:]]
        if roles[:1] == ["tool"]:
            return Checked(
                False, "a result without its call is left in front: a turn is a call and its result"
            )
        return Checked(
            False,
            f"of {turns} turns and keep={keep} these stay: {roles.count('assistant')} calls, "
            f"{roles.count('tool')} results",
        )
    return Checked(True, "the context stays short, so a chain of 300 calls looks like the end of a short one")
