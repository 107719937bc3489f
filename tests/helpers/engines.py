"""An OpenAI-compatible server of the standard library that plays scripted experts with the habits of other engines.

It knows its tasks by the user's words, and finds its place in the expert's script by the messages of the request: it
keeps no state, so that a request sent twice is answered alike, as by an engine.
"""

import json
import random
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kimi_mini.worlds import WORLDS

HABITS = dict(
    ids=lambda name, turn, place: f"call_{turn}_{place}_x7",  # of calls
    thought="reasoning_content",  # the field's name
    finish="tool_calls",  # of a turn with calls
    piece=3,  # letters of arguments in a chunk
    strict=True,  # refuses a tool message with an unknown id, and an assistant's without its thought
    usage=True,
    encode=lambda arguments: arguments,
    troubles=(),  # what happens to the first requests: a status, or "cut", "empty", "endless", "half", "hang up", "html"
    wait=None,  # Retry-After
    key=None,
    limit=10**9,  # messages of the longest context
    delay=0.0,
)


class Engine:
    """requests: bodies as they came; busiest: how many were being answered at once."""

    def __init__(self, tasks, **habits):
        self.habits = {**HABITS, **habits}
        self.tasks = {task.prompt: task for task in tasks}
        self.requests, self.troubles = [], list(self.habits["troubles"])
        self.times, self.keys, self.now, self.busiest = [], [], 0, 0
        self.lock = threading.Lock()

    def turn(self, messages):
        """The expert's message behind these."""
        task = self.tasks[next(m["content"] for m in messages if m["role"] == "user")]
        expert = WORLDS[task.world].expert(task, random.Random(task.key))
        message, index = next(expert), 1
        while index + 1 < len(messages) and messages[index + 1]["role"] == "assistant":
            index += 1
            first = messages[index + 1]["content"]  # of its results
            while index + 1 < len(messages) and messages[index + 1]["role"] == "tool":
                index += 1
            message = expert.send(first)
        return message

    def complaint(self, messages):
        """What a strict API says of the messages, or None."""
        open_ids = []
        for index, message in enumerate(messages):
            if message["role"] == "assistant" and message.get("tool_calls"):
                if self.habits["thought"] and message.get(self.habits["thought"]) is None:
                    return f"thinking is enabled but reasoning_content is missing in assistant tool call message at index {index}"
                open_ids = [call["id"] for call in message["tool_calls"]]
            elif message["role"] == "tool" and (not open_ids or message["tool_call_id"] != open_ids.pop(0)):
                return f"tool_call_id {message['tool_call_id']} is not found"
        return None

    def message(self, request):
        """The answer's message with this engine's habits."""
        message, turn = self.turn(request["messages"]), len(request["messages"])
        given = {"role": "assistant", "content": message.get("content")}
        if self.habits["thought"]:
            given[self.habits["thought"]] = message["reasoning_content"]
        calls = []
        for place, call in enumerate(message.get("tool_calls") or []):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            function = {"name": name, "arguments": self.habits["encode"](arguments)}
            calls.append(
                {"id": self.habits["ids"](name, turn, place), "type": "function", "function": function}
            )
        if calls:
            given["tool_calls"] = calls
        return given, self.habits["finish"] if calls else "stop"

    def chunks(self, given, finish, trouble):
        """Deltas: the thought, the text, each call's head, its arguments in pieces, the end, usage alone."""
        yield {"delta": {"role": "assistant", "content": ""}}
        for name in (self.habits["thought"], "content"):
            for letter in given.get(name) or "":
                yield {"delta": {name: letter}}
        for index, call in enumerate(given.get("tool_calls") or []):
            arguments = call["function"]["arguments"]
            head = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
            yield {"delta": {"tool_calls": [head]}}
            for start in range(0, len(arguments), self.habits["piece"]):
                piece = {
                    "index": index,
                    "function": {"arguments": arguments[start : start + self.habits["piece"]]},
                }
                yield {"delta": {"tool_calls": [piece]}}
        if trouble not in ("cut", "endless"):
            yield {"delta": {}, "finish_reason": finish}


def _handler(engine):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with engine.lock:
                engine.requests.append(body)
                engine.times.append(time.monotonic())
                engine.keys.append(self.headers.get("Authorization"))
                engine.now += 1
                engine.busiest = max(engine.busiest, engine.now)
                trouble = engine.troubles.pop(0) if engine.troubles else None
            try:
                time.sleep(engine.habits["delay"])
                self.answer(body, trouble)
            finally:
                with engine.lock:
                    engine.now -= 1

        def answer(self, body, trouble):
            habits = engine.habits
            if habits["key"] and self.headers.get("Authorization") != f"Bearer {habits['key']}":
                return self.refuse(401, f"incorrect key {self.headers.get('Authorization')}")
            if isinstance(trouble, int):
                return self.refuse(trouble, "later, please")
            if isinstance(trouble, tuple):
                return self.refuse(*trouble)
            if trouble == "half":  # of an error's own words
                self.close_connection = True
                return self.send(b'{"error": {"message": "later"}}', status=503, cut=True)
            if trouble == "hang up":
                self.close_connection = True
                return self.connection.shutdown(2)
            if trouble == "html":
                return self.send(b"<html>bad gateway</html>", "text/html")
            if len(body["messages"]) > habits["limit"]:
                return self.refuse(
                    400, "This model's maximum context length is 128 tokens. However, you requested 300."
                )
            complaint = engine.complaint(body["messages"]) if habits["strict"] else None
            if complaint:
                return self.refuse(400, complaint)
            given, finish = engine.message(body)
            usage = (
                {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
                if habits["usage"]
                else None
            )
            if body.get("stream"):
                return self.stream(given, finish, trouble, usage)
            choices = [] if trouble == "empty" else [{"index": 0, "message": given, "finish_reason": finish}]
            if trouble == "cut":
                self.close_connection = True
            self.send(
                json.dumps(
                    {"id": "1", "object": "chat.completion", "choices": choices, "usage": usage}
                ).encode(),
                cut=trouble == "cut",
            )

        def stream(self, given, finish, trouble, usage):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            for choice in [] if trouble == "empty" else engine.chunks(given, finish, trouble):
                self.event({"choices": [{"index": 0, **choice}]})
            if trouble == "cut":
                return self.wfile.write(b'data: {"choices": [{"ind')
            if usage:
                self.event({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")

        def event(self, value):
            self.wfile.write(
                b"data: "
                + json.dumps({"id": "1", "object": "chat.completion.chunk", **value}).encode()
                + b"\n\n"
            )

        def refuse(self, status, text, code=None):
            body = {"error": {"message": text, "code": code}}
            self.send(json.dumps(body).encode(), status=status)

        def send(self, body, kind="application/json", status=200, cut=False):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if status != 200 and engine.habits["wait"] is not None:
                self.send_header("Retry-After", engine.habits["wait"])
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)

    return Handler


@contextmanager
def served(tasks, **habits):
    """Context: the engine and its address, on the loopback."""
    engine = Engine(tasks, **habits)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(engine))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield engine, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
