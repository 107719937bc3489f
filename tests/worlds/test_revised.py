"""Sequential revision of a repair: the user tells what the public tests say, and nothing that is hidden."""

import random

import pytest
from tiny import typed

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import act, opening
from kimi_mini.agent.policy import Reply
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.repair.code import INPUTS, LINE_MARKS, PUBLIC
from kimi_mini.worlds.repair.revised import failing, revised, reviser
from kimi_mini.worlds.repair.world import Workbench
from kimi_mini.worlds.rows import Limits


class Speller:
    """A policy of which `spell(conversation)` gives the tokens of each turn."""

    to_the_end = False

    def __init__(self, spell):
        self.spell = spell

    def open(self, conversations, context):
        pass

    def reply(self, conversations, max_tokens):
        turns = [self.spell(conversation) for conversation in conversations]
        return [Reply(ids, [0.0] * len(ids), "stop") for ids in turns]


LIMITS = Limits(turn_tokens=160, turns=16, context=1024)


@pytest.fixture(scope="module")
def tasks():
    rng = random.Random(0)
    return [worlds.generate(rng, "repair", 2 + i % 3) for i in range(12)]


def edit(at, code):
    return turn("end", call=("edit", {"line": LINE_MARKS[at], "code": code}))


def wrong_edit(task):
    """An edit of a line that was right: nothing that any test likes."""
    return edit((task.data["at"] + 1) % task.level, "x = 999")


def test_the_user_says_how_many_public_tests_fail_and_shows_the_first():
    wanted = [x + y for x, y in INPUTS]
    assert failing(Workbench(["x = x + y"], wanted)) is None
    said = failing(Workbench(["if x < 5: x = x + y"], wanted))
    assert said == "2 of 4 tests fail\nf(5, 4) gave 5, wanted 9"
    assert failing(Workbench(["x = x + z"], wanted)).startswith("4 of 4 tests fail\nf(1, 2) gave ")


def test_the_user_knows_no_hidden_test():
    """Mutant: all tests are run for the model."""
    for hidden in range(PUBLIC, len(INPUTS)):
        wanted = [x + y for x, y in INPUTS]
        wanted[hidden] += 1
        assert failing(Workbench(["x = x + y"], wanted)) is None
        wanted[0] += 1
        assert failing(Workbench(["x = x + y"], wanted)) == "1 of 4 tests fail\nf(1, 2) gave 3, wanted 4"


def test_nobody_asks_behind_the_last_round(tasks):
    for rounds in range(3):
        place = revised(tasks[0], rounds)
        said = [place.user_turn("fixed") for _ in range(4)]
        assert [one is not None for one in said] == [True] * rounds + [False] * (4 - rounds)


def test_the_expert_puts_right_whatever_was_done_to_the_file(tasks):
    rng = random.Random(1)
    for task in tasks:
        talk = opening(task)
        act(talk, wrong_edit(task))
        for at in rng.sample(range(task.level), rng.randrange(task.level)):
            act(talk, edit(at, rng.choice(["pass", "x = 7", "y"])))
        for message in reviser(task, talk.environment.state.lines):
            act(talk, message)
        assert talk.environment.state.lines == task.data["right"]
        assert failing(talk.environment.state) is None


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_revision_goes_on_in_the_same_conversation_until_the_tests_pass(tasks, rounds):
    """Wrong at first, then told, then as the expert does it; and with no round left it stays wrong."""
    tokenizer, scripts = Tokenizer.load(), {}
    talks = [loop.begun(task, tokenizer, LIMITS) for task in tasks]
    for talk in talks:
        talk.environment = revised(talk.task, rounds)
        scripts[talk] = iter([wrong_edit(talk.task), turn("end", content="fixed")])

    def spell(talk):
        if talk.messages[-1]["role"] == "user" and talk.turns:
            scripts[talk] = reviser(talk.task, talk.environment.state.lines)
        said = next(scripts[talk])
        for call in said.get("tool_calls") or []:
            call["id"] = f"functions.edit:{talk.calls}"
        return typed(tokenizer, said)

    loop.converse(Speller(spell), talks, tokenizer, LIMITS)
    for talk in talks:
        asked = [message for message in talk.messages if message["role"] == "user"]
        assert len(asked) == 1 + min(rounds, 1), "told once, and not again once the tests pass"
        assert talk.verdict().passed == bool(rounds), talk.verdict()
        assert talk.finish == "stop"
