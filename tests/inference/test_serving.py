"""The endpoint as the openai client meets it.

models, keys, unknown models     test_models_and_the_key
calls, thoughts, usage           test_a_call_comes_with_its_thought_and_is_counted
streams                          test_a_stream_put_together_is_the_answer_at_once
tool_choice, parallel, none      test_what_may_be_called_is_what_was_chosen
reflex, budget                   test_thoughts_can_be_off_or_short
stop, max_tokens                 test_where_an_answer_ends
temperature, top_p, seed, n      test_sampling_is_as_asked
logprobs                         test_log_probabilities_are_those_of_the_text
response_format                  test_an_answer_has_the_format_that_was_asked_for
many at a time                   test_many_at_once_get_what_each_gets_alone
ids of any style                 test_a_chain_goes_on_whatever_its_ids_look_like
refusals                         test_what_is_wrong_is_said; test_serving_requests.py, field by field
clients that leave               test_who_leaves_takes_the_row_along; test_serving_limits.py
limits, errors, metrics, page    test_serving_limits.py
markers, letters, stops in parts test_answer_stream.py
"""

import concurrent.futures
import json
import time
import urllib.request

import httpx
import pytest
from openai import APIStatusError, NotFoundError, OpenAI

from kimi_mini.agent import conversation as state
from kimi_mini.agent.folder import load_agent
from kimi_mini.agent.serve import serving
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.inference.api import respond
from kimi_mini.worlds.registry import held_out_tasks

KEY = "a long key"
CHAIN = [{"role": "user", "content": "a 4*7 b 2 c -5 d 3"}]


@pytest.fixture(scope="module")
def url():
    with serving(CHECKPOINTS / "final", places=4, key=KEY) as found:
        yield found


@pytest.fixture(scope="module")
def client(url):
    return OpenAI(base_url=url, api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def shop():
    opened = state.opening(held_out_tasks("follow", [4], 1, seed=5)[0])
    return {"model": "final", "messages": opened.messages, "tools": opened.tools}


def chain(level=3):
    return state.first_messages(held_out_tasks("chain", [level], 1, seed=5)[0])


def ask(client, **more):
    return client.chat.completions.create(**{"model": "final"} | more)


def test_models_and_the_key(client, url):
    assert [one.id for one in client.models.list().data] == ["final"]
    assert client.models.retrieve("final") == client.models.list().data[0]
    for name in ("other", "final/x", "finale"):
        with pytest.raises(NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.code == "model_not_found" and caught.value.param == "model"
    assert httpx.get(f"{url}/models/final").status_code == 401
    for key in ("x", KEY[:-1], KEY + "x", KEY.upper()):
        answer = httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"


def test_a_call_comes_with_its_thought_and_is_counted(client, shop):
    model, tokenizer = load_agent(CHECKPOINTS / "final")
    here = respond(model, tokenizer, shop["messages"], shop["tools"])
    there = client.chat.completions.create(**shop)
    said, wanted = there.choices[0].message, here["choices"][0]["message"]
    assert there.choices[0].finish_reason == "tool_calls" and said.content is None
    assert said.reasoning_content == said.reasoning == wanted["reasoning_content"] != ""
    assert [one.model_dump()["function"] for one in said.tool_calls] == [
        one["function"] for one in wanted["tool_calls"]
    ]
    assert said.tool_calls[0].id == "functions.next:0"
    usage = here["usage"]
    assert there.usage.prompt_tokens == usage["prompt_tokens"]
    assert there.usage.completion_tokens == usage["completion_tokens"]
    again = client.chat.completions.create(**shop)
    assert again.usage.prompt_tokens_details.cached_tokens >= usage["prompt_tokens"] - 1


def together(client, **body):
    parts = {"reasoning_content": "", "content": "", "calls": {}}
    finish, used = None, None
    for event in client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}):
        used = event.usage or used
        for choice in event.choices:
            delta = choice.delta
            parts["reasoning_content"] += getattr(delta, "reasoning_content", None) or ""
            parts["content"] += delta.content or ""
            for call in delta.tool_calls or []:
                one = parts["calls"].setdefault(call.index, [call.id, call.function.name, ""])
                one[2] += call.function.arguments or ""
            finish = choice.finish_reason or finish
    return parts, finish, used


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_put_together_is_the_answer_at_once(client, shop, seed):
    """Greedy and sampled, with tools and without, cut short and not; markers never reach a client."""
    body = shop if seed % 2 else {"model": "final", "messages": chain()}
    body = body | {"temperature": 1.5 if seed > 1 else 0.0, "seed": seed, "max_tokens": 60}
    parts, finish, used = together(client, **body)
    whole = client.chat.completions.create(**body)
    said = whole.choices[0].message
    assert (parts["reasoning_content"], parts["content"]) == (said.reasoning_content, said.content or "")
    calls = [[one.id, one.function.name, one.function.arguments] for one in said.tool_calls or []]
    assert list(parts["calls"].values()) == calls and finish == whole.choices[0].finish_reason
    assert used.completion_tokens == whole.usage.completion_tokens
    assert "<|" not in parts["content"] + parts["reasoning_content"]


def test_what_may_be_called_is_what_was_chosen(client, shop):
    none = client.chat.completions.create(**shop, tool_choice="none", max_tokens=40).choices[0]
    assert not none.message.tool_calls and none.finish_reason in ("stop", "length")
    name = shop["tools"][-1]["function"]["name"]
    one = {"type": "function", "function": {"name": name}}
    forced = client.chat.completions.create(**shop, tool_choice=one).choices[0]
    assert [call.function.name for call in forced.message.tool_calls] == [name]
    must = client.chat.completions.create(**shop, tool_choice="required", parallel_tool_calls=False).choices[
        0
    ]
    assert len(must.message.tool_calls) == 1 and json.loads(must.message.tool_calls[0].function.arguments)


def test_thoughts_can_be_off_or_short(client):
    off = ask(client, messages=chain(), extra_body={"chat_template_kwargs": {"thinking": False}})
    assert off.choices[0].message.reasoning_content == "" and off.choices[0].message.content
    assert off.usage.completion_tokens_details.reasoning_tokens == 0
    full = ask(client, messages=chain(6))
    short = ask(client, messages=chain(6), extra_body={"thinking_budget": 3})
    here = respond(*load_agent(CHECKPOINTS / "final"), chain(6), budget=3)["usage"]
    assert here["completion_tokens_details"]["forced_tokens"] == 1  # which is nobody's to pay
    assert short.usage.completion_tokens == here["completion_tokens"]
    spent = [one.usage.completion_tokens_details.reasoning_tokens for one in (full, short)]
    assert spent[0] > 3 and spent[1] == 3
    assert full.choices[0].message.reasoning_content.startswith(short.choices[0].message.reasoning_content)


def test_where_an_answer_ends(client):
    whole = ask(client, messages=chain()).choices[0].message.content
    cut = ask(client, messages=chain(), stop=[whole[1:]])
    assert cut.choices[0].message.content == whole[:1] and cut.choices[0].finish_reason == "stop"
    none = ask(client, messages=chain(), stop=[whole])
    assert none.choices[0].message.content == "" and none.choices[0].finish_reason == "stop"
    few = ask(client, messages=chain(), max_tokens=4)
    assert few.choices[0].finish_reason == "length" and few.usage.completion_tokens == 4
    assert ask(client, messages=chain(), max_completion_tokens=5).usage.completion_tokens == 5


def test_sampling_is_as_asked(client):
    body = {"messages": chain(), "temperature": 2.0, "max_tokens": 30}
    texts = [ask(client, **body, seed=seed).choices[0].message.reasoning_content for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    several = ask(client, **body, seed=1, n=3)
    assert len({one.message.reasoning_content for one in several.choices}) == 3
    assert [one.index for one in several.choices] == [0, 1, 2]
    assert several.usage.prompt_tokens == ask(client, **body).usage.prompt_tokens  # read once
    assert several.choices[0].message.reasoning_content == texts[0]
    greedy = ask(client, messages=chain(), max_tokens=30).choices[0].message.reasoning_content
    assert ask(client, **body, seed=3, top_p=1e-9).choices[0].message.reasoning_content == greedy


def test_log_probabilities_are_those_of_the_text(client):
    found = ask(client, messages=chain(), logprobs=True, top_logprobs=2).choices[0]
    words = [one.token for one in found.logprobs.content]
    assert "".join(words) == found.message.content
    for one in found.logprobs.content:
        best = one.top_logprobs[0]
        assert best.token == one.token and best.logprob == one.logprob <= 0 and len(one.top_logprobs) == 2


def test_a_stream_of_several_choices_says_their_log_probabilities_too(client):
    body = {"messages": chain(), "temperature": 1.2, "seed": 4, "n": 2, "logprobs": True, "top_logprobs": 1}
    body["extra_body"] = {"thinking": False}
    whole = ask(client, **body)
    texts, likely, finishes = ["", ""], [[], []], [None, None]
    for event in ask(client, **body, stream=True):
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
            likely[choice.index] += choice.logprobs.content if choice.logprobs else []
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
    assert texts == [one.message.content or "" for one in whole.choices]
    for found, one in zip(likely, whole.choices):
        assert [word.token for word in found] == [word.token for word in one.logprobs.content] != []
        expected = [word.logprob for word in one.logprobs.content]
        assert [word.logprob for word in found] == pytest.approx(expected, abs=1e-3)
    assert finishes == [one.finish_reason for one in whole.choices]
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_an_answer_has_the_format_that_was_asked_for(client):
    schema = {"type": "object", "properties": {"x": {"enum": ["ja", "nein"]}}, "required": ["x"]}
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": schema | {"additionalProperties": False}},
    }
    found = ask(client, messages=chain(), response_format=wanted, temperature=2.0, seed=1).choices[0]
    assert json.loads(found.message.content)["x"] in ("ja", "nein") and found.finish_reason == "stop"


def test_many_at_once_get_what_each_gets_alone(client):
    """More than there are places, of different lengths, with tools and without; twice, so that prompts are kept."""
    tasks = [*held_out_tasks("chain", [1, 3, 5], 6, seed=7), *held_out_tasks("buy", [1, 2], 4, seed=7)]
    bodies = [(opened.messages, opened.tools or None) for opened in map(state.opening, tasks)]
    model, tokenizer = load_agent(CHECKPOINTS / "final")
    alone = [respond(model, tokenizer, *body) for body in bodies]

    def one(body):
        messages, tools = body
        return ask(client, messages=messages, **({"tools": tools} if tools else {}))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, bodies * 2))
    assert len({here["usage"]["prompt_tokens"] for here in alone}) > 3, "nobody else's prompt is counted"
    for whole, wanted in zip(found, alone * 2):
        there, here = whole.choices[0], wanted["choices"][0]
        assert whole.usage.prompt_tokens == wanted["usage"]["prompt_tokens"]
        assert whole.usage.completion_tokens == wanted["usage"]["completion_tokens"]
        assert (
            there.message.content == here["message"]["content"]
            and there.finish_reason == here["finish_reason"]
        )
        assert there.message.reasoning_content == here["message"]["reasoning_content"]
        calls = [call.function.model_dump() for call in there.message.tool_calls or []]
        assert calls == [call["function"] for call in here["message"].get("tool_calls", [])]


def test_a_chain_goes_on_whatever_its_ids_look_like(client, shop):
    first = client.chat.completions.create(**shop).choices[0].message
    answers = []
    for style in ("functions.next:0", "call_8f2a"):
        call = first.tool_calls[0].model_dump() | {"id": style}
        turn = {
            "role": "assistant",
            "content": None,
            "tool_calls": [call],
            "reasoning_content": first.reasoning_content,
        }
        result = {"role": "tool", "tool_call_id": style, "content": '{"next":"red rice"}'}
        answers.append(
            ask(client, messages=[*shop["messages"], turn, result], tools=shop["tools"]).choices[0].message
        )
    assert answers[0].tool_calls[0].id == answers[1].tool_calls[0].id == "functions.next:1"
    assert answers[0].tool_calls[0].function == answers[1].tool_calls[0].function


@pytest.mark.parametrize(
    "body, status, says",
    [
        ({"model": "other"}, 404, "no model 'other'"),
        ({"mood": "kind"}, 400, "mood: is not known here"),
        ({"n": 0}, 400, "n: "),
        ({"temperature": float("nan")}, 400, "temperature"),
        ({"messages": []}, 400, "messages: "),
        (
            {"messages": [{"role": "tool", "tool_call_id": "x", "content": ""}]},
            400,
            "no call before it has the id 'x'",
        ),
        ({"messages": [{"role": "user", "content": "a b " * 9000}]}, 400, "the context holds"),
        ({"tool_choice": "required"}, 400, "no tools are declared"),
        ({"messages": [{"role": "banana", "content": "x"}]}, 400, "message 0: role must be one of system, "),
        ({"messages": [{"role": "user"}]}, 400, "message 0: content is missing"),
        (b"{", 400, "the body is no JSON"),
        (b"[" * 100_000, 400, "the body is no JSON"),
        (b'{"x": "' + b"a" * 2**21 + b'"}', 413, "more than 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_said(url, body, status, says):
    raw = (
        body if isinstance(body, bytes) else json.dumps({"model": "final", "messages": CHAIN} | body).encode()
    )
    answer = httpx.post(f"{url}/chat/completions", content=raw, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == status and says in answer.json()["error"]["message"]
    assert "\n" not in answer.json()["error"]["message"]


def test_who_leaves_takes_the_row_along(client, url):
    """The place is free again at once, and what it holds does not disturb who comes next."""
    before = ask(client, messages=chain(7)).choices[0].message
    body = {"model": "final", "messages": chain(8), "temperature": 2.0, "max_tokens": 4000, "stream": True}
    for _ in range(5):  # one more than there are places
        with httpx.stream(
            "POST", f"{url}/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}
        ) as stream:
            next(stream.iter_lines())
    until = time.monotonic() + 10
    while json.load(urllib.request.urlopen(url.removesuffix("v1") + "health"))["running"]:
        assert time.monotonic() < until, "rows stay"
        time.sleep(0.05)
    assert ask(client, messages=chain(7)).choices[0].message == before


def test_a_refusal_is_the_clients_own_error(client):
    with pytest.raises(APIStatusError) as found:
        ask(client, messages=CHAIN, n=99)
    assert found.value.status_code == 400 and found.value.body["param"] == "n"
