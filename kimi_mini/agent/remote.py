"""A policy that asks an endpoint: the same loop, tools and verifiers for a model that anybody serves.

The loop numbers calls functions.NAME:INDEX; engines have ids of their own (call_8f2a, or the same one every turn). What
an engine wrote goes back to it as it was written, ids and thoughts under its own name for them: some refuse a tool
message whose call they do not know, or whose thought is missing. So every turn is kept in both forms: the n-th message
of the assistant in the conversation is the n-th that was given, and so are the calls in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.endpoint import Endpoint, Refused
from kimi_mini.agent.outcome import THOUGHTS, Outcome
from kimi_mini.agent.policy import Answer
from kimi_mini.base.errors import KimiError
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.base import Message

FORM = "Answer with the bare value."  # what our agents know from training, and their tasks do not say
OURS = ("thinking", "finish", "errors")  # fields of our messages that are nobody else's business


class RemotePolicy:
    """Asks for the next turn of each conversation, as many at a time as the endpoint allows.

    temperature, seed: of the exam, unless the endpoint has a temperature of its own; the seed goes out only where
    something is sampled. numbers: see LocalPolicy; here they tell attempts at the same task apart. A conversation that
    the endpoint refuses has ended: with "context" where it is too long, with "refused" where the model may have written
    what nobody can read back. A first turn that is refused for another reason is a fault of the request and ends
    everything (KimiError).

    Contexts are not counted and nothing is hidden: an endpoint has its own limit. What a search has found stands in its
    result and is not declared anew, as in every loop here; an endpoint that holds calls to names must read it there, as
    ours does.
    """

    to_the_end = False

    def __init__(
        self,
        endpoint: Endpoint,
        temperature: float = 0.0,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
    ):
        self.endpoint, self.temperature, self.seed, self.given_numbers = endpoint, temperature, seed, numbers
        self.given: dict[
            Conversation, list[Message]
        ] = {}  # the assistant's messages as the endpoint wrote them
        self.numbers: dict[Conversation, int] = {}

    def open(self, conversations: Sequence[Conversation], context: int) -> None:
        self.given = {conversation: [] for conversation in conversations}
        numbers = range(len(conversations)) if self.given_numbers is None else self.given_numbers
        self.numbers = dict(zip(conversations, numbers, strict=True))

    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Answer | None]:
        requests = [self._request(conversation, max_tokens) for conversation in conversations]
        outcomes = self.endpoint.ask_all(requests)
        return [self._answer(*pair) for pair in zip(conversations, outcomes)]

    def _request(self, conversation: Conversation, max_tokens: int) -> tuple[str, dict]:
        number, own = self.numbers[conversation], self.endpoint.temperature
        temperature = self.temperature if own is None else own
        messages = list(as_given(conversation.messages, self.given[conversation]))
        told = self.endpoint.form and WORLDS[conversation.task.world].bare
        request = {
            "messages": told_the_form(messages) if told else messages,
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        if conversation.tools:
            request["tools"] = conversation.tools
        if temperature:
            request["seed"] = (self.seed * 1_000_003 + number * 1009 + conversation.turns) % 2**31
        if not conversation.thinking:
            request["extra_body"] = self.endpoint.thinking_off
        return f"{number}/{conversation.turns}", request

    def _answer(self, conversation: Conversation, outcome: Outcome | Refused) -> Answer | None:
        if isinstance(outcome, Refused):
            if not (outcome.full or conversation.turns):
                raise KimiError(f"{self.endpoint.url} refuses the first turn of a task: {outcome}")
            conversation.finish = "context" if outcome.full else "refused"
            self.endpoint.counts[conversation.finish] += 1
            return None
        cut = outcome.finish == "length"
        self.endpoint.counts["length"] += cut
        self.given[conversation].append(outcome.message)
        message = ours(outcome.message)
        if not conversation.thinking and not message["reasoning_content"]:
            message["thinking"] = False
        return Answer(message, "length" if cut else "stop", outcome.usage)


def told_the_form(messages: list[Message]) -> list[Message]:
    """The conversation with a system message that also says which form an answer has."""
    system, rest = "", messages
    if messages[0]["role"] == "system":
        system, rest = f"{messages[0]['content']} ", messages[1:]
    return [{"role": "system", "content": system + FORM}, *rest]


def ours(given: Message) -> Message:
    """A message as the loop wants it: the thought under our name, and calls that it will number itself.

    Calls count wherever they are: engines end such a turn with tool_calls or with stop. Their arguments stay as they
    were written, encoded twice or not; the toolbox tells the model what is wrong. An engine without a parser leaves
    the thought in the text, without its <think> where that belongs to the prompt.
    """
    thought, content = next((given[name] for name in THOUGHTS if given.get(name)), ""), given.get("content")
    if not thought and "</think>" in (content or ""):
        thought, _, content = content.lstrip().removeprefix("<think>").partition("</think>")
    message: Message = {"role": "assistant", "content": content, "reasoning_content": thought}
    if given.get("tool_calls"):
        message["tool_calls"] = [{**deepcopy(call), "id": None} for call in given["tool_calls"]]
    return message


def as_given(messages: Sequence[Message], given: Sequence[Message]) -> Iterator[Message]:
    """The conversation in the endpoint's own words: its last len(given) assistant messages are those that it wrote.

    The results behind a turn answer its calls in their order. A call that came without an id has ours. Where the
    endpoint has told a thought, a turn without one has an empty one: Moonshot's refuses it otherwise.
    """
    named = next(({name: ""} for message in given for name in THOUGHTS if name in message), {})
    first = sum(message["role"] == "assistant" for message in messages) - len(given)
    turns, ids = 0, iter(())
    for message in messages:
        if message["role"] == "tool":
            yield {**message, "tool_call_id": next(ids, None) or message["tool_call_id"]}
        elif message["role"] != "assistant":
            yield message
        else:
            calls = message.get("tool_calls") or []
            own = {**named, **given[turns - first]} if turns >= first else _plain(message)
            turns += 1
            ids = iter([call["id"] for call in own.get("tool_calls") or []])
            if calls:
                filled = [
                    {**theirs, "id": theirs["id"] or call["id"]}
                    for theirs, call in zip(own["tool_calls"], calls)
                ]
                own = {**own, "tool_calls": filled}
            yield own


def _plain(message: Message) -> Message:
    return {key: value for key, value in message.items() if key not in OURS}
