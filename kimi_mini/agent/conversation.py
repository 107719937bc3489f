"""One task being worked on: its messages, and the very tokens the model has seen and written."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kimi_mini.inference.writer import inside_thought
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import WORLDS, Environment, Task, Verdict
from kimi_mini.worlds.base import Message
from kimi_mini.worlds.rows import Limits

CUT_OFF = {
    "length": "the turn did not end",
    "loops": "the same words again and again",
    "turns": "too many turns",
    "context": "the context is full",
    "repeats": "the same calls again and again",
    "refused": "the endpoint refused a turn",
}


@dataclass(frozen=True)
class Segment:
    """One turn of a model as tokens, with the context it was written in.

    tokens, start: the context is tokens[:start]; turns that follow on each other share one list, which only grows.
    ids: the turn; own: True where the model chose the token (False for a forced </think>); logprobs: of its own tokens
    when they were sampled, 0 elsewhere. round: of training, in which they were sampled. ends: False where the turn was
    paused and goes on in the next segment.
    """

    tokens: list[int]
    start: int
    ids: list[int]
    own: list[bool]
    logprobs: list[float]
    round: int = 0
    ends: bool = True

    @property
    def context(self) -> list[int]:
        """All tokens before the turn."""
        return self.tokens[: self.start]


@dataclass(eq=False)
class Conversation:
    """A task with everything said so far.

    `ids` is the context as it stands, `mask` marks what the model wrote itself, `turn_starts` are the turns in it that
    may be hidden: those behind the user's last words, which end at `prompt_length`. `segments` keeps every turn with
    the context it was sampled in, also when context management has hidden it since: training stands on them.
    """

    task: Task
    messages: list[Message]
    environment: Environment
    thinking: bool = True
    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turn_starts: list[int] = field(default_factory=list)
    prompt_length: int = 0
    turns: int = 0  # all of them, the hidden ones too
    calls: int = 0
    written: int = 0
    finish: str | None = None
    segments: list[Segment] = field(default_factory=list)
    part: list[int] = field(default_factory=list)  # the tokens of a turn that was paused
    round: int = 0  # of training, in which the next tokens are sampled

    @property
    def tools(self) -> list[dict] | None:
        """Declarations for the template, or None for a task without tools."""
        box = self.environment.toolbox
        return box.declarations() if box else None

    def verdict(self) -> Verdict:
        """What the world's verifier says of the messages and the final state.

        An attempt that was cut off (by tokens, turns or context) has not done its task, whatever state it left: the
        scoreboard, filters and rewards all read it here.
        """
        if self.finish in CUT_OFF:
            return Verdict(False, f"cut off: {CUT_OFF[self.finish]}")
        return WORLDS[self.task.world].verify(self.task, self.messages, self.environment)


def opening(task: Task, thinking: bool = True) -> Conversation:
    """System prompt and the user's words, in a freshly opened environment."""
    return Conversation(task, first_messages(task), WORLDS[task.world].open_environment(task), thinking)


def first_messages(task: Task) -> list[Message]:
    """The system message, if there is one, and the user's words."""
    system = [] if task.system is None else [{"role": "system", "content": task.system}]
    return [*system, {"role": "user", "content": task.prompt}]


def act(conversation: Conversation, message: Message) -> list[Message]:
    """Append an assistant message, run its calls, append and return the tool messages; decide whether it ends here."""
    conversation.messages.append(message)
    results = []
    box = conversation.environment.toolbox
    for call in message.get("tool_calls") or []:
        name = call["function"]["name"]
        if call.get("id") is None:
            call["id"] = f"functions.{name}:{conversation.calls}"
        conversation.calls += 1
        text = (
            box.call(name, call["function"]["arguments"]).content
            if box
            else "error: no tools are declared here"
        )
        results.append({"role": "tool", "name": name, "tool_call_id": call["id"], "content": text})
    conversation.messages += results
    if not results:
        conversation.finish = "stop"
    return results


def write(
    conversation: Conversation, ids: list[int], own: list[bool], logprobs: list[float], ends: bool = True
) -> None:
    """Append a turn of the model, or a part of one, and keep it as a segment."""
    start = len(conversation.ids)
    conversation.segments.append(
        Segment(conversation.ids, start, ids, own, logprobs, conversation.round, ends)
    )
    if not conversation.part:
        conversation.turn_starts.append(start)
    conversation.part = [] if ends else conversation.part + ids
    conversation.ids += ids
    conversation.mask += own
    conversation.logprobs += logprobs
    conversation.written += sum(own)


def training_rows(
    conversation: Conversation, since: int = 0
) -> list[tuple[list[int], list[bool], list[float]]]:
    """(ids, mask, log-probabilities) of as few sequences as hold every turn in the context it was sampled in.

    A turn whose context continues the row before it is appended to that row; after old turns or thoughts were hidden a
    new row begins, in which what is kept of them is context and not learned a second time. So are segments that were
    sampled before the round `since`.
    """
    rows: list[tuple[list[int], list[bool], list[float]]] = []
    for segment in conversation.segments:
        context = segment.context
        if not rows or context[: len(rows[-1][0])] != rows[-1][0]:
            rows.append(([], [], []))
        ids, mask, logprobs = rows[-1]
        heard = context[len(ids) :]
        ids += heard + segment.ids
        fresh = segment.round >= since
        mask += [False] * len(heard) + [own and fresh for own in segment.own]
        logprobs += [0.0] * len(heard) + segment.logprobs
    return rows


def observe(conversation: Conversation, ids: Iterable[int]) -> None:
    """Append tokens that the environment wrote."""
    ids = list(ids)
    conversation.ids += ids
    conversation.mask += [False] * len(ids)
    conversation.logprobs += [0.0] * len(ids)


def begin(conversation: Conversation, tokenizer: Tokenizer) -> None:
    """Tokenise the opening, up to where the model takes over."""
    ids, _ = chat.encode(
        tokenizer,
        conversation.messages,
        conversation.tools,
        add_generation_prompt=True,
        thinking=conversation.thinking,
    )
    observe(conversation, ids)
    conversation.prompt_length = len(ids)


def has_room(conversation: Conversation, limits: Limits) -> bool:
    """Whether one more turn fits into the context."""
    return len(conversation.ids) + limits.turn_tokens <= limits.context


def stuck(conversation: Conversation, repeats: int) -> bool:
    """Whether the last `repeats` turns made the same calls, and were told the same."""
    turns: list[tuple[list, list]] = []
    results: list[str] = []
    for message in reversed(conversation.messages):
        if message["role"] == "tool":
            results.append(message["content"])
            continue
        turns.append(([call["function"] for call in message.get("tool_calls") or []], results))
        results = []
        if not turns[-1][0] or turns[-1] != turns[0]:
            return False
        if len(turns) == repeats:
            return True
    return False


def make_room(conversation: Conversation, limits: Limits, tokenizer: Tokenizer) -> None:
    """Hide what the limits say; what a model wrote or read stays in `segments` and in `messages`."""
    if limits.hide == "results":
        hide_old_results(conversation, limits.keep_turns, tokenizer)
    else:
        hide_old_turns(conversation, min(1, limits.keep_turns) if limits.hide == "all" else limits.keep_turns)


def hide_old_results(conversation: Conversation, keep: int, tokenizer: Tokenizer) -> None:
    """Shorten the context by the results of all turns but the last `keep`; every call stays, and so do the results of
    the last turn, which nobody has read yet. Only what the template opened counts as a result, whatever it says."""
    opens, closes = tokenizer.special["<|im_system|>"], tokenizer.special["<|im_end|>"]
    starts, places, inside = conversation.turn_starts, [], False
    kept_from = starts[max(0, len(starts) - max(1, keep))] if starts else len(conversation.ids)
    for place, (token, own) in enumerate(zip(conversation.ids, conversation.mask)):
        inside |= conversation.prompt_length <= place < kept_from and not own and token == opens
        if not inside:
            places.append(place)
        inside &= token != closes
    _keep(conversation, places)
    conversation.turn_starts = [bisect_left(places, start) for start in starts]


def hide_old_turns(conversation: Conversation, keep: int) -> None:
    """Shorten the context to the prompt and the last `keep` turns with their results; 0 hides them all.

    A turn begins after a generation prompt, which stays. `segments` are not touched.
    """
    kept = conversation.turn_starts[max(0, len(conversation.turn_starts) - keep) :]
    start, prompt = kept[0] if kept else len(conversation.ids), conversation.prompt_length
    _keep(conversation, [*range(prompt), *range(start, len(conversation.ids))])
    conversation.turn_starts = [begin - (start - prompt) for begin in kept]


def hear(conversation: Conversation, tokenizer: Tokenizer) -> None:
    """Tokenise what the user has just said, up to where the model takes over again.

    Behind an answer the thoughts of the turns that led to it are history, which K2's template drops (see text.chat):
    they leave the context, and what is left of those turns is not learned in it. A new chain of calls begins.
    """
    thought = inside_thought(conversation.ids, tokenizer)
    if any(thought):
        _keep(conversation, [place for place, inside in enumerate(thought) if not inside])
        conversation.mask = [False] * len(conversation.ids)
    observe(
        conversation,
        chat.encode_results(tokenizer, conversation.messages[-1:], thinking=conversation.thinking),
    )
    conversation.prompt_length, conversation.turn_starts = len(conversation.ids), []


def _keep(conversation: Conversation, places: Sequence[int]) -> None:
    """New lists of the tokens at these places; those of before stay as they are, for the segments."""
    for name in ("ids", "mask", "logprobs"):
        values = getattr(conversation, name)
        setattr(conversation, name, [values[place] for place in places])
