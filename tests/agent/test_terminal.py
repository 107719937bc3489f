"""python -m kimi_mini chat with a tiny random model: what it shows is what happened, and it ends politely."""

import argparse
import dataclasses
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
import torch

from kimi_mini.agent import conversation, policy, terminal
from kimi_mini.agent.folder import save_agent
from kimi_mini.base.errors import KimiError
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.tools import Tool


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, intermediate_size=32, moe_intermediate_size=16)
    path = tmp_path_factory.mktemp("checkpoint")
    save_agent(KimiMini(KimiConfig(**sizes)), path)
    return path


@pytest.fixture
def scripted(monkeypatch, folder):
    """talk(lines) -> the chat's exit status; a model that writes given turns sits in the policy."""

    def talk(lines, turns=("<think>so</think>7",), reflex=False):
        feed, written = iter(lines), iter(turns)
        tokenizer = Tokenizer.load()

        def reply(self, conversations, max_tokens):
            ids = [*tokenizer.encode(next(written)), tokenizer.token_id("<|im_end|>")]
            return [policy.Reply(ids, [0.0] * len(ids), "stop")]

        monkeypatch.setattr(policy.LocalPolicy, "reply", reply)

        def line(prompt=""):
            try:
                return next(feed)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", line)
        return terminal.main(argparse.Namespace(checkpoint=str(folder), reflex=reflex, seed=0, tools=None))

    return talk


CALL = (
    '<think>f 2 "red fig" end</think><|tool_calls_section_begin|><|tool_call_begin|>functions.buy:0'
    '<|tool_call_argument_begin|>{"item":"red fig","count":2}<|tool_call_end|><|tool_calls_section_end|>'
)


@pytest.mark.parametrize("line", ["\u00b2", "9" * 5000, "\u0663"])
def test_numbers_that_are_not_on_the_list_do_not_end_the_chat(scripted, capsys, line):
    """Digits to str.isdigit that int cannot read, or will not."""
    assert scripted([line]) == 0
    assert capsys.readouterr().out.rstrip().endswith("bye")


def test_a_full_context_is_said(scripted, capsys, monkeypatch):
    monkeypatch.setattr(
        terminal, "LIMITS", dataclasses.replace(terminal.LIMITS, context=terminal.LIMITS.turn_tokens + 100)
    )
    assert scripted(['Buy f 2 "red fig", end.'], [CALL]) == 0
    assert "stopped: the context is full" in capsys.readouterr().out


def test_own_words_about_the_shop_really_buy(scripted, capsys):
    assert scripted(['Buy f 2 "red fig", end.'], [CALL, "<think>end</think>done"]) == 0
    shown = capsys.readouterr().out.split('Buy f 2 "red fig", end.')[-1]
    order = [
        'thought  f 2 "red fig" end',
        'call     buy {"item":"red fig","count":2}',
        'result   {"ok":true}',
        "thought  end",
        "answer   done",
        "orders in the shop: 2 red fig",
        "bye",
    ]
    places = [shown.index(text) for text in order]
    assert places == sorted(places)


def test_what_the_shop_refuses_is_said_and_nothing_is_bought(scripted, capsys):
    scripted(['Buy f 2 "red fig", end.'], [CALL.replace("red fig", "red cat"), "<think>end</think>done"])
    shown = capsys.readouterr().out
    assert "error" in shown and "red cat" in shown and "orders in the shop: none" in shown


def test_a_listed_task_is_judged_by_its_verifier(scripted, capsys):
    scripted(["1"], ["<think>so</think>999"])
    shown = capsys.readouterr().out
    assert "verifier: FAILED" in shown and "answered '999'" in shown


def test_chains_have_no_tools(scripted, capsys):
    scripted(["Start with 1, a +2, end. Modulo 100?"], [CALL, "<think>end</think>3"])
    assert "no tools are declared" in capsys.readouterr().out
    assert conversation.opening(terminal.own_task("Add 1 and 2, end.").task).tools is None
    tools = terminal.own_task("Which is cheapest: a, b, end?").tools
    assert [tool["function"]["name"] for tool in tools] == ["price"]


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("hello", False),
        ("What is the weather like?", False),
        ("Move the note on cats.", False),  # a world that no run trains
        ("Add 1 and 2, end.", True),
        ('Buy f 2 "red fig", end.', True),
    ],
)
def test_what_is_outside_training_is_said_to_be_so(scripted, capsys, words, known):
    scripted([words], ["<think>so</think>7"])
    shown = capsys.readouterr().out
    assert (terminal.GUESS in shown) is not known and "7" in shown


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        ("the price of 'old rope'", True),
        ('What\'s "a b"?', True),
        ("What's John's price?", False),
        ("hi", False),
    ],
)
def test_whoever_names_things_without_quotes_is_told(monkeypatch, capsys, words, quoted):
    """The agent that reads knows a name by its quotes: without them it has no tool for anything."""
    monkeypatch.setattr(terminal.Talk, "work", lambda self, conversation: None)
    tool = Tool("price", "", {"type": "object"}, lambda: 1)
    terminal.Talk(None, None, tools=[tool]).handle(words)
    assert (terminal.QUOTES not in capsys.readouterr().out) is quoted


def test_words_of_no_world_are_in_no_family():
    task = terminal.own_task("hello").task
    assert not terminal.is_known(task) and task.family not in terminal.worlds.FAMILIES


def test_reflex_shows_no_thought(scripted, capsys, monkeypatch):
    begun = []
    monkeypatch.setattr(
        conversation,
        "begin",
        lambda c, t, begin=conversation.begin: (begun.append(c.thinking), begin(c, t))[1],
    )
    scripted(["Add 1 and 2, end.", "/think", "Add 1 and 2, end."], ["3", "<think>1+2</think>3"], reflex=True)
    shown = capsys.readouterr().out
    assert begun == [False, True] and shown.count("thought") == 1 and shown.count("answer") >= 2


def test_odd_input_is_answered_and_quit_ends(scripted, capsys):
    lines = [
        "",
        "99",
        "0",
        "/nonsense",
        "/help",
        "/shop",
        "new",
        "/reflex",
        "/think",
        "x" * 9000,
        "/quit",
        "1",
    ]
    assert scripted(lines) == 0
    shown = capsys.readouterr().out
    for text in ("goes from 1 to 17", "no command /nonsense", "demo shop", "gold ring", "too long", "bye"):
        assert text in shown
    assert shown.count("held-out tasks") == 2 and "answer   " not in shown


@pytest.mark.parametrize("words", ['Buy f 2 "red fig", end.', "x" * 9000], ids=["done", "too long"])
def test_every_environment_is_closed(scripted, monkeypatch, words):
    """That of a request that is too long, too."""
    closed, close = [], terminal.worlds.Environment.close
    monkeypatch.setattr(terminal.worlds.Environment, "close", lambda self: closed.append(self) or close(self))
    assert scripted([words], ["<think>end</think>done"]) == 0 and len(closed) == 1


def test_ctrl_c_ends_politely(scripted, capsys, monkeypatch):
    monkeypatch.setattr(terminal.Talk, "read", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert scripted([]) == 0 and capsys.readouterr().out.endswith("bye\n")


def test_what_a_model_writes_cannot_steer_the_terminal():
    assert terminal._printable("a\x1b[2Jb\nc\x07") == "a\ufffd[2Jb\nc\ufffd"


def test_without_a_checkpoint_one_line_says_what_to_do(tmp_path, folder):
    with pytest.raises(KimiError, match="make run"):
        terminal.main(argparse.Namespace(checkpoint=str(tmp_path / "none"), reflex=False, seed=0, tools=None))
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(
            file.read_bytes()[:200] if "safetensors" in file.name else file.read_bytes()
        )
    with pytest.raises(KimiError, match="truncated"):
        terminal.main(argparse.Namespace(checkpoint=str(broken), reflex=False, seed=0, tools=None))


def command(folder) -> list[str]:
    return [sys.executable, "-m", "kimi_mini", "chat", "--threads", "1", "--checkpoint", str(folder)]


@pytest.mark.slow
def test_a_file_as_input(folder, root):
    ran = subprocess.run(
        command(folder), input="1\n/quit\n", cwd=root, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0 and not ran.stderr
    assert "> 1\n" in ran.stdout and "verifier:" in ran.stdout and ran.stdout.endswith("bye\n")
    assert "\x1b" not in ran.stdout, "no colours where nobody sees them"


@pytest.mark.slow
def test_without_standard_input_it_ends_politely(folder, root):
    words = [*command(folder)]
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *words], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0 and "Traceback" not in ran.stderr and ran.stdout.endswith("bye\n")


@pytest.mark.slow
def test_letters_that_the_terminal_cannot_encode_are_one_line(folder, root):
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ran = subprocess.run(
        command(folder),
        input="caf\xe9\n/quit\n".encode(),
        cwd=root,
        capture_output=True,
        timeout=300,
        env=ascii_only,
    )
    assert ran.returncode == 0 and b"Traceback" not in ran.stderr
    assert b"PYTHONUTF8=1" in ran.stdout and ran.stdout.endswith(b"bye\n")


@pytest.mark.slow
def test_a_terminal_gets_colours_and_ctrl_c_ends_it(folder, root):
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {
        "TERM": "xterm"
    }
    process = subprocess.Popen(
        command(folder),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=root,
        env=environment,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a background job starts with it ignored
    )
    os.close(slave)
    shown, sent = "", False
    until = time.monotonic() + 300
    while time.monotonic() < until and "bye" not in shown:
        if select.select([master], [], [], 2.0)[0]:
            shown += os.read(master, 4096).decode(errors="replace")
        elif "thinks first" in shown:  # all is quiet: it waits for a line
            process.send_signal(signal.SIGINT)
        if "\n> " in shown and not sent:
            os.write(master, b"/think\n")
            sent = True
    assert process.wait(60) == 0
    assert "\x1b[2m" in shown and "bye" in shown and "Traceback" not in shown


def test_no_listed_task_was_half_seen_in_training(scripted, capsys, monkeypatch):
    """Chains of one record show one of 1,024 names, and training has seen a third of them."""
    drawn, generate = [], terminal.worlds.generate
    monkeypatch.setattr(
        terminal.worlds,
        "generate",
        lambda *words, **more: drawn.append(generate(*words, **more)) or drawn[-1],
    )
    assert scripted(["new"] * 40 + ["quit"]) == 0
    assert len(drawn) == 41 * sum(family.trained for family in terminal.worlds.FAMILIES.values())
    assert all(task.held_out and (task.family, task.level) != ("follow", 1) for task in drawn)
