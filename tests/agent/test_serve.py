"""`python -m kimi_mini serve`: the page's tasks and tools, keys and ports in one line."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from kimi_mini.agent import serve
from kimi_mini.agent.serve import Tables, bound, key_of, named
from kimi_mini.base.errors import KimiError, MissingFile
from kimi_mini.base.paths import ROOT
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
    monkeypatch.delenv(serve.KEY, raising=False)
    assert key_of(None) is None
    monkeypatch.setenv(serve.KEY, "from here")
    assert key_of(None) == "from here"
    file = tmp_path / "key"
    with pytest.raises(MissingFile, match="no such file"):
        key_of(str(file))
    file.write_text("  \n")
    with pytest.raises(KimiError, match="is empty"):
        key_of(str(file))
    file.write_text("of the file\n")
    assert key_of(str(file)) == "of the file"


def test_adapters_are_named():
    assert named(["a=x/y", "b=z=w"]) == {"a": "x/y", "b": "z=w"}
    for word in ("a", "=x", "a="):
        with pytest.raises(KimiError, match="NAME=FOLDER"):
            named([word])


def test_a_taken_port_is_one_line():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(KimiError, match=f"127.0.0.1:{port} cannot be used"):
            bound("127.0.0.1", port)


@pytest.mark.slow
def test_without_the_extra_packages_there_is_one_line():
    code = "import sys; sys.modules['uvicorn'] = None\nfrom kimi_mini.__main__ import main\nsys.exit(main(['serve']))"
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
