"""What the experiments of thinking mode share: no training, one shipped agent, task sets of several seeds."""

from __future__ import annotations

from kimi_mini.inference.thinking import Turn
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task
from kimi_mini.worlds.base import SYSTEM

NOTEBOOK = "08_thinking_mode.ipynb"


def prompt_ids(tokenizer: Tokenizer, task: Task, thinking: bool = True) -> list[int]:
    """The opening of a task without tools, up to where the assistant takes over."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task.prompt}]
    return chat.encode(tokenizer, messages, add_generation_prompt=True, thinking=thinking)[0]


def number(turn: Turn, tokenizer: Tokenizer) -> int | None:
    """The answer as a number; None when there is none."""
    text = (chat.parse_ids(tokenizer, turn.ids)["content"] or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None
