"""Conversations with tools as a trace viewer shows them: who wrote which token, and what each piece cost.

piece_costs     tokens of each thought, call, result and answer
check_trace     raises ValueError unless a trace shows all that the model wrote and read, and nothing else
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kimi_mini.agent.conversation import Conversation, Segment
from kimi_mini.inference.writer import Marks
from kimi_mini.text import chat
from kimi_mini.text.messages import checked, content_text
from kimi_mini.text.tokenizer import Tokenizer


def piece_costs(conversation: Conversation, tokenizer: Tokenizer) -> list[int]:
    """Tokens of each piece of `pieces(conversation.messages)`, in the same order.

    What the model wrote is counted as it stands, tags and markers included (those of an empty thought go to the next
    piece), so that its pieces add up to `conversation.written`; forced tokens cost nothing. The rest, results and
    questions, is counted as the template renders it. A turn that was cut off inside its only call shows nothing, so
    what it cost is in `written` alone.
    Turns that context management has hidden since cost what they cost. Raises ValueError for a conversation whose
    policy knew no tokens.
    """
    costs, turns = [], iter(_segments(conversation))
    for index, message in enumerate(conversation.messages):
        if message["role"] != "assistant":
            costs += [_rendered(tokenizer, message, first=index == 0)] if message.get("content") else []
            continue
        turn = next(turns)
        calls = message.get("tool_calls") or []
        present = [bool(message.get("reasoning_content")), bool(message.get("content")), *[True] * len(calls)]
        costs += _split_costs(
            turn.ids, turn.own, present, Marks.of(tokenizer), tokenizer.token_id("<|tool_call_end|>")
        )
    return costs


def _segments(conversation: Conversation) -> list[Segment]:
    """The tokens of every assistant turn. Raises ValueError unless there are some for each assistant message."""
    said = sum(message["role"] == "assistant" for message in conversation.messages)
    if said != len(conversation.segments):
        raise ValueError(f"{said} assistant messages, but the tokens of {len(conversation.segments)} turns")
    return conversation.segments


def _rendered(tokenizer: Tokenizer, message: dict, first: bool) -> int:
    """Tokens of a message that the model did not write, as a turn of its own."""
    opening = [] if first else [{"role": "system", "content": ""}]
    return len(chat.encode(tokenizer, [*opening, message])[0]) - len(chat.encode(tokenizer, opening)[0]) * (
        not first
    )


def _split_costs(
    ids: list[int], own: list[bool], present: list[bool], marks: Marks, call_end: int
) -> list[int]:
    """Own tokens of thought, content, call, call, ... of one turn; a part that is not there passes its own on."""
    parts, part = [0] * len(present), 0
    for token, is_own in zip(ids, own):
        if token == marks.calls:
            part = 2
        parts[min(part, len(parts) - 1)] += is_own
        if token == marks.close:
            part = max(part, 1)
        elif token == call_end:
            part += 1
    carried, costs = 0, []
    for cost, here in zip(parts, present):
        carried += cost
        if here:
            costs, carried = [*costs, carried], 0
    if costs:
        costs[-1] += carried
    return costs


def check_trace(
    conversation: Conversation, tokenizer: Tokenizer, messages: Sequence[dict] | None = None
) -> None:
    """Does a trace show what happened, all of it and nothing else? `messages`: if not the conversation's own.

    Every assistant message must be what its tokens parse to, and each thought, answer and call must lie within a run
    of tokens that the model chose itself. What stands between, question and results, must be the tokens that the model
    was given. Raises ValueError that names the first difference.
    """
    shown = list(conversation.messages if messages is None else messages)
    turns, said, truly = _segments(conversation), _exchanges(shown), _exchanges(conversation.messages)
    if len(said) != len(turns) + 1:
        raise ValueError(f"the trace shows {len(said) - 1} turns of the model; it wrote {len(turns)}")
    opening = chat.encode(
        tokenizer, said[0], conversation.tools, add_generation_prompt=True, thinking=conversation.thinking
    )[0]
    if turns and opening != turns[0].context:
        raise ValueError("the trace shows another question than the model was given")
    index = len(said[0])
    following = [*(turn.context for turn in turns[1:]), conversation.ids]
    for turn, context, (message, *results), (_, *given) in zip(turns, following, said[1:], truly[1:]):
        _check_said(index, message, turn, conversation.thinking, tokenizer)
        heard, read = (
            chat.encode_results(tokenizer, some, thinking=conversation.thinking) if some else []
            for some in (results, given)
        )
        before = len(turn.context) + len(turn.ids)
        whole = context[:before] == turn.context + turn.ids  # nothing was hidden before the next turn
        if heard != read or heard != (context[before:] if whole else context[len(context) - len(heard) :]):
            raise ValueError(f"behind message {index} the trace shows other results than the model was given")
        index += 1 + len(results)


def _exchanges(messages: Sequence[dict]) -> list[list[dict]]:
    """What stands before the first turn of the assistant, then each turn with what came back."""
    cuts = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return [list(messages[a:b]) for a, b in pairwise([0, *cuts, len(messages)])]


def _check_said(index: int, message: dict, turn: Segment, thinking: bool, tokenizer: Tokenizer) -> None:
    """Raises ValueError when a shown assistant message is not what the model wrote in this turn."""
    parsed = chat.parse_ids(tokenizer, turn.ids, None if thinking else False)
    runs = _own_runs(turn.ids, turn.own, tokenizer)
    for said, written in zip(_said(message), _said(parsed), strict=False):
        if said != written or not any(said in run for run in runs):
            raise ValueError(f"message {index} shows text that the model did not write: {said!r:.80}")
    if len(_said(message)) != len(_said(parsed)):
        raise ValueError(
            f"message {index} shows {len(_said(message))} texts; the model wrote {len(_said(parsed))}"
        )


def _said(message: dict) -> list[str]:
    """Every text of an assistant message."""
    texts = [message.get("reasoning_content"), content_text(message)]
    for call in message.get("tool_calls") or []:
        texts += [call["id"], call["function"]["name"], call["function"]["arguments"]]
    return [text or "" for text in texts]


def _own_runs(ids: list[int], own: list[bool], tokenizer: Tokenizer) -> list[str]:
    """Text of each unbroken run of the model's own tokens."""
    cuts = [0, *[i for i in range(1, len(ids)) if own[i] != own[i - 1]], len(ids)]
    return [tokenizer.decode(ids[a:b]) for a, b in pairwise(cuts) if a < b and own[a]] or [""]


AUTHORS = {
    "system": "template",
    "user": "user",
    "thought": "model",
    "call": "model",
    "result": "environment",
    "answer": "model",
}


@dataclass(frozen=True)
class Piece:
    """One thing said: its kind, its text, and the index of the message it stands in."""

    kind: str
    text: str
    message: int

    @property
    def author(self) -> str:
        """model, environment, user or template."""
        return AUTHORS[self.kind]


def pieces(messages: Sequence[dict]) -> list[Piece]:
    """Messages (OpenAI's dicts) as pieces; empty ones (the thought of a reflex) are left out.

    A call reads `name {arguments}`, arguments verbatim. Raises ValueError for a message without a known role, and for
    what `text.messages.checked` refuses.
    """
    found: list[Piece] = []
    for index, (message, clean) in enumerate(zip(messages, checked(messages))):
        role, content = clean["role"], clean["content"]
        if role == "assistant":
            said = [("thought", clean["reasoning_content"])]
            calls = [call["function"] for call in message.get("tool_calls") or []]
            said += [("answer", content)] + [
                ("call", f"{call['name']} {call['arguments']}") for call in calls
            ]
        elif role in ("system", "user", "tool"):
            said = [("result" if role == "tool" else role, content)]
        else:
            raise ValueError(f"message {index} has the role {role!r}")
        found += [Piece(kind, text, index) for kind, text in said if text]
    return found
