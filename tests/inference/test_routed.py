"""Routed mode: who is sure answers at once, the others think; all tokens count; a threshold keeps what it has to."""

import pytest
import torch
from tiny import tiny_model

from kimi_mini.inference import writer
from kimi_mini.inference.attempts import routed
from kimi_mini.inference.attempts.routed import Trial, forced, itself, surely, sureness, threshold
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load()
THINK, CLOSE, END, MIDDLE = (
    TOKENIZER.token_id(name) for name in ("<think>", "</think>", "<|im_end|>", "<|im_middle|>")
)
THOUGHT = 10


def prompt(words: str) -> list[int]:
    return chat.encode(TOKENIZER, [{"role": "user", "content": words}], add_generation_prompt=True)[0]


EASY, HARD = prompt("easy"), prompt("hard")


class Judge:
    """Stands in for the decoder: answers 4 at once and 42 after a thought of ten letters; of an easy question it is
    sure (its answer has 9 nats more than anything else), of a hard one less (7). It thinks when the question is hard."""

    def __init__(self, model, rows, max_length):
        self.seen = [[] for _ in range(rows)]

    def extend(self, tokens):
        logits = torch.zeros(len(tokens), TOKENIZER.vocab_size)
        for row, new in enumerate(tokens):
            self.seen[row] += new
            self.wish(self.seen[row], logits[row])
        return logits

    def select(self, rows):
        self.seen = [self.seen[row] for row in rows]

    def wish(self, seen, logits):
        is_easy = seen[: len(EASY)] == EASY
        turn = seen[len(seen) - seen[::-1].index(MIDDLE) :]
        if CLOSE not in turn:
            ends = len(turn) > THOUGHT or (is_easy and len(turn) == 1)
            logits[THINK if not turn else CLOSE if ends else TOKENIZER.token_id("a")] = 20.0
            return
        answer = "4" if turn.index(CLOSE) == 1 else "42"
        place = len(turn) - turn.index(CLOSE) - 1
        said = TOKENIZER.token_id(answer[place]) if place < len(answer) else END
        logits[said] = 20.0 if turn.index(CLOSE) > 1 or said == END else 9.0 if is_easy else 7.0


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.setattr(writer, "Decoder", Judge)
    return tiny_model()


def answers(found):
    return [TOKENIZER.decode([t for t in one.turn.ids if t not in (THINK, CLOSE, END)]) for one in found]


def test_who_is_sure_answers_at_once_and_the_others_have_cost_both(judge):
    sure, unsure = map(sureness, forced(judge, TOKENIZER, [EASY, HARD], False))
    assert unsure < sure < 0
    found = surely(judge, TOKENIZER, [HARD, EASY, HARD], (sure + unsure) / 2)
    assert answers(found) == ["a" * THOUGHT + "42", "4", "a" * THOUGHT + "42"]
    assert [one.thought for one in found] == [True, False, True]
    reflex, whole = 2, THOUGHT + 5  # "4" and the end; <think>, ten letters, </think>, "42" and the end
    assert [one.tokens for one in found] == [reflex + whole, reflex, reflex + whole]
    assert not any(
        one.thought for one in surely(judge, TOKENIZER, [HARD, EASY], unsure)
    )  # as sure as it has to be
    assert all(one.thought for one in surely(judge, TOKENIZER, [HARD, EASY], float("inf")))


def test_a_reflex_that_never_ends_is_unsure(judge):
    cut = forced(judge, TOKENIZER, [EASY], False, max_tokens=1)[0]
    assert cut.turn.finish == "length" and sureness(cut) == float("-inf")


def test_the_model_chooses_with_its_first_token_and_pays_for_the_choice(judge):
    found = itself(judge, TOKENIZER, [EASY, HARD])
    assert answers(found) == ["4", "a" * THOUGHT + "42"]
    assert [(one.thought, one.tokens) for one in found] == [(False, 4), (True, THOUGHT + 5)]
    # the reflex that it chooses is the reflex that it is given
    given = forced(judge, TOKENIZER, [EASY], False)[0]
    assert found[0].turn.ids == given.turn.ids and given.tokens == 2


def test_many_prompts_are_answered_in_their_order(judge):
    found = surely(judge, TOKENIZER, [EASY, HARD] * 150, -0.3)
    assert [one.thought for one in found] == [False, True] * 150
    assert itself(judge, TOKENIZER, []) == surely(judge, TOKENIZER, [], 0.0) == []


def test_each_prompt_has_its_own_budget_in_every_batch_and_when_it_is_asked_again(judge, monkeypatch):
    monkeypatch.setattr(routed, "BATCH", 3)
    budgets = [7, 3, None, 0, 5, 9, 1, 2]
    thoughts = [THOUGHT if budget is None else budget for budget in budgets]
    prompts = [HARD] * len(budgets)
    assert [one.turn.thought_tokens for one in itself(judge, TOKENIZER, prompts, budget=budgets)] == thoughts
    prompts[1:4:2] = [EASY] * 2
    sure, unsure = map(sureness, forced(judge, TOKENIZER, [EASY, HARD], False))
    found = surely(judge, TOKENIZER, prompts, (sure + unsure) / 2, budget=budgets)
    wanted = [0 if prompt == EASY else length for prompt, length in zip(prompts, thoughts)]
    assert [one.turn.thought_tokens for one in found] == wanted


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_the_same_tokens_are_allowed_in_every_batch(judge, monkeypatch, kind):
    monkeypatch.setattr(routed, "BATCH", 2)
    allowed = kind(TOKENIZER.token_id(digit) for digit in "4235")
    found = forced(judge, TOKENIZER, [HARD] * 5, True, budget=1, answer_ids=allowed)
    assert answers(found) == ["a42"] * 5


def test_no_two_prompts_share_dice_and_batches_change_nothing(monkeypatch):
    model, prompts = tiny_model(vocab_size=TOKENIZER.vocab_size), [HARD] * 5
    options = {"temperature": 1.0, "max_tokens": 6, "seed": 3}
    whole = [one.turn.ids for one in itself(model, TOKENIZER, prompts, **options)]
    again = [one.turn.ids for one in surely(model, TOKENIZER, prompts, float("inf"), **options)]
    monkeypatch.setattr(routed, "BATCH", 2)
    assert [one.turn.ids for one in itself(model, TOKENIZER, prompts, **options)] == whole
    assert [one.turn.ids for one in surely(model, TOKENIZER, prompts, float("inf"), **options)] == again
    assert len(set(map(tuple, whole))) == 5


TRIALS = [
    Trial(-0.1, True, True),
    Trial(-0.2, True, True),
    Trial(-0.3, False, True),
    Trial(-0.4, True, True),
    Trial(-0.5, False, True),
    Trial(-0.6, False, False),
]


def routed_right(trials, limit):
    return sum(trial.reflex if trial.sure >= limit else trial.thinking for trial in trials)


@pytest.mark.parametrize(
    ("share", "found"), [(1.0, -0.2), (0.8, -0.4), (0.81, -0.2), (0.6, -0.6), (1.01, float("inf"))]
)
def test_a_threshold_is_the_lowest_that_keeps_its_share_of_the_right_answers(share, found):
    assert threshold(TRIALS[::-1], share) == found
    assert found == float("inf") or routed_right(TRIALS, found) >= share * 5
    lower = [trial.sure for trial in TRIALS if trial.sure < found]
    assert all(routed_right(TRIALS, limit) < share * 5 for limit in lower)


def test_equally_sure_ones_go_the_same_way_and_no_trials_set_no_threshold():
    alike = [Trial(-0.1, True, True), Trial(-0.1, False, True)]
    assert threshold(alike, 1.0) == float("inf") and threshold(alike, 0.5) == -0.1
    with pytest.raises(ValueError):
        threshold([], 0.9)
