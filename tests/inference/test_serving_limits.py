"""The endpoint when something is wrong: too many, too late, too large, gone, broken. Everybody is told, in one line, and
who comes next is served. The model is a tiny one that waits at a gate, so that nothing here depends on speed."""

import concurrent.futures
import contextlib
import http.client
import json
import socket
import threading
import time

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from tiny import tiny_model

from kimi_mini.agent import serve
from kimi_mini.agent.folder import load_agent, save_agent
from kimi_mini.inference import writer
from kimi_mini.inference.api import respond
from kimi_mini.inference.serving.answer import Answer
from kimi_mini.inference.serving.constrained import Constraint
from kimi_mini.model.compact.lora import Adapter

PATIENCE = 30
HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("agent") / "tiny"
    save_agent(tiny_model(), made)
    return made


class Running:
    """An endpoint, its engine, and the gate at which every token waits."""

    def __init__(self, url, engine):
        self.url, self.engine, self.gate, self.breaks = url, engine, threading.Event(), None
        self.gate.set()
        extend = engine.writer.decoder.extend

        def gated(tokens):
            assert self.gate.wait(PATIENCE)
            if self.breaks:
                raise self.breaks
            return extend(tokens)

        engine.writer.decoder.extend = gated
        self.pool = concurrent.futures.ThreadPoolExecutor(8)

    def post(self, headers=None, **body):
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 3} | body
        return httpx.post(f"{self.url}/chat/completions", json=body, headers=headers, timeout=PATIENCE)

    def later(self, **body):
        return self.pool.submit(self.post, **body)

    def get(self, path):
        return httpx.get(self.url.removesuffix("/v1") + path)

    def until(self, what):
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def count(self, name, **labels):
        samples = [
            s for family in text_string_to_metric_families(self.get("/metrics").text) for s in family.samples
        ]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


@pytest.fixture
def start(folder, monkeypatch):
    with contextlib.ExitStack() as stack:

        def begin(**more):
            made, build = [], serve.build
            with monkeypatch.context() as patch:
                patch.setattr(serve, "build", lambda *given: made.append(build(*given)) or made[-1])
                url = stack.enter_context(serve.serving(folder, **more))
            running = Running(url, made[0][1])
            stack.callback(running.pool.shutdown)
            stack.callback(running.gate.set)
            return running

        yield begin


def said(answer):
    """The error, whose shape is OpenAI's."""
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.json()["error"]


@pytest.mark.parametrize("more", [{}, {"thinking": False}, {"thinking": False, "stop": ["e", "or", "th"]}])
def test_what_a_stream_held_back_comes_at_its_end(start, more):
    """A thought was to come and did not, half letters, half stop strings: a model without any sense does all of it."""
    running = start(places=2)
    for seed in range(8):
        body = {"temperature": 1.0, "seed": seed, "max_tokens": 20, **more}
        whole = running.post(**body).json()["choices"][0]
        lines = running.post(**body, stream=True).text.split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        events = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]
        for name in ("content", "reasoning_content"):
            assert "".join(event["delta"].get(name) or "" for event in events) == (
                whole["message"][name] or ""
            )
        assert [event["finish_reason"] for event in events if event["finish_reason"]] == [
            whole["finish_reason"]
        ]
        assert not any(stop in (whole["message"]["content"] or "") for stop in more.get("stop", []))


def test_an_answer_that_goes_round_ends_early_as_one_that_is_cut_off(start, monkeypatch):
    """It held its place to the end of the context, 8,192 tokens."""
    stutters = lambda logits, *_, **__: (torch.full((len(logits),), 5), torch.zeros(len(logits)))
    monkeypatch.setattr(writer, "sample", stutters)
    running = start(places=1)
    whole = running.post(max_tokens=None).json()
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == writer.SHORTEST
    assert '"finish_reason": "length"' in running.post(stream=True, max_tokens=500).text
    assert running.count("kimi_requests_total", status="200") == 2
    free = start(places=1, loops=0, tokens=300)
    assert free.post(max_tokens=None).json()["usage"]["completion_tokens"] == 300
    assert free.post(max_tokens=301).json()["usage"]["completion_tokens"] == 301


def test_more_answers_than_there_is_room_for_are_refused_once_and_for_all(start):
    """Whoever comes again finds no more room."""
    running = start(places=1, queue=2)
    refused = running.post(n=4)
    assert (
        refused.status_code == 400
        and said(refused)["param"] == "n"
        and "at most 3" in said(refused)["message"]
    )
    assert len(running.post(n=3).json()["choices"]) == 3


def test_a_full_queue_says_come_again(start):
    running = start(places=1, queue=1)
    running.gate.clear()
    first = running.later()
    running.until(lambda: running.engine.live)
    second = running.later()
    running.until(lambda: running.engine.waiting)
    refused = running.post()
    assert refused.status_code == 429 and said(refused)["code"] == "queue_full"
    assert refused.headers["Retry-After"] == "1"
    assert running.get("/health").json() == {"status": "ok", "running": 1, "waiting": 1}
    assert (running.count("kimi_rows", state="running"), running.count("kimi_rows", state="waiting")) == (
        1,
        1,
    )
    running.gate.set()
    assert first.result().status_code == second.result().status_code == 200
    assert running.count("kimi_requests_total", status="429") == 1
    assert running.count("kimi_requests_total", status="200") == 2
    assert running.count("kimi_tokens_total", kind="written") == 6
    read = sum(one.result().json()["usage"]["prompt_tokens"] for one in (first, second))
    assert running.count("kimi_tokens_total", kind="read") == read
    assert running.count("kimi_first_token_seconds_count") == running.count("kimi_request_seconds_count") == 2


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_may_not_take_for_ever(start, stream):
    running = start(places=1, timeout=0.2)
    running.gate.clear()
    waits = running.later(stream=stream)
    running.until(lambda: running.engine.live)
    time.sleep(0.3)
    running.gate.set()
    if stream:
        *_, last = [line for line in waits.result().text.splitlines() if line]
        error = json.loads(last.removeprefix("data: "))["error"]
    else:
        assert waits.result().status_code == 504
        error = said(waits.result())
    assert error["type"] == "timeout" and "0.2 seconds" in error["message"]
    running.until(lambda: not running.engine.live)
    assert running.count("kimi_requests_total", status="504") == 1 and running.post().status_code == 200


def test_an_engine_that_broke_down_leaves_nobody_waiting(start):
    running = start(places=1)
    running.gate.clear()
    asked = [running.later(), running.later(), running.later(stream=True)]
    running.until(lambda: len(running.engine.live) + len(running.engine.waiting) == 3)
    running.breaks = RuntimeError("out of memory")
    running.gate.set()
    assert [one.result().status_code for one in asked] == [503, 503, 200]
    assert '"type": "server_error"' in asked[2].result().text and "[DONE]" not in asked[2].result().text
    health = running.get("/health")
    assert health.status_code == 503 and health.json()["status"] == "broken"
    after = running.post()
    assert after.status_code == 503 and after.headers["Retry-After"] == "1"


@pytest.mark.parametrize("broken", [(Answer, "heard"), (Constraint, "_follow")], ids=["read", "held"])
def test_an_answer_that_cannot_be_finished_fails_alone(start, monkeypatch, broken):
    """Also where a grammar stops in the middle of a call: that turn is no whole one."""
    running = start(places=2)
    with monkeypatch.context() as patch:
        patch.setattr(*broken, lambda *_: 1 / 0)
        answer = running.post(tools=TOOLS, tool_choice="required", thinking=False, max_tokens=9)
    assert answer.status_code == 500 and "could not be finished" in said(answer)["message"]
    assert running.post().status_code == 200 and running.get("/health").status_code == 200


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("when", ["writes", "waits"])
def test_who_leaves_takes_the_row_along(start, stream, when):
    """Before a token of it has come, whoever waits for all of it, and whoever still waits for a place."""
    running = start(places=1)
    running.gate.clear()
    first = running.later() if when == "waits" else None
    if first:
        running.until(lambda: running.engine.live)
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 4000, "temperature": 2, "stream": stream}
    text = json.dumps(body).encode()
    host, port = running.url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
        client.sendall(head.encode() + text)
        running.until(lambda: running.engine.waiting if first else running.engine.live)
        [job] = [*running.engine.waiting] if first else running.engine.live.values()
    running.until(lambda: job.cancelled)  # nothing was written meanwhile: the gate is shut
    running.gate.set()
    if first:
        assert first.result().status_code == 200
    running.until(lambda: job.ended)
    assert job.ended == "cancelled" and len(job.row.ids) <= 1 and not running.engine.writer.rows
    assert running.count("kimi_requests_total", status="left") == 1 and running.post().status_code == 200


def test_a_body_is_refused_while_it_is_read(start):
    """More than is allowed: told before the end, which never comes."""
    running = start(places=1, body=1000)
    host, port = running.url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        client.sendall(b"a" * 1001)
        assert client.recv(100).startswith(b"HTTP/1.1 413")
    assert running.post(messages=[{"role": "user", "content": "a" * 700}]).status_code == 200
    assert running.post(messages=[{"role": "user", "content": "a" * 1000}]).status_code == 413


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/page/worlds"])
def test_a_key_is_compared_whole(start, path):
    key = "sésame-0123456789"
    running = start(places=1, key=key)

    def status(given):
        """Sent as it is, by a client without opinions."""
        host = running.url.removeprefix("http://").removesuffix("/v1")
        with contextlib.closing(http.client.HTTPConnection(host, timeout=PATIENCE)) as line:
            line.request("GET", path, headers={} if given is None else {"Authorization": given})
            return line.getresponse().status

    whole = key.encode()
    for wrong in (
        whole[:-1],
        whole + b"x",
        whole[:1],
        b"",
        whole.upper(),
        b"\xff\xfe",
        whole.replace(b"0", b"1"),
    ):
        assert status(b"Bearer " + wrong) == 401, wrong
    for wrong in (None, b"", b"Bearer", whole, b"Basic " + whole, b"Bearer  " + whole):
        assert status(wrong) == 401, wrong
    assert status(b"Bearer " + whole) == status(b"bearer " + whole) == 200
    for open_to_all in ("/health", "/"):
        assert running.get(open_to_all).status_code == 200
    assert running.post().status_code == 401
    assert (
        httpx.post(running.url.removesuffix("v1") + "page/tasks", json={"world": "shop"}).status_code == 401
    )


def test_routes_that_are_not_there_are_json_too(start):
    running = start(places=1)
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/health", 405),
    ):
        answer = httpx.request(method, running.url.removesuffix("/v1") + path)
        assert answer.status_code == status and path in said(answer)["message"]


def test_the_page_draws_tasks_and_runs_their_tools(start):
    running = start(places=1)
    root = running.url.removesuffix("v1")
    assert "<title>kimi_mini" in httpx.get(root).text
    assert "shop" in [one["name"] for one in httpx.get(f"{root}page/worlds").json()["worlds"]]
    drawn = httpx.post(f"{root}page/tasks", json={"world": "shop"}).json()
    call = {"id": "functions.x:0", "function": {"name": "x", "arguments": "{}"}}
    found = httpx.post(f"{root}page/call", json={"session": drawn["session"], "call": call})
    assert found.status_code == 200 and "x" in found.json()["content"]
    for path, body in (
        ("tasks", {"world": "moon"}),
        ("tasks", []),
        ("call", {"session": "other", "call": call}),
        ("call", {"session": drawn["session"], "call": ["x"]}),
        ("call", {"session": drawn["session"], "call": {"function": {"name": 3}}}),
    ):
        answer = httpx.post(f"{root}page/{path}", json=body)
        assert answer.status_code == 400 and said(answer)["message"], (path, body)
    assert httpx.post(f"{root}page/tasks", content=b"[" * 100_000).status_code == 400


def test_adapters_are_models_by_their_names_and_share_no_latents(start, folder, tmp_path):
    model, tokenizer = load_agent(folder)
    adapter = Adapter.new(model, 4, 12.0)
    for name in adapter.names:
        torch.nn.init.normal_(adapter[name].b, 0.0, 0.15)
    adapter.save(tmp_path / "other")
    running = start(places=2, adapters={"other": str(tmp_path / "other")})
    assert [one["id"] for one in running.get("/v1/models").json()["data"]] == ["tiny", "other"]
    assert [running.get(f"/v1/models/{name}").json()["id"] for name in ("tiny", "other")] == ["tiny", "other"]
    wanted = {
        name: respond(served, tokenizer, HELLO, max_tokens=12)["choices"][0]["message"]["content"]
        for name, served in (("tiny", model), ("other", adapter.merged(model)))
    }
    assert wanted["tiny"] != wanted["other"]
    names = ["tiny", "other", "other", "tiny", "other", "tiny"]
    answers = [one.result().json() for one in [running.later(model=name, max_tokens=12) for name in names]]
    assert [one["choices"][0]["message"]["content"] for one in answers] == [wanted[name] for name in names]
    assert [one["model"] for one in answers] == names
    missing = running.post(model="third")
    assert (
        missing.status_code == 404
        and said(missing)["code"] == "model_not_found"
        and "other" in said(missing)["message"]
    )


def test_of_many_requests_none_is_lost_and_none_is_answered_twice(start):
    """One in ten leaves at once, one in twenty is malformed; each of the others gets its own answer."""
    running = start(places=4, queue=200)

    def one(number):
        if number % 20 == 3:
            return httpx.post(f"{running.url}/chat/completions", content=b'{"n":').status_code
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": f"number {number % 7}"}],
            "max_tokens": 9,
        }
        if number % 10 == 6:
            with httpx.stream(
                "POST", f"{running.url}/chat/completions", json=body | {"stream": True}
            ) as stream:
                return next(stream.iter_lines())[:5]
        found = httpx.post(f"{running.url}/chat/completions", json=body, timeout=PATIENCE).json()
        return found["id"], found["choices"][0]["message"]["content"], found["usage"]["completion_tokens"]

    answers = list(running.pool.map(one, range(160)))
    assert answers[3::20] == [400] * 8 and answers[6::10] == ["data:"] * 16
    whole = {number: answers[number] for number in range(160) if number % 20 != 3 and number % 10 != 6}
    assert len({name for name, _, _ in whole.values()}) == len(whole)
    for number, (_, text, written) in whole.items():
        assert (text, written) == whole[next(other for other in whole if other % 7 == number % 7)][1:]
    assert len({text for _, text, _ in whole.values()}) == 7
    running.until(lambda: not running.engine.live and not running.engine.waiting)
    assert running.count("kimi_requests_total", status="400") == 8
    assert running.count("kimi_requests_total") == 160  # those that left were counted, as left or as answered
