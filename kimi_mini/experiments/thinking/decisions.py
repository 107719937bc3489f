"""Turn round the decision in a thought of the shop, and see what is bought."""

from __future__ import annotations

from collections.abc import Sequence

from kimi_mini.agent import conversation, loop
from kimi_mini.agent.policy import Reply
from kimi_mini.inference.thinking import Prefix, Turn, write
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task
from kimi_mini.worlds.rows import LIMITS


def conditions(model: KimiMini, tokenizer: Tokenizer, tasks: Sequence[Task]) -> dict:
    """Turn the decision round in the second turn, and look at the orders.

    Only tasks whose two purchases differ and that were on the right way count.
    """
    talks = [
        conversation.opening(task) for task in tasks if task.data["choices"][0] != task.data["choices"][1]
    ]
    for talk in talks:
        conversation.begin(talk, tokenizer)
    advance(model, tokenizer, talks)
    asked = [talk for talk in talks if talk.finish is None]
    turns = write(model, tokenizer, [talk.ids for talk in asked])
    turned = [(talk, flipped(turn, tokenizer, talk.task)) for talk, turn in zip(asked, turns)]
    turned = [(talk, prefix) for talk, prefix in turned if prefix is not None]
    going = [talk for talk, _ in turned]
    advance(model, tokenizer, going, [prefix for _, prefix in turned])
    while going:
        going = [talk for talk in going if talk.finish is None]
        advance(model, tokenizer, going)
    bought = [orders(talk) for talk, _ in turned]
    right = [talk.task.data["bought"][0] for talk, _ in turned]
    other = [
        next(c for c in talk.task.data["choices"] if c not in talk.task.data["bought"]) for talk, _ in turned
    ]
    for talk in talks:
        talk.environment.close()
    return {
        "arm": "decision turned round (shop)",
        "n": len(turned),
        "follows": sum(b == [o] for b, o in zip(bought, other)),
        "stays": sum(b == [r] for b, r in zip(bought, right)),
    }


def advance(
    model: KimiMini,
    tokenizer: Tokenizer,
    talks: Sequence[conversation.Conversation],
    prefixes: Sequence[Prefix] | None = None,
) -> None:
    """One turn of each conversation."""
    turns = write(model, tokenizer, [talk.ids for talk in talks], prefixes=prefixes)
    for talk, turn in zip(talks, turns):
        loop.take_turn(talk, Reply.of(turn), tokenizer, LIMITS)


def flipped(turn: Turn, tokenizer: Tokenizer, task: Task) -> Prefix | None:
    """The turn up to its decision, with yes for no and no for yes; None when the decision is not there or not right."""
    words = {tokenizer.token_id(" yes"): " no", tokenizer.token_id(" no"): " yes"}
    place = next((i for i, token in enumerate(turn.ids) if turn.thought[i] and token in words), None)
    if place is None:
        return None
    right = " yes" if task.data["bought"][0] == task.data["choices"][0] else " no"
    if words[turn.ids[place]] == right:
        return None  # it was about to buy the wrong thing by itself
    return Prefix.cut(turn, place, tokenizer.encode_plain(words[turn.ids[place]]))


def orders(talk: conversation.Conversation) -> list[list]:
    """What stands in the order book: [[item, count], ...]."""
    return [list(row) for row in talk.environment.state.execute("SELECT item, count FROM orders")]
