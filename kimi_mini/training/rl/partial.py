"""Partial rollouts: who is not done with an attempt when a round ends goes on with it in the next one.

A round waits for its longest attempt, and most of the batch has ended long before. So an attempt may write
`RLConfig.segment_tokens` tokens a round; then it is paused, in the middle of a turn if need be, and goes on with the
weights of the next round beside attempts that begin there. A group is updated on in the round in which the last of its
attempts ends; if none has ended, all go on at once.

Only what was sampled in the round of the update is fresh. The rest is stale: it keeps the log-probabilities it was
sampled with, by older weights at the temperature of their round. Objectives that bound the ratio of each token keep it
in the loss, where K2.5's mask drops tokens that have drifted too far; the others (k2, reinforce, rloo) leave it out.

Nothing of an environment is saved: it is deterministic, so that the turns, taken once more, bring all of it back.

Source: K2 report, 3.3; k1.5, 2.6.2 (unfinished attempts go to a buffer; only the current segment is fresh).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.policy import LocalPolicy, Reply
from kimi_mini.base import ranks
from kimi_mini.base.errors import KimiError
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Drawn


@dataclass
class Group:
    """K attempts at a task, the round and the place in it that they began in."""

    drawn: Drawn
    round: int
    place: int
    attempts: list[Conversation]

    @property
    def finished(self) -> bool:
        """Whether all of them have ended."""
        return all(conversation.finish is not None for conversation in self.attempts)


@dataclass
class Backlog:
    """The groups that are not finished, oldest first."""

    groups: list[Group] = field(default_factory=list)

    def sample(
        self,
        model: KimiMini,
        tokenizer: Tokenizer,
        config: RLConfig,
        drawn: Sequence[Drawn],
        dice: tuple[float, int],
        index: int,
    ) -> list[Group]:
        """Begin a group at each drawn task, let all groups write a segment, and hand out those that are finished: at
        least one, if there is any. dice: temperature and seed of round `index`. KimiError where several
        processes share the work."""
        if ranks.is_on():
            raise KimiError(
                "partial rollouts (segment_tokens) need one process: the groups would not be dealt evenly"
            )
        for place, task in enumerate(drawn):
            attempts = [loop.begun(task.task(), tokenizer, config.limits) for _ in range(config.attempts)]
            self.groups.append(Group(task, index, place, attempts))
        while True:
            waiting = dict(self._waiting(config, index))
            for conversation in waiting:
                conversation.round = index
            numbers = list(waiting.values())
            policy = LocalPolicy(
                model, tokenizer, *dice, numbers=numbers, segment=config.segment_tokens, loops=config.loops
            )
            loop.converse(policy, list(waiting), tokenizer, config.limits)
            done = [group for group in self.groups if group.finished]
            if done or not self.groups:
                self.groups = [group for group in self.groups if not group.finished]
                return done

    def _waiting(self, config: RLConfig, index: int) -> Iterator[tuple[Conversation, int]]:
        """The attempts that have not ended, and a number for each that no other has in this round."""
        for group in self.groups:
            first = ((index - group.round) * config.prompts + group.place) * config.attempts
            for attempt, conversation in enumerate(group.attempts):
                if conversation.finish is None:
                    yield conversation, first + attempt

    @property
    def waiting(self) -> int:
        """How many attempts have not ended."""
        return sum(c.finish is None for group in self.groups for c in group.attempts)

    def close(self) -> None:
        """Give up what is not finished."""
        for conversation in (c for group in self.groups for c in group.attempts):
            conversation.environment.close()
        self.groups = []

    def saved(self) -> list[dict]:
        """All of it as plain numbers, words and lists."""
        return [
            {
                "drawn": list(group.drawn),
                "round": group.round,
                "place": group.place,
                "attempts": [_turns(conversation) for conversation in group.attempts],
            }
            for group in self.groups
        ]

    @classmethod
    def restored(cls, saved: Sequence[dict], tokenizer: Tokenizer, config: RLConfig) -> Backlog:
        """What `saved` has given: every attempt begins anew and takes the same turns."""
        backlog = cls()
        for entry in saved:
            drawn = Drawn(*entry["drawn"])
            attempts = [_again(drawn, turns, tokenizer, config) for turns in entry["attempts"]]
            backlog.groups.append(Group(drawn, entry["round"], entry["place"], attempts))
        return backlog


def stale_share(groups: Sequence[Sequence[Conversation]], index: int) -> float:
    """The share of the tokens of these attempts that was sampled before round `index`."""
    segments = [segment for group in groups for c in group for segment in c.segments]
    written = [(sum(segment.own), segment.round < index) for segment in segments]
    return sum(count for count, stale in written if stale) / max(1, sum(count for count, _ in written))


def _turns(conversation: Conversation) -> list[dict]:
    """What a conversation was told to write, turn by turn."""
    turns = [
        {
            "round": segment.round,
            "ids": segment.ids,
            "own": segment.own,
            "logprobs": segment.logprobs,
            "finish": "stop" if segment.ends else "paused",
        }
        for segment in conversation.segments
    ]
    if conversation.finish in ("length", "loops"):
        turns[-1]["finish"] = conversation.finish
    return turns


def _again(drawn: Drawn, turns: Sequence[dict], tokenizer: Tokenizer, config: RLConfig) -> Conversation:
    """A conversation that has taken these turns."""
    conversation = loop.begun(drawn.task(), tokenizer, config.limits)
    for turn in turns:
        conversation.round = turn["round"]
        reply = Reply(turn["ids"], turn["logprobs"], turn["finish"], turn["own"])
        loop.take_turn(conversation, reply, tokenizer, config.limits)
    return conversation
