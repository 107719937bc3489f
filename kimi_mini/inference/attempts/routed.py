"""Routed mode: a reflex or a thought for each task, as the model itself judges.

    surely     the reflex is written first; what it says is kept where the model was sure of it, else it thinks
    itself     the model opens its turn and decides with its next token: </think> is a reflex, anything else a thought
    forced     the same model held to one of the two, to compare with

An empty thought that the model writes itself is, token for token, the one that a reflex prompt gives: so a reflex that
it chose is the reflex it has. What it writes to choose is counted: two tokens in `itself`, a reflex thrown away in
`surely`.

All that is read here are the tokens of a prompt and the model's own log-probabilities. No task comes in, so no answer
and no verdict: they belong to training, where a threshold is set (`threshold`) or a choice is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kimi_mini.inference.thinking import Prefix, Turn, write
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer

BATCH = 192  # prompts that are answered together
EACH = ("budget", "numbers", "prefixes")  # options of `write` that may be one for each prompt


@dataclass(frozen=True)
class Answered:
    """One prompt, answered: the turn that counts, whether it was thought through, and all tokens it took."""

    turn: Turn
    thought: bool
    tokens: int


class Trial(NamedTuple):
    """A practice task in both modes: how sure the reflex was, whether it was right, whether the thought was."""

    sure: float
    reflex: bool
    thinking: bool


def forced(
    model: KimiMini, tokenizer: Tokenizer, prompts: Sequence[list[int]], thinking: bool, **options
) -> list[Answered]:
    """All prompts in one mode: a closed thought is put in, or an open one. Options as in `write`; the prompts end
    where the assistant takes over, and its tags are counted as its own."""
    think, close = _tags(tokenizer)
    given = Prefix([think], [True], [0.0]) if thinking else Prefix([think, close], [False] * 2, [0.0] * 2)
    turns = write_in_batches(model, tokenizer, prompts, prefixes=[given] * len(prompts), **options)
    return [Answered(turn, thinking, turn.written) for turn in turns]


def sureness(answered: Answered) -> float:
    """The log-probability of the whole turn in nats, 0 at most: of a reflex, how sure the model is of its answer.

    A turn that was cut off has no end, and is as unsure as can be.
    """
    return sum(answered.turn.logprobs) if answered.turn.finish == "stop" else float("-inf")


def surely(
    model: KimiMini, tokenizer: Tokenizer, prompts: Sequence[list[int]], threshold: float, **options
) -> list[Answered]:
    """A reflex for every prompt; those of which it is less sure than `threshold` (nats) are thought through, and have
    cost both."""
    first = forced(model, tokenizer, prompts, False, **options)
    unsure = [index for index, one in enumerate(first) if sureness(one) < threshold]
    options = _cut({"numbers": range(len(prompts)), **options}, unsure)
    again = forced(model, tokenizer, [prompts[index] for index in unsure], True, **options)
    for index, one in zip(unsure, again):
        first[index] = Answered(one.turn, True, first[index].tokens + one.tokens)
    return first


def itself(model: KimiMini, tokenizer: Tokenizer, prompts: Sequence[list[int]], **options) -> list[Answered]:
    """The model chooses: a turn whose thought is empty is a reflex."""
    turns = write_in_batches(model, tokenizer, prompts, **options)
    return [Answered(turn, turn.thought_tokens > 0, turn.written) for turn in turns]


def threshold(trials: Sequence[Trial], share: float) -> float:
    """The lowest threshold, of those between two trials, with which the routed answers are right at least `share`
    times as often as thought-through ones. For practice tasks: what is measured must not set it.

    Infinity, which sends all to a thought, where none is enough. Raises ValueError without trials.
    """
    if not trials:
        raise ValueError("a threshold is set on practice tasks, and there are none")
    ordered = sorted(trials, key=lambda trial: -trial.sure)  # the surest first
    wanted = share * sum(trial.thinking for trial in trials)
    right, best = sum(trial.thinking for trial in trials), float("inf")
    for place, trial in enumerate(ordered):
        right += trial.reflex - trial.thinking
        # equally sure ones go the same way
        ends = place + 1 == len(ordered) or ordered[place + 1].sure < trial.sure
        if ends and right >= wanted:
            best = trial.sure
    return best


def _tags(tokenizer: Tokenizer) -> tuple[int, int]:
    return tokenizer.token_id("<think>"), tokenizer.token_id("</think>")


def write_in_batches(
    model: KimiMini, tokenizer: Tokenizer, prompts: Sequence[list[int]], **options
) -> list[Turn]:
    """`write`, a batch at a time. Every prompt has dice of its own, whatever the batches."""
    turns: list[Turn] = []
    options = {"numbers": range(len(prompts)), **options}
    for start in range(0, len(prompts), BATCH):
        batch = range(len(prompts))[start : start + BATCH]
        turns += write(model, tokenizer, [prompts[index] for index in batch], **_cut(options, batch))
    return turns


def _cut(options: dict, places: Sequence[int]) -> dict:
    """The options of these prompts alone."""
    each = {key: options[key] for key in EACH if isinstance(options.get(key), Sequence)}
    return options | {key: [values[place] for place in places] for key, values in each.items()}
