"""The remote policy against engines with habits of their own: each task is done, and no call runs twice."""

import json
import random
import re
import sys
import time

import pytest
from engines import served

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.endpoint import Endpoint, _retry_after, read_key
from kimi_mini.agent.outcome import joined
from kimi_mini.agent.remote import RemotePolicy, as_given, ours
from kimi_mini.base.errors import KimiError
from kimi_mini.worlds import FAMILIES
from kimi_mini.worlds.rows import Limits
from kimi_mini.worlds.tools import Toolbox

ROOMY = Limits(turn_tokens=256, turns=20, context=4096)


def tasks_of(family="buy", count=3):
    rng = random.Random(f"{family}/0")
    return [worlds.generate(rng, family, list(FAMILIES[family].levels)[-1]) for _ in range(count)]


@pytest.fixture
def run_calls(monkeypatch):
    """Every call that a toolbox ran."""
    calls, call = [], Toolbox.call
    monkeypatch.setattr(Toolbox, "call", lambda self, *what: calls.append(what) or call(self, *what))
    return calls


def exam(url, tasks, limits=ROOMY, thinking=True, policy=None, **options):
    endpoint = Endpoint(url, "some", **{"pause": 0.01, "timeout": 20.0, "tries": 9, **options})
    return endpoint, loop.run(policy or RemotePolicy(endpoint), None, tasks, limits, thinking)


def made(conversations):
    return sum(
        len(m.get("tool_calls") or []) for c in conversations for m in c.messages if m["role"] == "assistant"
    )


def check_done(conversations, run_calls):
    for conversation in conversations:
        assert conversation.finish == "stop" and conversation.verdict().passed, conversation.verdict()
    assert len(run_calls) == made(conversations) > 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "habits",
    [
        {},
        {"thought": "reasoning"},
        {"thought": None},
        {"ids": lambda name, turn, place: f"functions.{name}:0"},  # begins anew every turn
        {"ids": lambda name, turn, place: ""},
        {"ids": lambda name, turn, place: "same"},
        {"finish": "stop"},
        {"piece": 1},
        {"usage": False},
        {"troubles": (429, 500, "cut", "empty", "half", "hang up", "html", 503)},
        {"troubles": ("endless", "cut", "cut")},
    ],
    ids=lambda habits: "+".join(habits) or "plain",
)
def test_the_task_is_done_whatever_the_habits(run_calls, habits, stream):
    if habits.get("ids") and habits["ids"]("x", 0, 0) == "":
        habits = {**habits, "strict": False}
    tasks = tasks_of()
    with served(tasks, **habits) as (engine, url):
        endpoint, done = exam(url, tasks, stream=stream, parallel=1)
    check_done(done, run_calls)
    answers = sum(c.turns for c in done)
    broken = len(engine.habits["troubles"]) - (0 if stream else "endless" in engine.habits["troubles"])
    assert len(engine.requests) == answers + broken and endpoint.counts["again"] == broken
    if engine.habits["usage"]:
        assert all(c.written == 7 * c.turns for c in done)
        assert endpoint.counts["completion_tokens"] == 7 * answers
    for conversation in done:  # our own numbers, whatever the engine's ids were
        ids = [call["id"] for m in conversation.messages for call in m.get("tool_calls") or []]
        assert [int(one.rpartition(":")[2]) for one in ids] == list(range(len(ids)))


def test_a_strict_engine_gets_back_what_it_gave():
    """Ids, thoughts, arguments of every turn; results under the ids of their calls."""
    task = tasks_of("buy", 1)
    with served(task) as (engine, url):
        exam(url, task)
    sent = engine.requests[-1]["messages"]
    calls = [call for m in sent for call in m.get("tool_calls") or []]
    assert all(re.fullmatch(r"call_\d+_\d+_x7", call["id"]) for call in calls)
    assert [m["tool_call_id"] for m in sent if m["role"] == "tool"] == [call["id"] for call in calls]
    assert all(m["reasoning_content"] for m in sent if m["role"] == "assistant")
    assert not any({"thinking", "errors"} & m.keys() for m in sent)


def test_parallel_calls_of_several_turns_keep_their_ids_in_both_directions():
    def call(name):
        return {"id": name, "type": "function", "function": {"name": "add", "arguments": "{}"}}

    given = [
        {"role": "assistant", "content": None, "reasoning": "a", "tool_calls": [call("x"), call("y")]},
        {"role": "assistant", "content": "", "tool_calls": [call("x"), call(None)]},
    ]
    messages, number = [{"role": "user", "content": "go"}], 0
    for one in given:
        message = ours(one)
        messages.append(message)
        for each in message["tool_calls"]:
            each["id"] = f"functions.add:{number}"
            messages.append(
                {"role": "tool", "name": "add", "tool_call_id": each["id"], "content": str(number)}
            )
            number += 1
    sent = list(as_given(messages, given))
    assert [m["tool_call_id"] for m in sent if m["role"] == "tool"] == ["x", "y", "x", "functions.add:3"]
    assert [c["id"] for m in sent for c in m.get("tool_calls") or []] == ["x", "y", "x", "functions.add:3"]
    assert [m["content"] for m in sent if m["role"] == "tool"] == ["0", "1", "2", "3"]
    assert sent[1]["reasoning"] == "a" and sent[4]["reasoning"] == ""
    assert given[0]["tool_calls"][0]["id"] == "x" and given[1]["tool_calls"][1]["id"] is None


def test_arguments_encoded_twice_are_told_to_the_model(run_calls):
    tasks = tasks_of(count=1)
    with served(tasks, encode=json.dumps) as (_, url):
        _, (done,) = exam(url, tasks, Limits(turn_tokens=256, turns=2, context=4096))
    told = [m["content"] for m in done.messages if m["role"] == "tool"]
    assert told and all("JSON string" in text for text in told) and not done.verdict().passed


def test_arguments_as_an_object_and_none_are_read(run_calls):
    tasks = tasks_of(count=1)
    with served(tasks, encode=json.loads) as (_, url):
        _, done = exam(url, tasks, stream=False)
    check_done(done, run_calls)
    nothing = {"function": {"name": "x", "arguments": None}}
    assert ours({"content": None, "tool_calls": []}) == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "",
    }
    from kimi_mini.agent.outcome import _call

    assert _call(nothing)["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    "text", ["<think>why</think>because", "why</think>because", " <think>why</think>because"]
)
def test_a_thought_in_the_text_is_a_thought(text):
    """Its <think> stands in the prompt of some templates, and so not in the answer."""
    message = ours({"content": text})
    assert (message["reasoning_content"], message["content"]) == ("why", "because")


def test_retry_after_is_kept(run_calls):
    tasks = tasks_of(count=1)
    with served(tasks, troubles=(429,), wait="0.6") as (engine, url):
        exam(url, tasks)
    assert engine.times[1] - engine.times[0] >= 0.6
    from email.utils import formatdate

    assert 3 < _retry_after({"retry-after": formatdate(time.time() + 5, usegmt=True)}) <= 5
    assert (
        _retry_after({"retry-after": "soon"}) == 0 == _retry_after({})
        and _retry_after({"retry-after": "9e9"}) == 120
    )


def test_a_full_context_ends_that_conversation_only():
    tasks = tasks_of("follow", 1) + [worlds.generate(random.Random(1), "follow", 1)]
    with served(tasks, limit=5) as (_, url):
        endpoint, (long, short) = exam(url, tasks)
    assert long.finish == "context" and not long.verdict().passed and endpoint.counts["context"] == 1
    assert short.finish == "stop" and short.verdict().passed


def test_a_turn_that_is_refused_ends_its_conversation_and_a_first_one_everything():
    tasks = tasks_of(count=1)
    with served(tasks, troubles=(None, (400, "cannot read arguments"))) as (_, url):
        _, (done,) = exam(url, tasks)
        assert done.finish == "refused" and not done.verdict().passed
    with (
        served(tasks, troubles=((400, "unknown field top_q"),)) as (_, url),
        pytest.raises(KimiError, match="top_q"),
    ):
        exam(url, tasks)


def test_a_key_is_sent_and_never_shown(tmp_path, capsys, monkeypatch):
    tasks = tasks_of(count=1)
    (tmp_path / "key").write_text("sk-secret-1\n")
    key = read_key(tmp_path / "key")
    with served(tasks, key="sk-secret-1") as (engine, url):
        endpoint, _ = exam(url, tasks, key=key, kept=tmp_path / "answers")
        assert set(engine.keys) == {"Bearer sk-secret-1"} and "secret" not in repr(endpoint)
        with pytest.raises(KimiError) as error:
            exam(url, tasks, key="sk-secret-2")
        assert "secret" not in str(error.value) and "401" in str(error.value)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
        with pytest.raises(KimiError):
            exam(url, tasks)
        assert engine.keys[-1] == "Bearer none"
    assert "secret" not in (tmp_path / "answers").read_text() + "".join(capsys.readouterr())
    (tmp_path / "key").write_text("two lines\nof secrets")
    with pytest.raises(KimiError) as error:
        read_key(tmp_path / "key")
    assert "secrets" not in str(error.value)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ((404, "no such model"), "end in /v1"),
        ((403, "no"), "key-file"),
        ((429, "pay", "insufficient_quota"), "pay"),
    ],
)
def test_what_will_not_get_better_is_told_at_once(trouble, says):
    tasks = tasks_of(count=1)
    with served(tasks, troubles=(trouble,) * 3) as (engine, url):
        with pytest.raises(KimiError, match=says):
            exam(url, tasks)
        assert len(engine.requests) == 1


def test_an_endpoint_that_is_down_is_no_failure_of_the_model():
    tasks = tasks_of(count=1)
    with served(tasks, troubles=(503,) * 9) as (engine, url), pytest.raises(KimiError, match="3 tries.*503"):
        exam(url, tasks, tries=3)
    assert len(engine.requests) == 3
    with pytest.raises(KimiError, match="2 tries"):
        exam("http://127.0.0.1:9/v1", tasks, tries=2)


def test_an_answer_that_takes_too_long_is_asked_again():
    tasks = tasks_of(count=1)
    with served(tasks, delay=1.0) as (_, url), pytest.raises(KimiError, match="2 tries"):
        exam(url, tasks, timeout=0.2, tries=2)


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_requests_than_allowed_are_on_their_way(parallel):
    tasks = tasks_of("follow", 6)
    with served(tasks, delay=0.05) as (engine, url):
        exam(url, tasks, parallel=parallel)
    assert engine.busiest == parallel


def test_thinking_off_is_asked_for():
    tasks = tasks_of("follow", 1)
    with served(tasks) as (engine, url):
        exam(url, tasks, thinking=False)
        exam(url, tasks, thinking=False, thinking_off={"thinking": {"type": "disabled"}}, extra={"top_k": 5})
        exam(url, tasks)
    assert engine.requests[0]["chat_template_kwargs"] == {"thinking": False}
    middle = [r for r in engine.requests if "top_k" in r]
    assert middle and all(r["thinking"] == {"type": "disabled"} for r in middle)
    assert "chat_template_kwargs" not in engine.requests[-1] and "thinking" not in engine.requests[-1]


def test_answers_are_kept_and_only_the_missing_ones_are_asked_for(tmp_path, run_calls):
    tasks, kept = tasks_of(), tmp_path / "answers"
    with served(tasks, troubles=(None,) * 4 + (401,)) as (engine, url):
        with pytest.raises(KimiError):
            exam(url, tasks, kept=kept, parallel=1)
        first = len(engine.requests)
        with kept.open("a") as file:
            file.write('\n["cut off')
        run_calls.clear()
        _, done = exam(url, tasks, kept=kept, parallel=1)
        check_done(done, run_calls)
        assert first == 5 and len(engine.requests) == first + sum(c.turns for c in done) - 4
        before = len(engine.requests)
        exam(url, tasks, kept=kept)
        assert len(engine.requests) == before
        exam(url, tasks, kept=kept, max_tokens=9)  # another exam
        assert len(engine.requests) > before


def test_attempts_at_a_task_are_told_apart(tmp_path):
    task = tasks_of(count=1)
    with served(task) as (engine, url):
        endpoint = Endpoint(url, "some", kept=tmp_path / "answers")
        loop.run(RemotePolicy(endpoint, 1.0, 0, [7, 8]), None, task * 2, ROOMY)
    firsts = [request["seed"] for request in engine.requests if len(request["messages"]) == 2]
    assert len(set(firsts)) == 2
    with served(task) as (engine, url):  # the requests are equal: nothing is sampled, no seed
        endpoint, done = exam(url, task * 2, parallel=1)
    assert len(engine.requests) == sum(c.turns for c in done) and done[0].turns == done[1].turns


@pytest.mark.parametrize(("exams", "own"), [(0.0, 0.7), (0.7, 0.0), (0.0, None), (0.7, None)])
def test_a_seed_goes_with_the_temperature_that_is_sent(exams, own):
    task = tasks_of(count=1)
    with served(task) as (engine, url):
        endpoint = Endpoint(url, "some", temperature=own)
        loop.run(RemotePolicy(endpoint, exams), None, task, ROOMY)
    sent = exams if own is None else own
    assert all((one["temperature"], "seed" in one) == (sent, sent > 0) for one in engine.requests)


def test_pieces_under_one_index_with_two_ids_are_two_calls():
    from types import SimpleNamespace as Bag

    def chunk(finish=None, **delta):
        delta = Bag(model_dump=lambda **_: delta_)
        return Bag(usage=None, choices=[Bag(delta=delta, finish_reason=finish)])

    def piece(**what):
        nonlocal delta_
        delta_ = {"tool_calls": [what]}
        return chunk()

    delta_ = {}

    def chunks():
        for one in "ab":
            yield piece(index=0, id=one, function={"name": "f", "arguments": '{"x":'})
            yield piece(index=0, id=one, function={"name": "f", "arguments": "1}"})
        yield Bag(usage=None, choices=[Bag(delta=None, finish_reason="stop")])

    calls = joined(chunks()).message["tool_calls"]
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("a", "f", '{"x":1}'),
        ("b", "f", '{"x":1}'),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://x/v1",
        "http://user:pw@x/v1",
        "http://x/v1?key=1",
        "http://[::1/v1",
        "http://x:99999/v1",
        "http://user:pw@x:99999/v1",
    ],
)
def test_an_address_that_is_none_is_refused_without_a_secret(url):
    with pytest.raises(KimiError) as error:
        Endpoint(url, "some")
    assert "pw" not in str(error.value) and "key=1" not in str(error.value)


def test_an_older_httpx_is_not_needed(monkeypatch):
    """The client has its own, and wraps nearly all of its errors."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    tasks = tasks_of(count=1)
    with served(tasks, troubles=("endless", "cut", "half")) as (_, url):
        endpoint, (done,) = exam(url, tasks)
    assert done.verdict().passed and endpoint.counts["again"] == 3


def test_without_the_client_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(KimiError, match=r"pip install '\.\[serve\]'"):
        Endpoint("http://x/v1", "some")
