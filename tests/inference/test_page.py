"""The page of the endpoint, in Chromium: send, watch thought, call and result come, stop; and nothing that the model, a
tool or the server says becomes markup. The server here is a script, so that every stream can be cut where it hurts."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from browser import chromium, needs_browser, wait
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from kimi_mini.agent.serve import serving
from kimi_mini.base.paths import CHECKPOINTS, ROOT
from kimi_mini.inference.writer import Writer
from kimi_mini.worlds import WORLDS

FILE = Path(ROOT) / "kimi_mini" / "inference" / "serving" / "page.html"
PAGE = FILE.read_text(encoding="utf-8")
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
EVIL = "<img src=x onerror='window.hacked=1'><b>bold</b><script>window.hacked=1</script>"


# ----------------------------------------------------------------------------------------------- the server
def event(delta=None, finish=None, **more):
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return f"data: {json.dumps({'choices': choices, **more}, ensure_ascii=False)}\n\n".encode()


def call(index, name=None, arguments="", name_of=None):
    return event(
        {"tool_calls": [{"index": index, "id": name_of, "function": {"name": name, "arguments": arguments}}]}
    )


DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}\n\n'


class Server(ThreadingHTTPServer):
    """Answers chat requests from `script`, one entry a request: (status, body) or a list of bytes and Events to wait for.
    What was asked is kept; `left` is set when a client went away in mid-stream."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.reset()

    def reset(self, *script, result="found it", world="shop"):
        self.script, self.asked, self.left = list(script), [], threading.Event()
        self.result, self.world = result, world

    def chats(self):
        return [body for path, body, _ in self.asked if path == "/v1/chat/completions"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.server.asked.append((self.path, None, dict(self.headers)))
        if self.path == "/":
            return self.reply(PAGE.encode(), kind="text/html; charset=utf-8")
        if self.path == "/v1/models":
            return self.reply({"data": [{"id": "final"}]})
        if self.path == "/page/worlds":
            return self.reply({"worlds": [{"name": self.server.world, "says": "look things up"}]})
        return self.reply({"error": {"message": "no such page"}}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, dict(self.headers)))
        if self.path == "/page/tasks":
            first = {"role": "system", "content": "You are Kimi."}
            return self.reply(
                {"session": "s1", "tools": TOOLS, "messages": [first, {"role": "user", "content": "Find a."}]}
            )
        if self.path == "/page/call":
            return self.reply({"content": self.server.result})
        step = self.server.script.pop(0)
        if isinstance(step, tuple):
            return self.reply(step[1], step[0])
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for part in step:
                if isinstance(part, threading.Event):
                    while not part.wait(0.05):
                        self.wfile.write(b": waiting\n\n")  # fails once the client has gone
                else:
                    self.wfile.write(part)
                    self.wfile.flush()
        except OSError:
            self.server.left.set()


# ------------------------------------------------------------------------------------------------- fixtures
@pytest.fixture(scope="module")
def server():
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("page")) as found:
        yield found


class Page:
    """The page as a reader handles it."""

    def __init__(self, driver, server):
        self.driver = driver
        driver.get(server.url)
        wait("the worlds", 10, lambda: len(self.all("#world option")) == 2)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        [found] = self.all(selector)
        return found

    def pieces(self):
        return self.driver.execute_script(
            "return [...document.querySelectorAll('.piece')].map(p => [p.classList[1], p.querySelector('pre').textContent])"
        )

    def choose(self):
        self.all("#world option")[1].click()
        self.one("#draw").click()
        wait("a task", 10, lambda: self.one("#text").get_property("value"))

    def send(self, words, key=Keys.ENTER):
        self.one("#text").send_keys(words, key)

    def rests(self):
        return wait("the end", 10, lambda: self.one("#send").is_enabled())


@pytest.fixture
def page(driver, server):
    server.reset()
    return lambda *script, **options: server.reset(*script, **options) or Page(driver, server)


THINKS = [
    event({"role": "assistant"}),
    event({"reasoning_content": "look for "}),
    event({"reasoning_content": "a"}),
]
CALLS = [
    call(0, "find", name_of="functions.find:0"),
    call(0, arguments='{"item"'),
    call(0, arguments=': "a"}'),
    event(finish="tool_calls"),
    USAGE,
    DONE,
]
ANSWERS = [event({"content": "It is "}), event({"content": "blue."}), event(finish="stop"), USAGE, DONE]


# --------------------------------------------------------------------------------------------------- static
def test_the_page_is_one_file_that_writes_text_as_text():
    assert "Content-Security-Policy" in PAGE and "default-src 'none'" in PAGE
    for outside in re.findall(r"""(?:src|href|url\(|import)\s*[=(]?\s*["']?([^"'\s>)]+)""", PAGE):
        assert not re.match(r"(?:https?:)?//", outside), outside
    for way_in in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "DOMParser",
        "setAttribute",
    ):
        assert way_in not in PAGE, way_in


# ------------------------------------------------------------------------------------------------- browser
@needs_browser
@pytest.mark.slow
def test_thought_call_result_and_answer_come_in_their_order(page, server):
    shown = page([*THINKS, *CALLS], ANSWERS)
    shown.choose()
    shown.one("#budget").send_keys("16")
    shown.one("#key").send_keys("secret")
    shown.send("")
    shown.rests()
    assert shown.pieces() == [
        ["user", "Find a."],
        ["thought", "look for a"],
        ["call", 'find {"item": "a"}'],
        ["result", "found it"],
        ["answer", "It is blue."],
    ]
    first, second = server.chats()
    assert (
        first["stream"]
        and first["tools"] == TOOLS
        and first["thinking_budget"] == 16
        and first["model"] == "final"
    )
    assert first["chat_template_kwargs"] == {"thinking": True}
    assert [one["role"] for one in first["messages"]] == ["system", "user"]
    said, result = second["messages"][2:]
    assert (
        said["reasoning_content"] == "look for a"
        and said["tool_calls"][0]["function"]["arguments"] == '{"item": "a"}'
    )
    assert (result["role"], result["tool_call_id"], result["content"]) == (
        "tool",
        "functions.find:0",
        "found it",
    )
    [(_, asked, headers)] = [one for one in server.asked if one[0] == "/page/call"]
    assert asked["session"] == "s1" and asked["call"]["function"]["name"] == "find"
    assert headers["Authorization"] == "Bearer secret"
    assert "7 tokens read, 5 written" in shown.one("#state").text


@needs_browser
@pytest.mark.slow
def test_words_are_there_before_the_turn_ends(page):
    gate = threading.Event()
    shown = page([*THINKS, gate, *ANSWERS])
    shown.send("hello")
    try:
        wait("the thought", 10, lambda: shown.pieces()[-1] == ["thought", "look for a"])
        assert not shown.one("#send").is_enabled() and shown.all(".live")
    finally:
        gate.set()
    shown.rests()
    assert shown.pieces()[-1] == ["answer", "It is blue."] and not shown.all(".live")


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("way", ["button", "escape"])
def test_stop_ends_the_stream_at_the_server_and_the_request_can_be_sent_again(way, page, server):
    gate = threading.Event()
    shown = page([*THINKS, gate], ANSWERS)
    shown.send("hello")
    wait("the thought", 10, lambda: shown.pieces()[-1][0] == "thought")
    if way == "button":
        shown.one("#stop").click()
    else:
        shown.one("#text").send_keys(Keys.ESCAPE)
    shown.rests()
    assert server.left.wait(10), "the server goes on for nobody"
    gate.set()
    assert shown.pieces()[-1] == ["alert", "You stopped the agent."] and not shown.one("#stop").is_enabled()
    assert shown.one("#text").get_property("value") == "hello"
    shown.send("")
    shown.rests()
    assert [one["role"] for one in server.chats()[-1]["messages"]] == [
        "user"
    ]  # no half turn, and not asked twice


@needs_browser
@pytest.mark.slow
def test_a_request_without_an_answer_is_forgotten_though_the_next_is_written_already(page, server):
    gate = threading.Event()
    shown = page([*THINKS, gate], ANSWERS)
    shown.send("hello")
    wait("the thought", 10, lambda: shown.pieces()[-1][0] == "thought")
    shown.one("#text").send_keys("the next")
    shown.one("#stop").click()
    shown.rests()
    gate.set()
    assert shown.one("#text").get_property("value") == "the next"
    shown.send("")
    shown.rests()
    assert server.chats()[-1]["messages"] == [{"role": "user", "content": "the next"}]


@needs_browser
@pytest.mark.slow
def test_nothing_that_anybody_says_becomes_markup(page):
    calls = [call(0, EVIL, json.dumps({"a": EVIL}), "c1"), event(finish="tool_calls"), DONE]
    thought, answer = event({"reasoning_content": EVIL}), event({"content": EVIL})
    refusal = (500, {"error": {"message": EVIL}})
    shown = page([thought, *calls], [answer, event(finish="stop"), DONE], refusal, result=EVIL, world=EVIL)
    shown.choose()
    shown.one("#text").clear()
    shown.send(EVIL)
    shown.rests()
    shown.send("again")
    shown.rests()
    assert [kind for kind, _ in shown.pieces()] == [
        "user",
        "thought",
        "call",
        "result",
        "answer",
        "user",
        "alert",
    ]
    said = [words for kind, words in shown.pieces() if kind != "call"]
    assert said == [EVIL, EVIL, EVIL, EVIL, "again", f"500: {EVIL}"]
    assert shown.driver.execute_script(
        "return [document.images.length, document.scripts.length, window.hacked]"
    ) == [0, 1, None]
    assert not shown.all("#talk b, #world b")


@needs_browser
@pytest.mark.slow
def test_a_stream_may_be_cut_anywhere(page):
    stream = b"".join([event({"reasoning_content": "ü ∑ 字"}), *CALLS[:-1], DONE]).replace(
        b"\n\n", b"\r\n\r\n", 1
    )
    shown = page([stream[at : at + 1] for at in range(len(stream))], [b"".join(ANSWERS)])
    shown.choose()
    shown.send("")
    shown.rests()
    assert [words for _, words in shown.pieces()[1:]] == [
        "ü ∑ 字",
        'find {"item": "a"}',
        "found it",
        "It is blue.",
    ]


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "says"),
    [
        ((401, {"error": {"message": "wrong key"}}), "401: wrong key"),
        ((502, b"<h1>bad gateway</h1>"), "502: <h1>bad gateway</h1>"),
        ([*THINKS, b'data: {"error": {"message": "out of rows"}}\n\n'], "out of rows"),
        (THINKS, "the stream ended before its end was said"),
        ([call(0, "find", "{}", "c1"), event(finish="tool_calls"), DONE], "no world is open"),
    ],
    ids=["refused", "no json", "error in the stream", "broken off", "a call without a world"],
)
def test_errors_are_said_and_leave_a_conversation_that_goes_on(step, says, page, server):
    shown = page(step, ANSWERS)
    shown.send("hello")
    shown.rests()
    kind, words = shown.pieces()[-1]
    assert kind == "alert" and says in words
    shown.send("")
    shown.rests()
    assert shown.pieces()[-1] == ["answer", "It is blue."]
    assert [one["role"] for one in server.chats()[-1]["messages"]] == ["user"]


@needs_browser
@pytest.mark.slow
def test_a_turn_that_is_cut_off_says_so(page, server):
    shown = page([call(0, "find", '{"it', "c1"), event(finish="length"), DONE], ANSWERS)
    shown.choose()
    shown.send("")
    shown.rests()
    assert shown.pieces()[-1][0] == "alert" and not [one for one in server.asked if one[0] == "/page/call"]
    shown.send("go on")
    shown.rests()
    assert "tool_calls" not in server.chats()[-1]["messages"][2]


@needs_browser
@pytest.mark.slow
def test_it_can_be_used_by_keyboard_alone(page, server):
    shown = page(ANSWERS)
    active = shown.driver.switch_to.active_element
    assert active.get_attribute("id") == "text"  # ready to write
    active.send_keys("one", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two", Keys.ENTER)
    shown.rests()
    assert server.chats()[0]["messages"][0]["content"] == "one\ntwo"
    shown.all("#world option")[1].click()
    reached = set()
    for _ in range(14):
        reached.add(shown.driver.switch_to.active_element.get_attribute("id"))
        shown.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert reached >= {"model", "thinking", "budget", "key", "talk", "world", "draw", "clear", "text", "send"}
    names = shown.driver.execute_script(
        "return [...document.querySelectorAll('input, select, textarea')].map(e => e.labels.length || e.ariaLabel)"
    )
    assert all(names)


CONTRAST = """  // the least contrast of text on its ground, WCAG 2
const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } };
return Math.min(...[...document.querySelectorAll(".piece h2, .piece pre, label, #state, button:enabled, textarea")].map(e => {
    const [a, b] = [getComputedStyle(e).color, ground(e)].map(light).sort((x, y) => x - y);
    return (b + 0.05) / (a + 0.05);
}));
"""


@needs_browser
@pytest.mark.slow
def test_it_is_read_easily_in_light_and_in_dark(page):
    grounds = []
    for scheme in ("light", "dark"):
        shown = page([*THINKS, *CALLS], ANSWERS, (500, {}))
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        shown.choose()
        shown.send("")
        shown.rests()
        shown.send("x")
        shown.rests()
        assert shown.driver.execute_script(CONTRAST) >= 4.5, scheme
        size, ground = shown.driver.execute_script(
            "const s = getComputedStyle(document.body); return [parseFloat(s.fontSize), s.backgroundColor]"
        )
        assert size >= 18
        grounds.append(ground)
    assert grounds[0] != grounds[1]
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@needs_browser
@pytest.mark.slow
def test_only_our_server_is_asked(page, server):
    shown = page(ANSWERS)
    shown.send("hello")
    shown.rests()
    asked = shown.driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert asked and all(name.startswith(server.url) for name in asked)


@pytest.fixture
def shop(driver):
    """(the page of a real endpoint with the shipped agent, a task of the shop drawn; its address)"""
    with serving(CHECKPOINTS / "final", places=2) as url:
        driver.get(url.removesuffix("v1"))
        shown = Page.__new__(Page)
        shown.driver = driver
        wait("the worlds", 10, lambda: len(shown.all("#world option")) == len(WORLDS) + 1)
        [option] = [one for one in shown.all("#world option") if one.get_attribute("value") == "shop"]
        option.click()
        shown.one("#draw").click()
        wait("a task", 10, lambda: shown.one("#text").get_property("value"))
        yield shown, url


def check_done(shown):
    shown.send("")
    wait("the end", 60, lambda: shown.one("#send").is_enabled())
    kinds = [kind for kind, _ in shown.pieces()]
    kinds = kinds[len(kinds) - kinds[::-1].index("user") - 1 :]
    assert kinds[-1] == "answer" and "alert" not in kinds and {"thought", "call", "result"} <= set(kinds)
    assert kinds.count("call") == kinds.count("result")


@needs_browser
@pytest.mark.slow
def test_the_real_endpoint_and_the_shipped_agent_do_a_task_of_the_shop(shop):
    """Send it, watch thought, call and result come, and the answer; the world's own tools ran."""
    check_done(shop[0])


@needs_browser
@pytest.mark.slow
def test_stop_ends_the_row_of_the_real_endpoint_and_the_task_can_be_sent_again(shop, monkeypatch):
    shown, url = shop
    request, step = shown.one("#text").get_property("value"), Writer.step

    def running():
        return httpx.get(url.removesuffix("v1") + "health").json()["running"]

    with monkeypatch.context() as patch:
        patch.setattr(
            Writer, "step", lambda self: (time.sleep(0.2), step(self))[1]
        )  # slow enough to be stopped
        shown.send("")
        wait("a thought", 30, lambda: "thought" in [kind for kind, _ in shown.pieces()])
        assert running() == 1
        shown.one("#stop").click()
        wait("the end", 10, lambda: shown.one("#send").is_enabled())
        wait("the row to go", 10, lambda: not running())
    assert shown.pieces()[-1] == ["alert", "You stopped the agent."]
    assert shown.one("#text").get_property("value") == request
    check_done(shown)
