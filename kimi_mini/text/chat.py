"""The chat format of Kimi K2 Thinking: messages to text, and to tokens with a loss mask. parse() reads it back.

A turn is  <|im_user|>user<|im_middle|> ... <|im_end|>  (or im_assistant, or im_system for everything else), with
nothing between turns. An assistant's turn holds a thought, then text, then calls:

    <|im_assistant|>assistant<|im_middle|><think>reasoning_content</think>content
    <|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{JSON}
    <|tool_call_end|><|tool_calls_section_end|><|im_end|>                  (without the line breaks shown here)

Which thoughts stay in the context? Everything up to the last answer (the last assistant message without calls) is
history: its thoughts are dropped, the empty tags stay. After it a chain of calls is running and keeps its thoughts:
the model goes on thinking where it stopped. Hence the prefix property: inside a chain every rendering extends the
one before, token for token.

Messages are OpenAI's dicts (see messages.py for what is accepted). An assistant message may say `"thinking": False`:
a reflex, whose empty thought was given by the prompt and is therefore not trained on.

Sources: K2 report, appendix B; chat_template.jinja of moonshotai/Kimi-K2-Thinking.
"""

from collections.abc import Iterator
from pathlib import Path

from kimi_mini.text.messages import checked, checked_tools, compact_json
from kimi_mini.text.parser import parse, parse_ids
from kimi_mini.text.tokenizer import Tokenizer

__all__ = [
    "CHAT_TEMPLATE",
    "DEFAULT_SYSTEM",
    "encode",
    "encode_results",
    "history_end",
    "parse",
    "parse_ids",
    "render",
]

DEFAULT_SYSTEM = "You are Kimi, an AI assistant created by Moonshot AI."

# The same rules for `transformers`: tests hold render() and this template together on generated conversations.
# `as_written` is ours (see render); K2's own template knows the other variables.
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")

# A piece of a conversation: (text, is it a special token?, did the assistant write it?)
Piece = tuple[str, bool, bool]


def render(
    messages: list[dict],
    tools: list[dict] | None = None,
    add_generation_prompt: bool = False,
    thinking: bool | None = None,
    as_written: bool = False,
    system: str = DEFAULT_SYSTEM,
) -> str:
    """The conversation as the text that the model reads.

    Args:
        messages: OpenAI messages; without a system message in front `system`, K2's default one, is put there.
        tools: JSON declarations of the tools, as `Toolbox.declarations()` gives them.
        add_generation_prompt: open the assistant's next turn.
        thinking: False gives that turn an empty thought (reflex); otherwise the model opens its own <think>.
        as_written: keep the last answer's thoughts, and those of the chain that led to it, as they stood while the
            model wrote it. K2's template (the default here) drops them, as it must for the *next* question.

    Raises:
        ValueError: a message of unknown shape; the text names the message and its field.
    """
    return "".join(
        text for text, _, _ in _pieces(messages, tools, add_generation_prompt, thinking, as_written, system)
    )


def encode(
    tokenizer: Tokenizer,
    messages: list[dict],
    tools: list[dict] | None = None,
    add_generation_prompt: bool = False,
    thinking: bool | None = None,
    as_written: bool = True,
    system: str = DEFAULT_SYSTEM,
) -> tuple[list[int], list[bool]]:
    """Tokens of the conversation, and a mask of those that the assistant wrote and should be trained on.

    Only the template itself makes special tokens: a marker inside content, a name or an argument stays plain text,
    so a web page that says "<|im_end|>" ends nothing.

    The mask covers an assistant's turn from behind its <|im_middle|> up to its <|im_end|>, with three exceptions:
    the empty tags that a reflex was given, and a whole turn whose thought was dropped, because those are not
    the tokens that the model produced; and a turn of `"weight": 0`, a wrong step that is there to be put right
    (the field of OpenAI's fine-tuning files). With `as_written` (default here, for training) the turns after the last
    question are complete, thoughts included.

    Returns:
        ids: token ids, of any length
        mask: as long as ids
    """
    ids: list[int] = []
    mask: list[bool] = []
    special, encode_plain = tokenizer.special, tokenizer.encode_plain
    pieces = _pieces(messages, tools, add_generation_prompt, thinking, as_written, system)
    for text, is_special, trained in pieces:
        if is_special:
            ids.append(special[text])
            mask.append(trained)
        elif text:
            new = encode_plain(text)
            ids.extend(new)
            mask.extend([trained] * len(new))
    return ids, mask


def encode_results(tokenizer: Tokenizer, results: list[dict], thinking: bool | None = None) -> list[int]:
    """Tokens that the environment adds to a running chain: the tool messages, then the opening of the next turn.

    Appended to what the model has seen and written so far they give the tokens of the whole conversation, so that a
    rollout never has to be tokenised again.
    """
    opening = [{"role": "system", "content": ""}]
    skip = len(encode(tokenizer, opening)[0])
    return encode(tokenizer, opening + results, add_generation_prompt=True, thinking=thinking)[0][skip:]


def history_end(messages: list[dict], as_written: bool = False) -> int:
    """Index of the last answer (assistant message without calls), or -1: thoughts up to there are dropped.

    With `as_written` the very last message does not count: it is just being written.
    """
    for index in range(len(messages) - 1 - as_written, -1, -1):
        if messages[index].get("role") == "assistant" and not messages[index].get("tool_calls"):
            return index
    return -1


def _pieces(
    messages, tools, add_generation_prompt, thinking, as_written, system=DEFAULT_SYSTEM
) -> Iterator[Piece]:
    """The one description of the format; render() joins it, encode() tokenises it piece by piece."""
    messages, tools = checked(messages), checked_tools(tools)
    if tools:
        yield from _turn("<|im_system|>", "tool_declare", compact_json(tools, "tools"))
    if not messages or messages[0]["role"] != "system":
        yield from _turn("<|im_system|>", "system", system)
    end = history_end(messages, as_written)
    for index, message in enumerate(messages):
        role, name, content = message["role"], message["name"], message["content"]
        if role == "assistant":
            yield from _assistant_turn(message, is_history=index <= end)
        elif role == "tool":
            returned = f"## Return of {message['tool_call_id']}\n{content}"
            yield from _turn("<|im_system|>", name, returned)
        else:
            yield from _turn("<|im_user|>" if role == "user" else "<|im_system|>", name, content)
    if add_generation_prompt:
        yield from (
            ("<|im_assistant|>", True, False),
            ("assistant", False, False),
            ("<|im_middle|>", True, False),
        )
        if thinking is False:
            yield from (("<think>", True, False), ("</think>", True, False))


def _turn(opening: str, name: str, text: str) -> Iterator[Piece]:
    """A turn that the assistant did not write."""
    yield from ((opening, True, False), (name, False, False), ("<|im_middle|>", True, False))
    yield from ((text, False, False), ("<|im_end|>", True, False))


def _assistant_turn(message: dict, is_history: bool) -> Iterator[Piece]:
    reflex, thought = not message["thinking"], message["reasoning_content"]
    # with its thought gone, this is not what the model wrote; weight 0: it is shown, not learned
    trained = not (thought and is_history) and message["weight"] != 0
    yield from (
        ("<|im_assistant|>", True, False),
        (message["name"], False, False),
        ("<|im_middle|>", True, False),
    )
    yield "<think>", True, trained and not reflex
    yield "" if is_history else thought, False, trained
    yield "</think>", True, trained and not reflex
    yield message["content"], False, trained
    if message["tool_calls"]:
        yield "<|tool_calls_section_begin|>", True, trained
        for call in message["tool_calls"]:
            yield "<|tool_call_begin|>", True, trained
            yield call["id"], False, trained
            yield "<|tool_call_argument_begin|>", True, trained
            yield call["arguments"], False, trained
            yield "<|tool_call_end|>", True, trained
        yield "<|tool_calls_section_end|>", True, trained
    yield "<|im_end|>", True, trained
