"""`python -m kimi_mini serve`: the page's tasks and tools, keys and ports in one line."""

import argparse
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from kimi_mini.agent import serve
from kimi_mini.agent.endpoint import KEY_VARIABLE
from kimi_mini.agent.folder import shipped_agent
from kimi_mini.agent.serve import Tables, bound, named
from kimi_mini.base import options
from kimi_mini.base.errors import KimiError
from kimi_mini.base.paths import CHECKPOINTS, ROOT, short
from kimi_mini.worlds import WORLDS


def test_a_task_of_every_world_can_be_drawn_and_its_tools_run():
    tables = Tables(seed=0)
    assert [world["name"] for world in tables.worlds()] == list(WORLDS)
    for name in WORLDS:
        drawn = tables.draw(name)
        assert drawn["messages"][-1]["role"] == "user"
        for tool in drawn["tools"] or ():
            call = {"id": "call_1", "function": {"name": tool["function"]["name"], "arguments": "{}"}}
            assert tables.call(drawn["session"], call)
    tables.close()
    assert not tables.open


def test_environments_keep_their_state_and_are_bounded(monkeypatch):
    monkeypatch.setattr(serve, "KEPT", 2)
    tables = Tables(seed=1)
    sessions = [tables.draw("notes")["session"] for _ in range(3)]
    call = {"function": {"name": "no_such_tool", "arguments": "{}"}}
    with pytest.raises(KimiError, match="draw a new one"):
        tables.call(sessions[0], call)
    opened = tables.open[sessions[1]][1]
    said = len(opened.messages)
    assert "no_such_tool" in tables.call(sessions[1], call)
    assert len(opened.messages) == said  # or a page that goes on calling fills the memory
    for function in ("x", {"name": "f"}, {"arguments": "{}"}, {"name": "f", "arguments": {}}):
        with pytest.raises(KimiError, match="a name and arguments"):
            tables.call(sessions[1], {"function": function})
    tables.draw("notes")  # the third is now the one that was used least lately
    assert sessions[1] in tables.open and sessions[2] not in tables.open
    monkeypatch.setattr(serve, "AGE", -1.0)
    newest = tables.draw("notes")["session"]
    assert list(tables.open) in ([], [newest])
    with pytest.raises(KimiError, match="a name and arguments"):
        monkeypatch.setattr(serve, "AGE", 60.0)
        tables.call(tables.draw("notes")["session"], {"function": "x"})
    with pytest.raises(KimiError, match="no world 'moon'"):
        tables.draw("moon")


def test_a_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    """One that cannot be read is one line, and starts nothing."""
    asked = []
    monkeypatch.setattr(serve, "serving", lambda *_, **more: asked.append(more["key"]) or stopped())
    monkeypatch.setenv(KEY_VARIABLE, "from-here")
    file = tmp_path / "key"
    file.write_text("of-the-file\n")
    for key_file in (None, file):
        assert serve.main(arguments("--api-key-file", key_file) if key_file else arguments()) == 0
    monkeypatch.delenv(KEY_VARIABLE)
    assert serve.main(arguments()) == 0 and asked == ["from-here", "of-the-file", None]
    for content, says in ((b"\xff\xfe", "is no text"), (b"  \n", "is empty")):
        file.write_bytes(content)
        with pytest.raises(KimiError, match=says):
            serve.main(arguments("--api-key-file", file))
    assert len(asked) == 3


def arguments(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", default="final")
    options.serve(parser)
    return parser.parse_args([str(word) for word in words])


@contextlib.contextmanager
def stopped():
    """An endpoint at which Ctrl-C is pressed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve.time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        yield "http://127.0.0.1:1/v1"


def test_what_is_not_said_is_the_command_lines(monkeypatch, capsys):
    """And no temperature beyond what a request may name: the endpoint would start."""
    asked = []
    monkeypatch.setattr(serve, "serving", lambda *_, **more: asked.append(more) or stopped())
    assert serve.main(arguments()) == serve.main(arguments("--temperature", "2", "--max-tokens", "9")) == 0
    assert [(one["temperature"], one["tokens"]) for one in asked] == [(0.0, 1024), (2.0, 9)]
    for wrong in ("5", "2.01", "-1", "nan", "x"):
        with pytest.raises(SystemExit):
            arguments("--temperature", wrong)
        assert "--temperature" in capsys.readouterr().err.splitlines()[-1]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readmes_request_is_answered_and_soon():
    """It took 38 seconds, and all 8,152 tokens of the context."""
    [(path, body)] = re.findall(r"^ +curl http://127\.0\.0\.1:8000(/\S+) -d '(.*)'$", README, re.M)
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl -d has it
    with serve.serving(shipped_agent()) as url:
        answer = httpx.post(url.removesuffix("/v1") + path, content=body, headers=form, timeout=60).json()
    [choice] = answer["choices"]
    first, second = map(int, re.findall(r"\d+", json.loads(body)["messages"][-1]["content"]))
    assert choice["finish_reason"] == "stop" and choice["message"]["content"] == str(first + second)
    assert answer["usage"]["completion_tokens"] < 50


def test_adapters_are_named():
    assert named(["a=x/y", "b=z=w"]) == {"a": "x/y", "b": "z=w"}
    for word in ("a", "=x", "a="):
        with pytest.raises(KimiError, match="NAME=FOLDER"):
            named([word])
    with pytest.raises(KimiError, match="names 'a' twice"):
        named(["a=x", "b=x", "a=y"])


def test_an_adapter_has_not_the_name_of_the_model():
    """It would be listed twice and never be used."""
    with pytest.raises(KimiError, match="the model itself is called final"):
        serve.build("some/final", "127.0.0.1", 1, 1, {"final": "some/adapter"}, {})


@pytest.mark.parametrize("name", ["final", "reader"])
def test_a_shipped_agent_is_called_so_by_any_path(monkeypatch, name):
    """`serve --checkpoint data/checkpoints/final` said "your own agent"."""
    monkeypatch.chdir(CHECKPOINTS.parent)
    for folder in (CHECKPOINTS / name, Path(CHECKPOINTS.name) / name):
        assert serve.whose(folder) == f"the shipped agent, {short(folder)}"
    assert serve.whose(Path("elsewhere") / name).startswith("your own agent")


def test_a_taken_port_is_one_line():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(KimiError, match=f"127.0.0.1:{port} cannot be used"):
            bound("127.0.0.1", port)


@pytest.mark.parametrize("host", ["", "\u00fc\u00fc..x"])
def test_what_is_no_host_is_one_line(host):
    """An empty one, as of a variable that is not set, would be every address of the machine."""
    with pytest.raises(KimiError, match="--host"):
        bound(host, 0)


def test_a_port_is_held_before_the_model_is_built_and_not_kept_when_that_fails(monkeypatch):
    made, build = [], []
    monkeypatch.setattr(serve, "build", lambda *_: build.append(1) or 1 // 0)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(KimiError, match="cannot be used"), serve.serving("x", held.getsockname()[1]):
            pass
    assert not build
    monkeypatch.setattr(serve, "bound", lambda *words: made.append(bound(*words)) or made[-1])
    with pytest.raises(ZeroDivisionError), serve.serving("x"):
        pass
    assert build and made[0].fileno() == -1


def test_an_address_is_part_of_a_url():
    for host in ("127.0.0.1", "localhost", "::1"):
        parts = urlsplit(f"http://{serve.address(host, 8000)}/v1")
        assert (parts.hostname, parts.port) == (host, 8000)


@pytest.mark.slow
def test_without_the_extra_packages_there_is_one_line():
    code = "import sys; sys.modules['uvicorn'] = None\nfrom kimi_mini.__main__ import main\nsys.exit(main(['serve', '--port', '0']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "pip install '.[serve]'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_open_streams_and_leaves_no_traceback():
    """Who is being answered is told so; the terminal gets one line."""
    words = [
        sys.executable,
        "-m",
        "kimi_mini",
        "serve",
        "--port",
        "0",
        "--checkpoint",
        "data/checkpoints/final",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    body = {"model": "final", "messages": [{"role": "user", "content": "hello"}], "temperature": 2.0, "n": 4}
    with subprocess.Popen(words, **pipes) as process:
        url = process.stdout.readline().split(": ")[1].split(",")[0]

        def keep_asking():
            with contextlib.suppress(httpx.HTTPError):
                while True:
                    with httpx.stream(
                        "POST", f"{url}/chat/completions", json=body | {"stream": True}
                    ) as answer:
                        for _ in answer.iter_lines():
                            pass

        for _ in range(6):
            threading.Thread(target=keep_asking, daemon=True).start()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and said.strip() == "stopped; nothing was changed"
    assert "Traceback" not in errors and "CancelledError" not in errors


def test_small_pieces_are_sent_at_once():
    """What asyncio asks before it sets TCP_NODELAY on a connection: 40 ms a request without."""
    with contextlib.closing(bound("127.0.0.1", 0)) as held:
        assert held.proto == socket.IPPROTO_TCP
