"""python -m kimi_mini chat: talk to an agent, and see what it thinks, what it calls and what came back.

A task is taken by its number, or typed in one of the forms that the agent was trained on. Its own words about the
shop meet a small shop of our own, whose tools really run; everything is checked where there is a verifier.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import sys
import time
from collections.abc import Sequence

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.agent import folder as folder_
from kimi_mini.agent import loop
from kimi_mini.agent import policy as policy_
from kimi_mini.agent.own_tools import dialogue, load_tools
from kimi_mini.agent.traces import Piece, pieces
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task, registry
from kimi_mini.worlds.tools import Tool

COLOURS = {
    "user": "1",
    "thought": "35",
    "call": "34",
    "result": "33",
    "answer": "1;32",
    "note": "2",
    "error": "31",
}
LIMITS = conversation_.Limits(turn_tokens=160, turns=400, context=2048, manage=True)
HELP = """\
  3             take task 3 of the list         new       other tasks, drawn from the held-out ones
  /think        think before acting             /reflex   answer at once, with an empty thought
  /help         this page                       /quit     leave (also Ctrl-D or Ctrl-C)
Or type a task yourself. It is a very small model: it looks things up, follows links, compares, carries out lists.
With --tools file.py it gets the functions of that file as tools; names stand in quotes then. What none of its tools
can do it should refuse.
"""
QUOTED = re.compile(r"""(?<!\w)["'].+["'](?!\w)""")
QUOTES = """names are read in quotes alone, as in: Tell me the price of 'old rope' and of 'blue jar'."""
GUESS = "outside what this agent was trained for, so expect a guess: /help shows what it knows; --tools names tools"


def main(args: argparse.Namespace) -> int:
    """Talk until the user leaves. args: checkpoint, reflex, seed, tools (a Python file). Raises KimiError without a
    usable checkpoint."""
    tools = load_tools(args.tools) if args.tools else ()
    talk = Talk(*folder_.load_agent(args.checkpoint), thinking=not args.reflex, seed=args.seed, tools=tools)
    try:
        talk.welcome(args.checkpoint)
        while talk.handle(talk.read()):
            pass
    except (EOFError, KeyboardInterrupt):
        print("\nbye")
    return 0


class Talk:
    """One session at the terminal."""

    def __init__(
        self,
        model: KimiMini,
        tokenizer: Tokenizer,
        thinking: bool = True,
        seed: int = 0,
        tools: Sequence[Tool] = (),
    ):
        self.model, self.tokenizer, self.thinking, self.tools = model, tokenizer, thinking, tools
        self.rng = random.Random(seed)
        self.tasks: list[Task] = []
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        try:
            import readline  # noqa: F401  line editing and history, where the system has it
        except ImportError:
            pass

    # -- reading -------------------------------------------------------------------------------------------

    def read(self) -> str:
        """The user's next line. A line that comes from a file is shown, so that the transcript makes sense."""
        try:
            line = input("\n> ").strip()
        except UnicodeDecodeError:
            self.say(
                "error", "this terminal's encoding cannot be read: type plain letters, or set PYTHONUTF8=1"
            )
            return ""
        except RuntimeError:  # there is no standard input
            raise EOFError from None
        if not sys.stdin.isatty():
            print(line)
        return line

    def handle(self, line: str) -> bool:
        """Do what a line asks for; False when the user leaves."""
        word = line.lower()
        if word in ("/quit", "/exit", "quit", "exit"):
            print("bye")
            return False
        if word in ("/think", "/reflex"):
            self.thinking = word == "/think"
            self.say(
                "note", "the agent now thinks first" if self.thinking else "the agent now answers at once"
            )
        elif word == "/help":
            self.help()
        elif word.startswith("/") and (world := worlds.WORLDS.get(word[1:])) and world.demo.place:
            print(f"  {_indented(world.demo.place, 2)}")
        elif word in ("new", "/new"):
            self.draw_tasks()
        elif line.startswith("/"):
            self.say("note", f"no command {line.split()[0]}; /help lists them")
        elif re.fullmatch("[0-9]{1,9}", line):
            self.take(int(line))
        elif line:
            conversation = own_task(line, self.tools)
            if not self.tools and not is_known(conversation.task):
                self.say("note", GUESS)
            if self.tools and not QUOTED.search(line):
                self.say("note", QUOTES)
            self.work(conversation)
        return True

    def take(self, number: int) -> None:
        """Work on a listed task."""
        if not 1 <= number <= len(self.tasks):
            self.say("note", f"the list goes from 1 to {len(self.tasks)}")
        else:
            self.work(conversation_.opening(self.tasks[number - 1], self.thinking))

    # -- showing -------------------------------------------------------------------------------------------

    def welcome(self, folder: str) -> None:
        """Who is talking, and what can be asked."""
        count = self.model.config.count_parameters()
        print(f"kimi_mini from {folder}: {count.total:,} parameters, {count.activated:,} at work on a token.")
        print("A number takes a task, /help shows what else there is.")
        for tool in self.tools:
            print(f"  your tool {tool.name}: {tool.description}")
        self.draw_tasks()

    def draw_tasks(self) -> None:
        """A new list of held-out tasks, one of each family that is trained."""
        self.tasks = [
            worlds.generate(
                self.rng, family, self.rng.choice(registry.measured_levels(family)), held_out=True
            )
            for family, about in worlds.FAMILIES.items()
            if about.trained
        ]
        print("\nheld-out tasks (never trained on):")
        for number, task in enumerate(self.tasks, 1):
            print(f"  {number}  {task.world:<6} {_indented(task.prompt, 12)}")

    def help(self) -> None:
        """Commands, and a task of each kind to change at will."""
        print(HELP)
        for world in worlds.WORLDS.values():
            if world.demo.place:
                new = "" if world.trained else " (not trained yet)"
                print(f"  /{world.name:<12} the demo {world.name}, which these are about{new}:")
            for example in world.demo.examples:
                print(f"  {example}")

    def say(self, kind: str, text: str) -> None:
        """One labelled paragraph, in colour where a terminal shows it."""
        text = _indented(_printable(text), 9)
        start, end = (f"\x1b[{COLOURS[kind]}m", "\x1b[0m") if self.colour else ("", "")
        print(f"{start}{kind:<9}{text}{end}", flush=True)

    # -- working -------------------------------------------------------------------------------------------

    def work(self, conversation: conversation_.Conversation) -> None:
        """Let the agent work on it; every thought, call, result and answer is shown as it comes."""
        with contextlib.closing(conversation.environment):
            conversation.thinking = self.thinking
            policy = policy_.LocalPolicy(self.model, self.tokenizer)
            began = time.perf_counter()
            conversation_.begin(conversation, self.tokenizer)
            if not conversation_.has_room(conversation, LIMITS):
                self.say("error", f"{conversation.prompt_length} tokens are too long for a prompt here")
                return
            shown = len(conversation.messages)  # the user knows what was typed
            shown -= conversation.task in self.tasks

            def show_new(*_: int) -> None:
                nonlocal shown
                for piece in pieces(conversation.messages[shown:]):
                    self.show(piece)
                shown = len(conversation.messages)

            show_new()
            loop.converse(policy, [conversation], self.tokenizer, LIMITS, show_new)
            self.summary(conversation, time.perf_counter() - began)

    def show(self, piece: Piece) -> None:
        """One piece of the conversation; what a tool says went wrong is red."""
        failed = piece.kind == "result" and piece.text.startswith("error:")
        self.say("error" if failed else piece.kind, piece.text)

    def summary(self, conversation: conversation_.Conversation, seconds: float) -> None:
        """What it cost, how it ended, and what the verifier says."""
        why = {
            "length": "cut off: the turn grew too long",
            "turns": "stopped: too many turns",
            "context": "stopped: the context is full",
            "repeats": "stopped: the same calls again and again",
        }
        if conversation.finish in why:
            self.say("error", why[conversation.finish])
        calls = {0: "", 1: "1 call, "}.get(conversation.calls, f"{conversation.calls} calls, ")
        self.say("note", f"{conversation.written} tokens written, {calls}{seconds:.1f} s")
        if conversation.task in self.tasks:  # of the user's own task nobody knows the right answer
            verdict = conversation.verdict()
            self.say("note", f"verifier: {'passed' if verdict.passed else 'FAILED'}, {verdict.evidence}")
        elif not self.tools:
            demo = worlds.WORLDS[conversation.task.world].demo
            if left := demo.left(conversation.task, conversation.environment):
                self.say("note", left)


def own_task(words: str, tools: Sequence[Tool] = ()) -> conversation_.Conversation:
    """The user's own words: with the user's own tools; else as a task of the world that they are about, with its tools;
    else without any, in no family."""
    if tools:
        return dialogue(words, tools)
    found = (world.demo.own_task(words) for world in worlds.WORLDS.values())
    return conversation_.opening(next(filter(None, found), Task("chain", "", 1, words)))


def is_known(task: Task) -> bool:
    """Whether requests of this kind are trained; the agent answers the others all the same."""
    family = worlds.FAMILIES.get(task.family)
    return family is not None and family.trained


def _indented(text: str, by: int) -> str:
    return text.replace("\n", "\n" + " " * by)


def _printable(text: str) -> str:
    """Without control characters: what a model or a tool wrote must not steer the terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in text)
