"""Thinking mode: budgets that bind, traces that show only what was written, choices compared at equal tokens."""

import dataclasses
import random

import pytest
import torch
from tiny import tiny_model, typed

from kimi_mini import worlds
from kimi_mini.agent import conversation, loop, traces
from kimi_mini.agent.policy import Reply
from kimi_mini.agent.traces import pieces
from kimi_mini.evaluation.attention import attention_rows
from kimi_mini.inference import writer
from kimi_mini.inference.api import respond, respond_all, response
from kimi_mini.inference.thinking import Prefix, Turn, corrupt, write
from kimi_mini.inference.writer import Row
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.rows import LIMITS

TOKENIZER = Tokenizer.load()
THINK, CLOSE, END = (TOKENIZER.token_id(name) for name in ("<think>", "</think>", "<|im_end|>"))
ASK = [{"role": "system", "content": "You are Kimi."}, {"role": "user", "content": "How many?"}]
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
]


class Thinker:
    """Stands in for the decoder: a model that thinks `LENGTH` letters when it is left to, then answers 42."""

    LENGTH = 30

    def __init__(self, model, rows, max_length):
        self.seen = [[] for _ in range(rows)]

    def extend(self, tokens):
        logits = torch.zeros(len(tokens), TOKENIZER.vocab_size)
        for row, new in enumerate(tokens):
            self.seen[row] += new
            logits[row, self.wish(self.seen[row])] = 9.0
        return logits

    def select(self, rows):
        self.seen = [self.seen[row] for row in rows]

    def wish(self, seen):
        turn = seen[len(seen) - seen[::-1].index(TOKENIZER.token_id("<|im_middle|>")) :]
        if CLOSE not in turn:
            return THINK if not turn else CLOSE if len(turn) > self.LENGTH else TOKENIZER.token_id("a")
        answer = [TOKENIZER.token_id("4"), TOKENIZER.token_id("2"), END]
        return answer[len(turn) - turn.index(CLOSE) - 1]


@pytest.fixture
def thinker(monkeypatch):
    monkeypatch.setattr(writer, "Decoder", Thinker)
    return tiny_model()


def prompt(is_thinking=True):
    return chat.encode(TOKENIZER, ASK, add_generation_prompt=True, thinking=is_thinking)[0]


# ----------------------------------------------------------------------------------------------------- budgets
def check_budget(model):
    """What a budget has to keep, for a model that would rather think 30 tokens."""
    budgets = [0, 1, 7, 29, 30, 31, None]
    turns = write(model, TOKENIZER, [prompt()] * len(budgets), budget=budgets)
    for budget, turn in zip(budgets, turns):
        fits = budget is None or budget >= Thinker.LENGTH
        assert turn.thought_tokens == (Thinker.LENGTH if fits else budget)
        text = TOKENIZER.decode(turn.ids)
        assert (
            text == "<think>" + "a" * turn.thought_tokens + "</think>42<|im_end|>"
        )  # closed, and still an answer
        assert turn.finish == "stop"
        assert turn.was_cut is not fits
        assert turn.own[turn.ids.index(CLOSE)] is fits  # whose </think> is it?
        assert turn.written == len(turn.ids) - (not fits)
        usage = response(turn, TOKENIZER)["usage"]
        assert usage["completion_tokens"] == turn.written
        details = {"reasoning_tokens": turn.thought_tokens, "forced_tokens": int(not fits)}
        assert usage["completion_tokens_details"] == details


def test_a_budget_binds_and_the_model_still_answers(thinker):
    check_budget(thinker)


def ignored(draft, token, logprob):
    draft.budget = None
    TAKE(draft, token, logprob)


def one_too_many(draft, token, logprob):
    draft.budget = None if draft.budget is None else draft.budget + 1
    TAKE(draft, token, logprob)
    draft.budget = None if draft.budget is None else draft.budget - 1


def counted_as_own(draft, token, logprob):
    TAKE(draft, token, logprob)
    draft.own = [True] * len(draft.own)


def ends_without_an_answer(draft, token, logprob):
    TAKE(draft, token, logprob)
    if not draft.own[-1]:
        draft.finish = "stop"


def cuts_what_just_fits(draft, token, logprob):
    if draft.budget is not None and draft.thinking and sum(draft.thought) == draft.budget and token == CLOSE:
        token = TOKENIZER.token_id("a")
    TAKE(draft, token, logprob)


def limits_everything_written(draft, token, logprob):
    if (
        draft.budget is not None
        and len(draft.ids) - 1 >= draft.budget
        and not draft.thinking
        and CLOSE in draft.ids
    ):
        token = END
    TAKE(draft, token, logprob)


TAKE = Row.take
WRONG_BUDGETS = [
    ignored,
    one_too_many,
    counted_as_own,
    ends_without_an_answer,
    cuts_what_just_fits,
    limits_everything_written,
]


@pytest.mark.parametrize("mutant", WRONG_BUDGETS)
def test_a_budget_that_is_not_enforced_is_caught(thinker, monkeypatch, mutant):
    monkeypatch.setattr(Row, "take", mutant)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_budget(thinker)


def test_a_forced_stop_that_is_not_fed_is_caught(thinker, monkeypatch):
    """Mutant: the model goes on with its thought, the record says it is closed."""
    extend, other = Thinker.extend, [TOKENIZER.token_id("a")]
    fed = lambda decoder, tokens: extend(decoder, [other if new == [CLOSE] else new for new in tokens])
    monkeypatch.setattr(Thinker, "extend", fed)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_budget(thinker)


class Defiant(Thinker):
    """Thinks on in its answer when it is stopped: two more letters."""

    def wish(self, seen):
        turn = seen[len(seen) - seen[::-1].index(TOKENIZER.token_id("<|im_middle|>")) :]
        if CLOSE in turn and turn.index(CLOSE) <= self.LENGTH:
            return TOKENIZER.token_id("a") if len(turn) - turn.index(CLOSE) <= 2 else END
        return super().wish(seen)


def test_behind_a_hard_stop_the_answer_can_be_held_to_its_form(monkeypatch):
    monkeypatch.setattr(writer, "Decoder", Defiant)
    digits = [TOKENIZER.token_id(digit) for digit in "0123456789"]
    free, held, whole = (
        write(tiny_model(), TOKENIZER, [prompt()], budget=budget, answer_ids=ids, max_tokens=40)[0]
        for budget, ids in ((5, None), (5, digits), (None, digits))
    )
    assert "</think>a" in TOKENIZER.decode(free.ids)  # it defies the stop
    answer = held.ids[held.ids.index(CLOSE) + 1 :]
    assert set(answer) <= {*digits, END} and held.own.count(False) == 1
    assert TOKENIZER.decode(whole.ids).startswith(
        "<think>" + "a" * 30
    )  # a thought that nobody stopped is left alone


def test_one_budget_or_one_a_row(thinker):
    turns = write(thinker, TOKENIZER, [prompt()] * 2, budget=5)
    assert [turn.thought_tokens for turn in turns] == [5, 5]
    for wrong in ({"budget": -1}, {"budget": [1]}, {"budget": [1, -2]}, {"prefixes": []}):
        with pytest.raises(ValueError):
            write(thinker, TOKENIZER, [prompt()] * 2, **wrong)
    assert write(thinker, TOKENIZER, []) == []


def test_at_max_tokens_the_turn_is_cut_off_and_says_so(thinker):
    turn = write(thinker, TOKENIZER, [prompt()], max_tokens=10)[0]
    assert (turn.finish, turn.written) == ("length", 10)
    assert response(turn, TOKENIZER)["choices"][0]["finish_reason"] == "length"
    assert response(turn, TOKENIZER)["choices"][0]["message"]["content"] is None


def test_rows_do_not_depend_on_their_neighbours():
    """A batch of different prompts and budgets writes what each row writes alone."""
    model = tiny_model()
    prompts = [prompt()[:-2], prompt(), prompt(False), prompt()[3:]]
    together = write(model, TOKENIZER, prompts, budget=[3, None, 2, 0], max_tokens=12)
    alone = [
        write(model, TOKENIZER, [p], budget=b, max_tokens=12)[0] for p, b in zip(prompts, [3, None, 2, 0])
    ]
    without_rounding = lambda turn: dataclasses.replace(turn, logprobs=[round(p, 3) for p in turn.logprobs])
    assert [*map(without_rounding, together)] == [*map(without_rounding, alone)]
    hot = [
        write(model, TOKENIZER, prompts[:n], max_tokens=12, temperature=1.0, seed=5)[0].ids for n in (1, 2, 4)
    ]
    assert hot[0] == hot[1] == hot[2]  # a row throws dice of its own


def test_budget_zero_is_reflex_in_other_words(thinker):
    """The tokens that the answer sees are the same; only who wrote the tags differs."""
    cut, reflex = (
        write(thinker, TOKENIZER, [prompt()], budget=0)[0],
        write(thinker, TOKENIZER, [prompt(False)])[0],
    )
    assert cut.prompt + cut.ids == reflex.prompt + reflex.ids
    assert (cut.written, reflex.written) == (4, 3)


# ---------------------------------------------------------------------------------------------------- responses
def turn_of(message, given=()):
    ids = typed(TOKENIZER, message)
    thought, inside = [], False
    for token in ids:
        inside = inside and token not in (CLOSE, TOKENIZER.token_id("<|tool_calls_section_begin|>"))
        thought.append(inside)
        inside = inside or token == THINK
    return Turn(
        [1], ids, [index not in given for index in range(len(ids))], thought, "stop", [-0.5] * len(ids)
    )


CALL = {"id": "functions.look:0", "type": "function", "function": {"name": "look", "arguments": "{}"}}
SAID = {"role": "assistant", "content": "7", "reasoning_content": "so"}
CALLED = {"role": "assistant", "content": None, "reasoning_content": "let me see", "tool_calls": [CALL]}


def test_a_response_has_the_shape_of_the_api():
    answered = response(turn_of(SAID), TOKENIZER)
    assert answered["choices"] == [{"index": 0, "message": SAID, "finish_reason": "stop"}]
    called = response(turn_of(CALLED), TOKENIZER)
    assert called["choices"] == [{"index": 0, "message": CALLED, "finish_reason": "tool_calls"}]
    usage = called["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == len(TOKENIZER.encode("let me see"))


def test_the_api_loop_continues_the_same_tokens(thinker):
    """Message appended, result appended, asked again: the new prompt begins with all that was seen and written."""
    first = chat.encode(TOKENIZER, ASK, TOOLS, add_generation_prompt=True)[0]
    message = response(turn_of(CALLED), TOKENIZER)["choices"][0]["message"]
    result = {"role": "tool", "name": "look", "tool_call_id": CALL["id"], "content": "5"}
    again = chat.encode(TOKENIZER, [*ASK, message, result], TOOLS, add_generation_prompt=True)[0]
    assert again[: len(first) + len(typed(TOKENIZER, CALLED))] == first + typed(TOKENIZER, CALLED)
    assert (
        respond(thinker, TOKENIZER, [*ASK, message, result], TOOLS)["choices"][0]["message"]["content"]
        == "42"
    )


def test_both_modes_and_batches(thinker):
    thought, reflex = (respond(thinker, TOKENIZER, ASK, thinking=mode) for mode in (True, False))
    assert thought["choices"][0]["message"]["reasoning_content"] == "a" * 30
    assert reflex["choices"][0]["message"] == {"role": "assistant", "content": "42", "reasoning_content": ""}
    assert reflex["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0, "forced_tokens": 0}
    assert respond_all(thinker, TOKENIZER, [ASK, ASK], budget=[None, 2])[0] == thought


# --------------------------------------------------------------------------------------------- corrupted thoughts
def test_a_step_is_replaced_and_what_came_before_is_kept():
    turn = turn_of({"role": "assistant", "content": "34", "reasoning_content": "k 18-1=17 l 17*2=34 end"})
    for step, kept in ((0, "<think>k 18-1="), (1, "<think>k 18-1=17 l 17*2=")):
        prefix = corrupt(turn, TOKENIZER, step, "99")
        assert TOKENIZER.decode(prefix.ids) == kept + "99"
        assert prefix.own == [True] * (len(prefix.ids) - 2) + [False] * 2
        assert prefix.logprobs == [-0.5] * (len(prefix.ids) - 2) + [0.0] * 2
    with pytest.raises(ValueError, match="2 tokens"):
        corrupt(turn, TOKENIZER, 2, "99")


def test_a_turn_that_is_given_whole_is_not_written_on(thinker):
    """Its end, or all tokens that it may have; a neighbour goes on as if it were alone."""
    four = TOKENIZER.token_id("4")
    ended, full = [THINK, CLOSE, four, END], [THINK, CLOSE, four]
    prefixes = [Prefix(ids, [True] * len(ids), [-0.5] * len(ids)) for ids in (ended, full, [THINK, CLOSE])]
    turns = write(thinker, TOKENIZER, [prompt()] * 3, max_tokens=3, prefixes=prefixes)
    assert [(turn.ids, turn.finish) for turn in turns] == [
        (ended, "stop"),
        (full, "length"),
        (full, "length"),
    ]
    assert [turn.written for turn in turns] == [4, 3, 3]
    assert write(thinker, TOKENIZER, [prompt()], prefixes=prefixes[:1])[0].ids == ended
    ours = Prefix(full, [False] * 3, [0.0] * 3)  # what we put in uses nothing up
    assert write(thinker, TOKENIZER, [prompt()], max_tokens=3, prefixes=[ours])[0].finish == "stop"


def test_the_model_goes_on_behind_what_was_put_in(thinker):
    ids = [THINK, TOKENIZER.token_id("a"), TOKENIZER.token_id("9")]
    prefix = Prefix(ids, [True, True, False], [-0.25, -0.5, 0.0])
    turn = write(thinker, TOKENIZER, [prompt()], prefixes=[prefix])[0]
    assert (turn.ids[:3], turn.own[:3], turn.logprobs[:3]) == prefix
    assert all(logprob != 0 for logprob, own in zip(turn.logprobs, turn.own) if own)
    assert TOKENIZER.decode(turn.ids) == "<think>a9" + "a" * 28 + "</think>42<|im_end|>"
    assert turn.written == len(turn.ids) - 1


# -------------------------------------------------------------------------------------------------------- traces
def played(family="cheapest", level=3, is_thinking=True):
    """An expert's episode, fed token by token as if a model had written it."""
    task = worlds.generate(random.Random(3), family, level)
    talk = conversation.opening(task, is_thinking)
    conversation.begin(talk, TOKENIZER)
    for message in loop.play(task, random.Random(0), thinking=is_thinking).messages:
        if message["role"] == "assistant":
            turn = dataclasses.replace(turn_of(message), prompt=[])
            loop.take_turn(talk, Reply.of(turn), TOKENIZER, LIMITS)
    return talk


MODES = [("cheapest", True), ("repair", True), ("buy", False), ("chain", True)]


@pytest.mark.parametrize(("family", "is_thinking"), MODES)
def test_the_pieces_of_a_trace_cost_what_was_written(family, is_thinking):
    talk = played(family, 2, is_thinking)
    costs, shown = traces.piece_costs(talk, TOKENIZER), pieces(talk.messages)
    assert len(costs) == len(shown)
    assert sum(cost for cost, piece in zip(costs, shown) if piece.author == "model") == talk.written
    given = [piece for piece in shown if piece.kind == "result"]
    assert all(
        cost > len(TOKENIZER.encode(piece.text)) for cost, piece in zip(costs, shown) if piece in given
    )
    traces.check_trace(talk, TOKENIZER)


def changed(talk, index, **fields):
    messages = [dict(message) for message in talk.messages]
    messages[index].update(fields)
    return messages


def test_a_trace_that_shows_text_the_model_did_not_write_is_caught():
    talk = played()
    first, last = talk.messages[2], len(talk.messages) - 1
    call = first["tool_calls"][0]
    other = {**call, "function": {**call["function"], "arguments": '{"item":"gold ring"}'}}
    lies = [
        changed(talk, 2, reasoning_content=first["reasoning_content"] + " I am sure"),
        changed(talk, 2, reasoning_content=""),
        changed(talk, 2, tool_calls=[other]),
        changed(talk, 2, tool_calls=[call, call]),
        changed(talk, 2, content="Let me look that up for you."),
        changed(talk, last, content="gold ring"),
        [*talk.messages, {"role": "assistant", "content": "Happy to help!"}],
        changed(talk, 3, role="assistant", reasoning_content=""),  # the tool's words in the model's mouth
        changed(talk, 2, tool_calls=[{**call, "id": "functions.next:9"}]),
        changed(talk, 3, content="1000"),  # a forged result
        talk.messages[:3] + talk.messages[4:],  # a result left out
        talk.messages[:-1],
        talk.messages[:2],
        [],  # turns left out
        changed(talk, 1, content="another question"),
    ]
    for messages in lies:
        with pytest.raises(ValueError, match="shows"):
            traces.check_trace(talk, TOKENIZER, messages)


def test_a_corrupted_thought_is_not_shown_as_the_models_own():
    talk = played("chain", 3)
    task = talk.task
    fresh = conversation.opening(task)
    conversation.begin(fresh, TOKENIZER)
    turn = turn_of({key: talk.messages[2][key] for key in ("role", "content", "reasoning_content")})
    prefix = corrupt(turn, TOKENIZER, 1, "07")
    ids = prefix.ids + turn.ids[len(prefix.ids) :]
    forged = Turn(
        [], ids, prefix.own + [True] * (len(ids) - len(prefix.ids)), turn.thought, "stop", [-0.5] * len(ids)
    )
    loop.take_turn(fresh, Reply.of(forged), TOKENIZER, LIMITS)
    assert fresh.written == len(ids) - 2 and sum(fresh.mask) == fresh.written
    with pytest.raises(ValueError, match="did not write"):
        traces.check_trace(fresh, TOKENIZER)
    (segment,) = fresh.segments
    fresh.segments = [
        dataclasses.replace(segment, own=[True] * len(ids))
    ]  # mutant: our tokens marked as the model's
    traces.check_trace(fresh, TOKENIZER)  # nothing else would notice, so `own` is what is tested above


def test_a_forced_stop_does_not_make_a_trace_dishonest():
    talk = played("chain", 2)
    fresh = conversation.opening(talk.task)
    conversation.begin(fresh, TOKENIZER)
    turn = turn_of(SAID)
    own = [token != CLOSE for token in turn.ids]
    loop.take_turn(fresh, Reply.of(dataclasses.replace(turn, own=own)), TOKENIZER, LIMITS)
    traces.check_trace(fresh, TOKENIZER)
    costs = traces.piece_costs(fresh, TOKENIZER)
    assert sum(costs[2:]) == fresh.written == len(turn.ids) - 1
    assert not fresh.mask[fresh.turn_starts[0] + turn.ids.index(CLOSE)]  # never trained on


def test_hidden_turns_are_priced_and_checked_all_the_same():
    talk = played()
    costs = traces.piece_costs(talk, TOKENIZER)
    conversation.hide_old_turns(talk, 1)
    assert traces.piece_costs(talk, TOKENIZER) == costs
    traces.check_trace(talk, TOKENIZER)
    with pytest.raises(ValueError, match="shows"):
        traces.check_trace(talk, TOKENIZER, changed(talk, 3, content="1000"))


def test_a_turn_that_ends_with_the_document_is_priced():
    talk = conversation.opening(worlds.generate(random.Random(3), "chain", 2))
    conversation.begin(talk, TOKENIZER)
    ids = [*typed(TOKENIZER, SAID)[:-1], TOKENIZER.token_id("[EOS]")]
    loop.take_turn(talk, Reply(ids, [-0.5] * len(ids), "stop"), TOKENIZER, LIMITS)
    assert sum(traces.piece_costs(talk, TOKENIZER)[2:]) == talk.written == len(ids)


def test_a_script_has_no_tokens_to_price():
    talk = loop.play(worlds.generate(random.Random(3), "buy", 1), random.Random(0))
    with pytest.raises(ValueError, match="assistant messages"):
        traces.piece_costs(talk, TOKENIZER)


# ----------------------------------------------------------------------------------------------------- attention
def test_attention_rows_are_rows_of_the_whole_table():
    model = tiny_model()
    ids = torch.randint(0, 900, (1, 40))
    table = model.attention_weights(ids)[:, 0]  # (L, H, T, T)
    rows = attention_rows(model, ids[0].tolist(), [3, 17, 39])
    torch.testing.assert_close(rows, table[:, :, [3, 17, 39]])
    assert rows[:, :, 0, 4:].abs().max() == 0  # nothing that comes later
    assert not any(layer.self_attn._forward_pre_hooks for layer in model.model.layers)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (dict(budget=3.5), "whole number of tokens"),
        (dict(budget="x"), "whole number of tokens"),
        (dict(budget=True), "whole number of tokens"),
        (dict(budget=-1), "whole number of tokens"),
        (dict(max_tokens=-1), "max_tokens must be"),
        (dict(answer_ids=[10**6]), "answer_ids are token ids"),
    ],
)
def test_numbers_that_are_none_of_tokens_are_refused(options, hint):
    words = [{"role": "user", "content": "hello"}]
    with pytest.raises(ValueError, match=hint):
        respond(tiny_model(vocab_size=1024), TOKENIZER, words, **options)
    with pytest.raises(ValueError, match="a conversation is a list of messages"):
        respond(tiny_model(vocab_size=1024), TOKENIZER, "hello")


# ------------------------------------------------------------------------------------------------- soft targets
def check_target(model):
    """A model that would rather think 30 letters, and to end at once is 9 nats from its wish."""
    for target, nudge, thought in ((5, 2.0, 9), (5, 4.0, 7), (29, 2.0, 30), (40, 2.0, 30), (0, 10.0, 0)):
        turn = write(model, TOKENIZER, [prompt()], target=target, nudge=nudge)[0]
        # 9 nats are made up for by the fifth nudge of 2, the third of 4, the first of 10
        assert turn.thought_tokens == thought
        assert turn.hurried is (thought < Thinker.LENGTH or target <= thought)
        assert TOKENIZER.decode(turn.ids) == "<think>" + "a" * thought + "</think>42<|im_end|>"
        assert all(turn.own) and not turn.was_cut  # its own end, and counted as such


def test_a_soft_target_hurries_and_the_model_ends_the_thought_itself(thinker):
    check_target(thinker)


def stands_still(row):
    return row.nudge * (row.thinking and row.target is not None and row.thought_tokens >= row.target)


def hurries_from_the_start(row):
    return row.nudge * (row.thinking and row.target is not None and row.thought_tokens + 1)


def one_token_late(row):
    return row.nudge * max(0, row.thinking and row.target is not None and row.thought_tokens - row.target)


def goes_on_in_the_answer(row):
    return row.nudge * max(0, row.target is not None and sum(row.thought) - row.target + 1)


@pytest.mark.parametrize(
    "mutant", [stands_still, hurries_from_the_start, one_token_late, goes_on_in_the_answer]
)
def test_a_target_that_hurries_at_another_time_is_caught(thinker, monkeypatch, mutant):
    monkeypatch.setattr(Row, "hurry", property(mutant))
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_target(thinker)


def test_a_hurried_thought_has_the_log_probabilities_it_was_drawn_with_and_its_neighbours_keep_theirs(
    thinker,
):
    sooner, late = (write(thinker, TOKENIZER, [prompt()], target=t, nudge=4.0)[0] for t in (5, 29))
    for turn, wished, hurry in ((sooner, TOKENIZER.token_id("a"), 12.0), (late, CLOSE, 8.0)):
        logits = torch.zeros(TOKENIZER.vocab_size)
        logits[wished] += 9.0
        logits[CLOSE] += hurry
        said = turn.logprobs[turn.ids.index(CLOSE)]
        assert said == pytest.approx(logits.log_softmax(-1)[CLOSE].item(), rel=1e-3)
    plain = write(thinker, TOKENIZER, [prompt()])[0]
    assert (
        sooner.logprobs[:8] == plain.logprobs[:6] + sooner.logprobs[6:8]
    )  # before the target nothing changes


def test_a_target_and_a_stop_hold_together_and_a_wrong_nudge_is_refused(thinker):
    turn = write(thinker, TOKENIZER, [prompt()], target=5, nudge=2.0, budget=7)[0]
    assert turn.thought_tokens == 7 and turn.was_cut and not turn.hurried
    for wrong in ({"target": -1}, {"target": 1.5}, {"nudge": 0.0}, {"nudge": float("nan")}):
        with pytest.raises(ValueError):
            write(thinker, TOKENIZER, [prompt()], **wrong)


def test_behind_a_hurried_end_the_answer_can_be_held_to_its_form(monkeypatch):
    monkeypatch.setattr(writer, "Decoder", Defiant)
    digits = [TOKENIZER.token_id(digit) for digit in "0123456789"]
    free, held = (
        write(tiny_model(), TOKENIZER, [prompt()], target=5, nudge=10.0, answer_ids=ids, max_tokens=40)[0]
        for ids in (None, digits)
    )
    assert "</think>a" in TOKENIZER.decode(free.ids) and set(held.ids[held.ids.index(CLOSE) + 1 :]) <= {
        *digits,
        END,
    }
