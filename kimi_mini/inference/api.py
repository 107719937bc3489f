"""OpenAI-shaped answers: content, reasoning_content, tool calls, usage."""

from __future__ import annotations

from collections.abc import Sequence

from kimi_mini.inference.thinking import Budget, Turn, write
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer


def respond(
    model: KimiMini,
    tokenizer: Tokenizer,
    messages: list[dict],
    tools: list[dict] | None = None,
    thinking: bool = True,
    budget: int | None = None,
    **options,
) -> dict:
    """The response to one conversation, in the shape of an OpenAI-compatible server. Options as in `write`.

    {"choices": [{"index": 0, "message": {"role", "content", "reasoning_content", "tool_calls"?}, "finish_reason"}],
     "usage": {"prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details"}}

    finish_reason is stop, length or tool_calls. completion_tokens are the model's own; reasoning_tokens are those of
    them inside the thought; forced_tokens is 1 when the budget's hard stop closed it. Loop while finish_reason is
    tool_calls: append the message, run the calls, append their results, ask again.
    """
    return respond_all(model, tokenizer, [messages], tools, thinking, budget, **options)[0]


def respond_all(
    model: KimiMini,
    tokenizer: Tokenizer,
    conversations: Sequence[list[dict]],
    tools: list[dict] | None = None,
    thinking: bool = True,
    budget: Budget = None,
    **options,
) -> list[dict]:
    """`respond` for many conversations in one batch. Raises ValueError when one is not a list of messages."""
    for messages in conversations:
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise ValueError(
                f"a conversation is a list of messages such as {{'role': 'user', 'content': 'hello'}}, "
                f"not {messages!r:.60}"
            )
    prompts = [
        chat.encode(tokenizer, messages, tools, add_generation_prompt=True, thinking=thinking)[0]
        for messages in conversations
    ]
    turns = write(model, tokenizer, prompts, budget=budget, **options)
    return [response(turn, tokenizer, thinking) for turn in turns]


def response(turn: Turn, tokenizer: Tokenizer, thinking: bool = True) -> dict:
    """A turn as `respond` returns it."""
    parsed = chat.parse_ids(tokenizer, turn.ids, None if thinking else False)
    message = {
        key: parsed[key] for key in ("role", "content", "reasoning_content", "tool_calls") if key in parsed
    }
    finish = "length" if turn.finish == "length" else "tool_calls" if parsed.get("tool_calls") else "stop"
    details = {
        "reasoning_tokens": sum(own and inside for own, inside in zip(turn.own, turn.thought)),
        "forced_tokens": len(turn.ids) - turn.written,
    }
    usage = {
        "prompt_tokens": len(turn.prompt),
        "completion_tokens": turn.written,
        "total_tokens": len(turn.prompt) + turn.written,
        "completion_tokens_details": details,
    }
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}
