"""The agent loop: tokens in, tokens out; what the environment wrote is never the model's own; every rollout ends."""

import json
import random

import pytest
import torch
from tiny import Prompted, Typist, tiny_model, typed

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.agent import loop, traces
from kimi_mini.agent import policy as policy_
from kimi_mini.agent.policy import Answer, LocalPolicy, Reply
from kimi_mini.inference import writer
from kimi_mini.inference.decoder import Decoder
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example, collate
from kimi_mini.training.rl import objective
from kimi_mini.worlds import FAMILIES, WORLDS, Environment
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.rows import Limits
from kimi_mini.worlds.tools import Tool, Toolbox

ROOMY = Limits(turn_tokens=256, turns=20, context=2048)
REFLEX = [family for family in FAMILIES if family not in ("cheapest",)]  # what cannot be done without notes


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def tasks_of(family, count=4, seed=0):
    rng = random.Random(seed)
    levels = list(FAMILIES[family].levels)
    return [worlds.generate(rng, family, levels[-1 - index % len(levels)]) for index in range(count)]


def typed_rollout(tokenizer, tasks, limits=ROOMY, thinking=True, spell=None):
    return loop.run(Typist(tokenizer, spell), tokenizer, tasks, limits, thinking)


# ---- tokens in, tokens out ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "thinking"), [(f, True) for f in FAMILIES] + [(f, False) for f in REFLEX])
def test_the_tokens_of_a_rollout_are_those_of_its_messages(tokenizer, family, thinking):
    """For words typed as the tokenizer would: ids and mask equal those of the whole conversation, rendered at once."""
    for conversation in typed_rollout(tokenizer, tasks_of(family), thinking=thinking):
        assert conversation.finish == "stop" and conversation.verdict().passed
        ids, mask = chat.encode(tokenizer, conversation.messages, conversation.tools)
        assert conversation.ids == ids
        assert conversation.mask == mask
        rows = conversation_.training_rows(conversation)  # more than one where a user has spoken again
        assert len(conversation.logprobs) == len(ids)
        assert conversation.written == sum(sum(learned) for _, learned, _ in rows)


@pytest.mark.parametrize("family", ["buy", "repair", "follow"])
def test_each_turn_extends_the_last_one(tokenizer, family):
    """The prefix property, seen from the loop: nothing that a model has once read is ever spelt again."""
    seen = []

    class Watcher(Typist):
        def reply(self, conversations, max_tokens):
            (conversation,) = conversations
            if seen:
                assert conversation.ids[: len(seen[-1])] == seen[-1]
            seen.append(list(conversation.ids))
            return super().reply(conversations, max_tokens)

    task = tasks_of(family, 1)[0]
    loop.run(Watcher(tokenizer), tokenizer, [task], ROOMY)
    assert len(seen) >= 2


def respelt(tokenizer, message):
    """The same message with one word as single letters: other tokens, same text."""
    ids = typed(tokenizer, message)
    for place, token in enumerate(ids):
        text = tokenizer.decode([token])
        letters = [tokenizer.token_id(letter) for letter in text if letter.isascii() and letter.isalpha()]
        if len(text) > 1 and len(letters) == len(text):
            return ids[:place] + letters + ids[place + 1 :]
    raise AssertionError("no word of several letters")


def test_another_spelling_of_the_same_text_is_kept(tokenizer):
    """Mutant: tokenise the text of the messages again. RL would then train on tokens that nobody sampled."""
    task = tasks_of("buy", 1)[0]
    (conversation,) = typed_rollout(tokenizer, [task], spell=lambda c, message: respelt(tokenizer, message))
    again, _ = chat.encode(tokenizer, conversation.messages, conversation.tools)
    assert conversation.verdict().passed
    assert tokenizer.decode(conversation.ids) == tokenizer.decode(again)
    assert conversation.ids != again
    written = [token for token, own in zip(conversation.ids, conversation.mask) if own]
    assert len(written) == conversation.written == len(conversation.logprobs) - conversation.mask.count(False)


# ---- whose tokens ---------------------------------------------------------------------------------------------


def own_text(tokenizer, conversation):
    return tokenizer.decode(token for token, own in zip(conversation.ids, conversation.mask) if own)


def check_observations(tokenizer, make):
    for family in ("follow", "cheapest", "repair"):
        for conversation in make(tasks_of(family)):
            text = own_text(tokenizer, conversation)
            assert "Return of" not in text and "<|im_system|>" not in text and "<|im_user|>" not in text
            assert text.count("<|im_end|>") == conversation.turns
            assert all(
                logprob == 0 for logprob, own in zip(conversation.logprobs, conversation.mask) if not own
            )


def test_what_tools_wrote_is_never_the_models_own(tokenizer):
    check_observations(tokenizer, lambda tasks: typed_rollout(tokenizer, tasks))


def test_a_mask_over_observations_is_found_out(tokenizer, monkeypatch):
    """Mutant: whatever comes after the prompt is taken for the model's own."""

    def observe(conversation, ids):
        ids = list(ids)
        conversation.ids += ids
        conversation.mask += [bool(conversation.turn_starts)] * len(ids)
        conversation.logprobs += [0.0] * len(ids)

    monkeypatch.setattr(loop, "observe", observe)
    with pytest.raises(AssertionError):
        check_observations(tokenizer, lambda tasks: typed_rollout(tokenizer, tasks))


def test_the_thought_that_a_reflex_is_given_is_not_its_own(tokenizer):
    for conversation in typed_rollout(tokenizer, tasks_of("buy"), thinking=False):
        assert "think>" in tokenizer.decode(conversation.ids)
        assert "think>" not in own_text(tokenizer, conversation)


# ---- calls that go wrong --------------------------------------------------------------------------------------


def misspelt(tokenizer, old, new, times=1):
    """A spelling that has the fault in its first `times` turns and none afterwards."""

    def spell(conversation, message):
        text = tokenizer.decode(typed(tokenizer, message))
        if conversation.turns < times:
            assert old in text
            text = text.replace(old, new)
        return tokenizer.encode(text)

    return spell


FAULTS = {
    "undeclared tool": ("functions.next:", "functions.fly:", "error: no tool 'fly'; declared: next"),
    "broken JSON": ('"}<|tool_call_end|>', '"<|tool_call_end|>', "error: arguments are not JSON"),
    "not an object": ('{"item"', '["item"', "error: arguments are not JSON"),
    "double-encoded": ('{"item":"', '"{\\"item\\":\\"', "error: arguments are not JSON"),
    "wrong key": ('"item"', '"name"', "error: arguments: 'item' is a required property"),
    "no such item": ('"item":"', '"item":"no ', "error: no item no "),
    "no id": ("functions.next:0", "next", '{"next":'),  # clear enough: it is carried out
    "no arguments": ("<|tool_call_argument_begin|>", "", "error:"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_call_is_answered_and_the_rollout_goes_on(tokenizer, fault):
    old, new, answer = FAULTS[fault]
    task = worlds.generate(random.Random(3), "follow", 3)
    (conversation,) = typed_rollout(tokenizer, [task], spell=misspelt(tokenizer, old, new))
    tools = [message["content"] for message in conversation.messages if message["role"] == "tool"]
    assert tools[0].startswith(answer)
    assert conversation.finish == "stop" and conversation.turns >= 2
    assert len(conversation.ids) == len(conversation.mask) == len(conversation.logprobs)


@pytest.mark.parametrize(
    ("names", "finish", "turns"), [(["fly"], "repeats", 4), (["fly", "swim"], "turns", 5)]
)
def test_a_model_that_never_gets_it_right_ends_at_its_turns(tokenizer, names, finish, turns):
    class Stubborn(Typist):
        def _type(self, conversation, max_tokens):
            name = names[conversation.turns % len(names)]
            call = {"id": f"functions.{name}:0", "function": {"name": name, "arguments": "{"}}
            ids = typed(self.tokenizer, {"role": "assistant", "content": None, "tool_calls": [call]})
            return Reply(ids, [0.0] * len(ids), "stop")

    (conversation,) = loop.run(Stubborn(tokenizer), tokenizer, tasks_of("follow", 1), Limits(64, 5, 1024))
    assert (conversation.finish, conversation.turns, conversation.calls) == (finish, turns, turns)
    assert not conversation.verdict().passed


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("a", "e")] * 3, True),
        ([("b", "e")] + [("a", "e")] * 3, True),
        ([("a", "e")] * 2, False),
        ([("a", "e"), ("a", "f"), ("a", "e")], False),  # the same call, another answer: a tool that was busy
        ([("a", "e"), ("b", "e"), ("a", "e")], False),
    ],
)
def test_stuck_are_the_same_calls_with_the_same_results(turns, expected):
    task = tasks_of("follow", 1)[0]
    conversation = conversation_.opening(task)
    for number, (name, result) in enumerate(turns):
        call = {"id": f"functions.{name}:{number}", "function": {"name": name, "arguments": "{}"}}
        conversation.messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "name": name, "tool_call_id": call["id"], "content": result},
        ]
    assert conversation_.stuck(conversation, 3) is expected


def test_a_tool_that_breaks_is_news_for_the_model(tokenizer, monkeypatch):
    opened = WORLDS["shop"].open_environment

    def open_and_close(task):
        environment = opened(task)
        environment.state.close()  # from now on every query raises
        return environment

    monkeypatch.setattr(WORLDS["shop"], "open_environment", open_and_close)
    task = worlds.generate(random.Random(3), "follow", 3)
    (conversation,) = typed_rollout(tokenizer, [task])
    assert conversation.messages[-2]["content"].startswith("error: next failed: ProgrammingError")
    assert conversation.finish == "stop"


def test_a_call_where_no_tools_are_declared(tokenizer):
    def spell(conversation, message):
        if conversation.turns:
            return typed(tokenizer, message)
        call = {"id": "functions.add:0", "function": {"name": "add", "arguments": "{}"}}
        return typed(tokenizer, {"role": "assistant", "content": None, "tool_calls": [call]})

    class Patient(Typist):
        def _type(self, conversation, max_tokens):
            if conversation.turns:  # the expert has only one message, which was not typed yet
                self.experts.pop(id(conversation), None)
            return super()._type(conversation, max_tokens)

    (conversation,) = loop.run(Patient(tokenizer, spell), tokenizer, tasks_of("chain", 1), ROOMY)
    assert conversation.messages[3]["content"] == "error: no tools are declared here"
    assert conversation.finish == "stop" and conversation.verdict().passed


@pytest.mark.parametrize("thinking", [True, False])
def test_nonsense_ends_with_a_recorded_reason(tokenizer, model, thinking):
    """A model of random weights, warm: whatever it writes, markers out of place included, every rollout ends."""
    policy = LocalPolicy(model, tokenizer, temperature=1.0, seed=1)
    tasks = tasks_of("buy", 6) + tasks_of("chain", 2)
    limits = Limits(turn_tokens=40, turns=3, context=512)
    for conversation in loop.run(policy, tokenizer, tasks, limits, thinking):
        assert conversation.finish in ("stop", "length", "turns", "context")
        assert not conversation.verdict().passed


@pytest.mark.parametrize("seed", range(4))
def test_markers_in_any_order_end_with_a_recorded_reason(tokenizer, seed):
    """Random sequences of special tokens and pieces of real turns."""
    rng = random.Random(seed)
    pieces = [[index] for index in tokenizer.special.values()]
    pieces += [
        list(tokenizer.encode(text))
        for text in ("functions.buy:0", '{"item":"red fig","count":1}', "42", ":")
    ]

    class Mad(Typist):
        def _type(self, conversation, max_tokens):
            ids = [token for _ in range(rng.randrange(1, 12)) for token in rng.choice(pieces)]
            ids = [*ids, self.tokenizer.token_id("<|im_end|>")]
            return Reply(ids, [0.0] * len(ids), "stop")

    for conversation in loop.run(Mad(tokenizer), tokenizer, tasks_of("buy", 30), Limits(128, 4, 1024)):
        assert conversation.finish in ("stop", "turns")
        assert not conversation.verdict().passed


# ---- budgets --------------------------------------------------------------------------------------------------


def test_a_turn_that_is_too_long_is_cut_and_recorded(tokenizer):
    (conversation,) = typed_rollout(tokenizer, tasks_of("chain", 1), Limits(turn_tokens=10, context=1024))
    assert conversation.finish == "length" and conversation.written == 10
    assert conversation.messages[-1]["role"] == "assistant" and not conversation.messages[-1]["tool_calls"]
    assert not conversation.verdict().passed


def test_a_call_that_is_cut_off_is_not_made(tokenizer):
    task = tasks_of("buy", 1)[0]
    (whole,) = typed_rollout(tokenizer, [task])
    first = whole.ids.index(tokenizer.token_id("<|im_end|>"), whole.turn_starts[0]) - whole.turn_starts[0]
    (cut,) = typed_rollout(tokenizer, [task], Limits(turn_tokens=first, context=1024))
    assert (cut.finish, cut.calls) == ("length", 0)
    assert cut.environment.state.execute("SELECT COUNT(*) FROM orders").fetchone() == (0,)


def test_turns_are_counted(tokenizer):
    task = worlds.generate(random.Random(0), "follow", 5)
    (enough,) = typed_rollout(tokenizer, [task], Limits(128, 6, 2048))
    (short,) = typed_rollout(tokenizer, [task], Limits(128, 5, 2048))
    assert (enough.finish, short.finish, short.turns) == ("stop", "turns", 5)


def test_a_full_context_ends_a_rollout_that_is_not_managed(tokenizer):
    task = worlds.generate(random.Random(0), "follow", 40)
    (conversation,) = typed_rollout(tokenizer, [task], Limits(64, 100, 420))
    assert conversation.finish == "context" and len(conversation.ids) > 420 - 64
    assert 1 < conversation.turns < 40


@pytest.mark.parametrize("manage", [False, True])
def test_a_prompt_without_room_for_an_answer_ends_before_it_begins(tokenizer, manage):
    tasks = [worlds.generate(random.Random(0), "buy", 4), worlds.generate(random.Random(0), "chain", 1)]
    prompt = conversation_.opening(tasks[0])
    conversation_.begin(prompt, tokenizer)
    long, short = typed_rollout(tokenizer, tasks, Limits(64, 10, len(prompt.ids) + 63, manage=manage))
    assert (long.finish, long.turns) == ("context", 0) and not long.verdict().passed
    assert short.finish == "stop"


@pytest.mark.parametrize("keep", [1, 2])
def test_a_result_that_fills_the_context_by_itself_is_recorded(tokenizer, keep, monkeypatch):
    """Hiding old turns cannot help here, also when there are none."""
    box = Toolbox([Tool("next", "", {"type": "object"}, lambda item: "long " * 400)])
    opened = WORLDS["shop"].open_environment
    monkeypatch.setattr(WORLDS["shop"], "open_environment", lambda task: Environment(box, opened(task).state))
    limits = Limits(64, 10, 420, manage=True, keep_turns=keep)
    (conversation,) = typed_rollout(tokenizer, [worlds.generate(random.Random(0), "follow", 3)], limits)
    assert (conversation.finish, conversation.turns) == ("context", 1)


def test_a_managed_loop_ends_at_its_turns(tokenizer):
    """Mutant: count the turns that are still in the context. With some hidden the count never reaches the limit."""
    task = worlds.generate(random.Random(0), "follow", 60)
    limits = Limits(64, 30, 420, manage=True)
    (conversation,) = typed_rollout(tokenizer, [task], limits)
    assert (conversation.finish, conversation.turns) == ("turns", 30)
    assert len(conversation.turn_starts) < limits.turns


# ---- context management ---------------------------------------------------------------------------------------


def test_a_hundred_calls_with_old_turns_hidden(tokenizer):
    task = worlds.generate(random.Random(0), "follow", 100)
    limits = Limits(64, 400, 420, manage=True)
    (conversation,) = typed_rollout(tokenizer, [task], limits)
    assert conversation.finish == "stop" and conversation.verdict().passed and conversation.calls == 100
    assert len(conversation.ids) <= limits.context


def test_what_is_left_is_the_opening_and_the_last_turns(tokenizer):
    """Token for token the rendering of a conversation that never had the turns between."""
    checked = 0

    class Watcher(Typist):
        def reply(self, conversations, max_tokens):
            nonlocal checked
            (c,) = conversations
            if len(c.turn_starts) < len(c.segments):
                turns = [i for i, message in enumerate(c.messages) if message["role"] == "assistant"]
                left = c.messages[:2] + c.messages[turns[-len(c.turn_starts)] :]
                ids, mask = chat.encode(self.tokenizer, left, c.tools, add_generation_prompt=True)
                assert (c.ids, c.mask) == (ids, mask)
                assert all(c.mask[start] for start in c.turn_starts) and len(c.turn_starts) >= 2
                checked += 1
            return super().reply(conversations, max_tokens)

    task = worlds.generate(random.Random(0), "follow", 40)
    loop.run(Watcher(tokenizer), tokenizer, [task], Limits(64, 100, 420, manage=True))
    assert checked >= 3


def test_a_rewound_cache_says_what_a_fresh_one_says(tokenizer, model):
    """Two conversations of different length, old turns hidden now and then: logits before every turn."""
    policy = Prompted(model, tokenizer)
    tasks = [worlds.generate(random.Random(seed), "follow", 12 + 4 * seed) for seed in range(2)]
    done = loop.run(policy, tokenizer, tasks, Limits(64, 100, 360, manage=True))
    assert all(conversation.verdict().passed for conversation in done)
    assert any(len(after[0]) < len(before[0]) for before, after in zip(policy.seen, policy.seen[2:])), (
        "nothing hidden"
    )
    for ids, logits in policy.seen:
        with torch.no_grad():
            fresh = model(torch.tensor([ids])).logits[0, -1]
        torch.testing.assert_close(logits, fresh, atol=1e-4, rtol=1e-4)


def test_a_cache_that_is_not_rewound_is_found_out(tokenizer, model, monkeypatch):
    """Mutant: whatever the cache holds is taken for right."""
    monkeypatch.setattr(writer, "common_prefix", lambda held, wanted: min(len(held), len(wanted)))
    with pytest.raises((AssertionError, ValueError)):
        test_a_rewound_cache_says_what_a_fresh_one_says(tokenizer, model)


# ---- the model at the wheel -----------------------------------------------------------------------------------

SHORT = Limits(turn_tokens=24, turns=3, context=512)


def test_a_batch_says_what_each_says_alone(tokenizer, model):
    """Greedy, prompts of different lengths. The end token is one that the random model writes early in some rows, late
    in others and never in the rest, so that the batch shrinks while it runs."""
    tasks = [task for family in FAMILIES for task in tasks_of(family, 2)]
    policy = LocalPolicy(model, tokenizer)
    written = [c.ids[c.prompt_length :] for c in loop.run(policy, tokenizer, tasks, SHORT)]
    token = max(
        set().union(*written), key=lambda token: len({ids.index(token) for ids in written if token in ids})
    )
    policy.stops = frozenset({token})
    together = loop.run(policy, tokenizer, tasks, SHORT)
    assert len({conversation.written for conversation in together}) >= 3
    for task, conversation in zip(tasks, together):
        (alone,) = loop.run(policy, tokenizer, [task], SHORT)
        assert alone.ids == conversation.ids and alone.finish == conversation.finish
        assert alone.logprobs == pytest.approx(conversation.logprobs, abs=1e-4)


def test_rows_of_finished_conversations_are_given_up(tokenizer, model):
    """The batch shrinks as conversations end; those that stay do not notice (typed answers of different lengths)."""
    policy = LocalPolicy(model, tokenizer)
    conversations = [conversation_.opening(task) for task in tasks_of("chain", 8)]
    for conversation in conversations:
        conversation_.begin(conversation, tokenizer)
    policy.open(conversations, 512)
    whole = policy.reply(conversations, 8)
    policy.open(conversations, 512)
    policy.reply(conversations, 1)
    half = policy.reply(conversations[::3], 8)
    assert len(policy.places) == len(policy.writer.decoder.lengths) == 3
    assert [reply.ids for reply in half] == [reply.ids for reply in whole[::3]]


def test_a_seed_samples_the_same_words(tokenizer, model):
    def words(seed):
        done = loop.run(LocalPolicy(model, tokenizer, 1.0, seed), tokenizer, tasks_of("buy", 3), SHORT)
        return [conversation.ids for conversation in done]

    assert words(1) == words(1) != words(2)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_logprobs_are_those_of_training(tokenizer, model, temperature):
    """RL compares the log-probability of a token now with that of the moment it was sampled."""
    policy = LocalPolicy(model, tokenizer, temperature, seed=3)
    done = loop.run(policy, tokenizer, tasks_of("buy", 5) + tasks_of("chain", 5), SHORT)
    batch = collate([Example(c.ids, c.mask) for c in done])
    with torch.no_grad():
        again, _ = objective.token_logprobs(model, batch, temperature)
        other, _ = objective.token_logprobs(model, batch, 1.5 * temperature)
    recorded = torch.tensor([value for c in done for value, own in zip(c.logprobs, c.mask) if own])
    torch.testing.assert_close(again, recorded, atol=1e-4, rtol=1e-5)
    assert (other - recorded).abs().mean() > 1e-2, "another temperature is another policy"


def test_training_mode_comes_back(tokenizer, model):
    model.train()
    loop.run(LocalPolicy(model, tokenizer), tokenizer, tasks_of("chain", 1), SHORT)
    assert model.training
    model.eval()


def test_room_for_every_token_of_the_last_turn(tokenizer, model):
    """The cache is exactly as long as the context: the last allowed turn must fit."""
    task = tasks_of("chain", 1)[0]
    conversation = conversation_.opening(task)
    conversation_.begin(conversation, tokenizer)
    limits = Limits(turn_tokens=16, turns=2, context=len(conversation.ids) + 16)
    policy = LocalPolicy(model, tokenizer)
    policy.stop = -1  # a model that never stops
    (conversation,) = loop.run(policy, tokenizer, [task], limits)
    assert (conversation.finish, conversation.written) == ("length", 16)
    assert isinstance(policy.writer.decoder, Decoder) and policy.writer.decoder.lengths.max() < limits.context


# ---- the scripted player --------------------------------------------------------------------------------------


def test_play_numbers_the_calls_of_the_whole_dialogue():
    task = worlds.generate(random.Random(0), "follow", 3)
    conversation = loop.play(task, random.Random(0), first_call=7)
    ids = [message["tool_call_id"] for message in conversation.messages if message["role"] == "tool"]
    assert ids == ["functions.next:7", "functions.next:8", "functions.next:9"]


def test_a_reflex_plays_with_empty_thoughts():
    conversation = loop.play(worlds.generate(random.Random(0), "buy", 2), random.Random(0), thinking=False)
    own = [message for message in conversation.messages if message["role"] == "assistant"]
    assert all(message["thinking"] is False and not message["reasoning_content"] for message in own)
    assert json.loads(own[0]["tool_calls"][0]["function"]["arguments"])["count"] >= 1


@pytest.mark.parametrize(
    "wrong", [dict(keep_turns=-1), dict(turns=0), dict(turn_tokens=0), dict(context=1.5), dict(turns=True)]
)
def test_limits_that_no_rollout_can_keep_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


def test_no_turn_kept_hides_them_all(tokenizer):
    """A slice from -0 would hide none, and the context would fill up."""
    limits = Limits(turn_tokens=64, turns=40, context=320, manage=True, keep_turns=0)
    (done,) = typed_rollout(tokenizer, [worlds.generate(random.Random(0), "follow", 12)], limits)
    assert done.finish == "stop" and done.verdict().passed and len(done.ids) <= 320


# ---- segments -------------------------------------------------------------------------------------------------


def check_segments(model, conversation, temperature):
    """Every turn, computed again in the context that its segment names, has the log-probabilities it was sampled with."""
    for ids, mask, logprobs in conversation_.training_rows(conversation):
        with torch.no_grad():
            now = (model(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
        for t, own in enumerate(mask):
            assert not own or now[t - 1, ids[t]].item() == pytest.approx(logprobs[t], abs=1e-3)
            assert own == (logprobs[t] != 0)


def managed_rollout(tokenizer, model):
    """A rollout of a random model whose early turns were hidden: each turn is cut off at the first token that ends it."""

    class Caller(LocalPolicy):
        """Writes an expert's calls, with the model's own log-probabilities of them."""

        def __init__(self):
            super().__init__(model, tokenizer)
            self.typist = Typist(tokenizer)

        def reply(self, conversations, max_tokens):
            replies = []
            for c in conversations:
                ids = self.typist._type(c, max_tokens).ids
                with torch.no_grad():
                    logits = model(torch.tensor([c.ids + ids])).logits[0].log_softmax(-1)
                start = len(c.ids)
                logprobs = [logits[start + t - 1, token].item() for t, token in enumerate(ids)]
                replies.append(Reply(ids, logprobs, "stop"))
            return replies

        def open(self, conversations, context):
            self.typist.open(conversations, context)

    task = worlds.generate(random.Random(0), "follow", 14)
    (conversation,) = loop.run(Caller(), tokenizer, [task], Limits(64, 100, 420, manage=True))
    assert (
        len(conversation.turn_starts) < len(conversation.segments) == conversation.turns
    )  # some were hidden
    return conversation


def test_training_on_a_managed_rollout_sees_what_was_sampled(tokenizer, model):
    conversation = managed_rollout(tokenizer, model)
    check_segments(model, conversation, 1.0)
    rows = conversation_.training_rows(conversation)
    assert 1 < len(rows) < len(conversation.segments)
    assert sum(sum(mask) for _, mask, _ in rows) == conversation.written  # no turn twice, none left out


def test_segments_of_another_context_are_found_out(tokenizer, model):
    """Mutant: kept turns are trained in the context that hiding left, as if they had been sampled there."""
    conversation = managed_rollout(tokenizer, model)
    whole = conversation_.Segment(
        conversation.ids, 1, conversation.ids[1:], conversation.mask[1:], conversation.logprobs[1:]
    )
    conversation.segments = [whole]
    with pytest.raises(AssertionError):
        check_segments(model, conversation, 1.0)


def test_without_hiding_all_turns_are_one_row(tokenizer):
    for conversation in typed_rollout(tokenizer, tasks_of("buy")):
        ((ids, mask, logprobs),) = conversation_.training_rows(conversation)
        assert (ids, mask) == (conversation.ids, conversation.mask) and logprobs == conversation.logprobs


# ---- who takes the turns --------------------------------------------------------------------------------------


class InMessages:
    """A policy that knows no tokens: reads messages and tools, answers with an OpenAI message, as a client would."""

    to_the_end = False

    def open(self, conversations, context):
        self.calls = 0

    def reply(self, conversations, max_tokens):
        return [self.one(conversation.messages, conversation.tools) for conversation in conversations]

    def one(self, messages, tools):
        asked = messages[1]["content"]
        item = asked.split('"')[1]
        names = [tool["function"]["name"] for tool in tools]
        if messages[-1]["role"] == "user":
            reached = item
        else:
            reached = json.loads(messages[-1]["content"])["next"]
            if reached is None:
                return Answer({"role": "assistant", "content": self.last}, usage={"completion_tokens": 3})
        self.last = reached
        call = {
            "id": f"call_{len(messages)}",
            "type": "function",
            "function": {"name": names[0], "arguments": json.dumps({"item": reached})},
        }
        return Answer(
            {"role": "assistant", "content": None, "tool_calls": [call]}, usage={"completion_tokens": 7}
        )


def test_a_policy_that_speaks_in_messages_plays_the_same_loop():
    task = worlds.generate(random.Random(0), "follow", 3)
    (conversation,) = loop.run(InMessages(), None, [task], ROOMY)
    assert conversation.verdict().passed and conversation.finish == "stop"
    assert conversation.calls == 3 and conversation.written == 3 * 7 + 3 and not conversation.ids


class TwoRequests(Environment):
    """A user who asks for something more after the first answer, and then has nothing more to say."""

    said = 0

    def user_turn(self, answer):
        self.said += 1
        return "And now?" if self.said == 1 else None


def open_two(monkeypatch):
    opened = WORLDS["shop"].open_environment
    monkeypatch.setattr(WORLDS["shop"], "open_environment", lambda task: TwoRequests(**vars(opened(task))))


@pytest.mark.parametrize("thinking", [True, False])
def test_a_user_may_speak_again_after_an_answer(tokenizer, monkeypatch, thinking):
    """K2's template: behind an answer its thought is history and leaves the context. Mutant: it stays. Both turns are
    trained on, each in the context it was written in: two rows, or one where there was no thought to leave out."""
    open_two(monkeypatch)
    answers = iter(["first", "second"])
    spell = lambda conversation, message: typed(
        tokenizer,
        {
            "role": "assistant",
            "content": next(answers),
            "reasoning_content": "t" * thinking,
            "thinking": thinking,
        },
    )

    class Twice(Typist):
        def _type(self, conversation, max_tokens):
            ids = self.spell(conversation, None)
            return Reply(ids, [-0.5] * len(ids), "stop")

    task = tasks_of("buy", 1)[0]
    (conversation,) = loop.run(Twice(tokenizer, spell), tokenizer, [task], ROOMY, thinking)
    said = [(m["role"], m["content"]) for m in conversation.messages[2:]]
    assert said == [("assistant", "first"), ("user", "And now?"), ("assistant", "second")]
    assert conversation.finish == "stop" and conversation.turns == 2
    assert conversation.ids == chat.encode(tokenizer, conversation.messages, conversation.tools)[0]
    assert "And now?" not in own_text(tokenizer, conversation)
    rows = conversation_.training_rows(conversation)
    assert len(rows) == 1 + thinking and sum(sum(mask) for _, mask, _ in rows) == conversation.written
    first = conversation.segments[0]
    assert (
        first.context
        == chat.encode(
            tokenizer,
            conversation.messages[:2],
            conversation.tools,
            add_generation_prompt=True,
            thinking=thinking,
        )[0]
    )
    assert ("<think>t</think>" in tokenizer.decode(first.ids)) == thinking
    traces.check_trace(conversation, tokenizer)


class Again(Typist):
    """Does the task over again when the user says something more."""

    def _type(self, conversation, max_tokens):
        if conversation.turns and conversation.messages[-1]["role"] == "user":
            del self.experts[id(conversation)]
        return super()._type(conversation, max_tokens)


def test_hiding_old_turns_keeps_what_the_user_asked_last(tokenizer, monkeypatch):
    """A second request with many calls behind a first one: the words of both stay, the calls between are hidden."""
    open_two(monkeypatch)
    (conversation,) = loop.run(
        Again(tokenizer),
        tokenizer,
        [worlds.generate(random.Random(0), "follow", 12)],
        Limits(64, 100, 420, manage=True),
    )
    assert conversation.finish == "stop" and conversation.calls == 24
    assert len(conversation.turn_starts) < 13  # some of the second request's calls were hidden
    text = tokenizer.decode(conversation.ids)
    assert conversation.task.prompt in text and "And now?" in text and len(conversation.ids) <= 420
    traces.check_trace(conversation, tokenizer)


def test_an_expert_hears_what_the_user_says(monkeypatch):
    open_two(monkeypatch)

    def expert(task, rng, mistake=None):
        heard = yield turn("t", "first")
        yield turn("t", f"you said {heard}")

    monkeypatch.setattr(WORLDS["shop"], "expert", expert)
    played = loop.play(worlds.generate(random.Random(0), "buy", 2), random.Random(0))
    assert played.messages[-1]["content"] == "you said And now?"


def test_what_is_sampled_does_not_depend_on_the_batch(tokenizer, model):
    """Cut into parts by task and put back in order: the same tokens."""
    tasks = [task for family in ("buy", "chain") for task in tasks_of(family, 3)]
    whole = [c.ids for c in loop.run(LocalPolicy(model, tokenizer, 1.0, 7), tokenizer, tasks, SHORT)]
    parts = []
    for first in range(0, 6, 2):
        policy = LocalPolicy(model, tokenizer, 1.0, 7, numbers=[first, first + 1])
        parts += [c.ids for c in loop.run(policy, tokenizer, tasks[first : first + 2], SHORT)]
    assert parts == whole


def test_a_thinking_budget_is_the_policys_own(tokenizer, model, monkeypatch):
    """The forced </think> stands in the context, and is neither sampled nor counted nor trained on."""
    names = ("<think>", "</think>", "<|im_end|>")
    think, close, end = (tokenizer.token_id(name) for name in names)
    letter = tokenizer.token_id("a")
    wishes = iter([think, letter, letter, letter, letter, end])  # the fourth letter is one too many
    wished = lambda logits, *_, **__: (torch.tensor([next(wishes)]), torch.tensor([-0.5]))
    monkeypatch.setattr(writer, "sample", wished)
    (conversation,) = loop.run(
        LocalPolicy(model, tokenizer, budget=3), tokenizer, tasks_of("chain", 1), SHORT
    )
    (segment,) = conversation.segments
    assert segment.ids == [think, letter, letter, letter, close, end]
    assert segment.own == [True] * 4 + [False, True] and conversation.written == 5
    assert segment.logprobs == [-0.5] * 4 + [0.0, -0.5]
    assert conversation.messages[-1]["reasoning_content"] == "aaa"
    with pytest.raises(ValueError, match="budget"):
        LocalPolicy(model, tokenizer, budget=-1)


@pytest.mark.parametrize("name", ["[EOS]", "<|im_end|>"])
def test_every_end_in_the_config_ends_a_turn(tokenizer, model, name):
    """Today's shipped config lists both; a turn that goes on behind one of them is trained on nonsense."""
    model.config.eos_token_id = None  # as in training, before the folder is saved
    assert tokenizer.special[name] in LocalPolicy(model, tokenizer).stops


def test_every_one_of_parallel_calls_is_answered(tokenizer):
    """In their order, each under its own id."""
    conversation = conversation_.opening(tasks_of("buy", 1)[0])
    first, second = (turn("", call=("stock", {"item": name}))["tool_calls"][0] for name in ("lamp", "rope"))
    calls = [{**first, "id": "functions.stock:0"}, {**second, "id": "functions.stock:1"}]
    loop.take_turn(conversation, Answer({**turn("both"), "tool_calls": calls}), None, None)
    results = [message for message in conversation.messages if message["role"] == "tool"]
    assert [message["tool_call_id"] for message in results] == ["functions.stock:0", "functions.stock:1"]


def test_every_turn_throws_dice_of_its_own(tokenizer, model, monkeypatch):
    thrown = []
    monkeypatch.setattr(policy_, "dice", lambda *numbers: thrown.append(numbers) or writer.dice(*numbers))
    conversations = [conversation_.opening(task) for task in tasks_of("buy", 2)]
    for conversation in conversations:
        conversation_.begin(conversation, tokenizer)
    policy = LocalPolicy(model, tokenizer, 1.0, seed=5)
    policy.open(conversations, 1024)
    for turns in range(2):
        for conversation in conversations:
            conversation.turns = turns
            policy._row(conversation, 8)
    assert thrown == [(5, 0, 0), (5, 1, 0), (5, 0, 1), (5, 1, 1)]
