"""OpenAI's messages, checked: every field in one form, and every mistake named with its message and its field."""

import json
from typing import Any

# Where a message may carry its thought: our field, that of gpt-oss and that of vLLM. The first that is text counts, as
# in `transformers`. A `thinking` that is false marks a reflex.
THOUGHT_FIELDS = ("reasoning_content", "thinking", "reasoning")
ROLES = ("system", "developer", "user", "assistant", "tool")


def checked(messages: list[dict]) -> list[dict]:
    """Copies that hold what the chat format shows: role, name and content (a developer is the system); of an assistant
    also reasoning_content, thinking (false for a reflex), tool_calls (id and arguments as text) and weight (0: not to
    be learned); of a tool its tool_call_id.

    Raises:
        ValueError: one line that names the message, by its index, and the field.
    """
    if not isinstance(messages, list | tuple):
        raise _wrong("messages", "a list such as [{'role': 'user', 'content': 'hello'}]", messages)
    return [_message(f"message {index}", message) for index, message in enumerate(messages)]


def checked_tools(tools: list[dict] | None) -> list[dict]:
    """The declarations of the tools; None is an empty list. ValueError for anything else."""
    if not isinstance(tools, list | tuple | None):
        raise _wrong("tools", "a list of declarations", tools)
    for index, tool in enumerate(tools or []):
        if not isinstance(tool, dict):
            raise _wrong(f"tools[{index}]", "a declaration (a dict)", tool)
    return list(tools or [])


def content_text(message: dict, where: str = "message") -> str:
    """Content as one string: None is empty, OpenAI's list of text parts is joined. Other parts: ValueError."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = [] if content is None else content
    if not isinstance(parts, list | tuple) or not all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts
    ):
        raise _wrong(f"{where}: content", "text, a list of text parts or None", content)
    return "".join(part["text"] for part in parts)


def compact_json(value: Any, where: str) -> str:
    """JSON without spaces. ValueError for what JSON cannot hold."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} cannot be written as JSON: {error}") from None


def _message(where: str, message: dict) -> dict:
    if not isinstance(message, dict):
        raise _wrong(where, "a dict such as {'role': 'user', 'content': 'hello'}", message)
    role = _text(message, "role", where)
    if role not in ROLES:
        raise _wrong(f"{where}: role", f"one of {', '.join(ROLES)}", role)
    role = "system" if role == "developer" else role
    name = _text(message, "name", where) if message.get("name") is not None else role
    clean = {"role": role, "name": name or role, "content": content_text(message, where)}
    if role == "tool":
        clean["tool_call_id"] = _text(message, "tool_call_id", where)
    elif role == "assistant":
        clean["thinking"] = message.get("thinking") is not False
        thought = _thought(message, where)
        clean["reasoning_content"] = thought if clean["thinking"] else ""
        clean["tool_calls"] = _calls(message, where)
        clean["weight"] = 0 if message.get("weight") == 0 else 1
    return clean


def _thought(message: dict, where: str) -> str:
    """The thought under any of its names, "" where there is none."""
    for field in THOUGHT_FIELDS:
        value = message.get(field)
        if isinstance(value, str):
            return value
        if value is not None and not (field == "thinking" and isinstance(value, bool)):
            raise _wrong(f"{where}: {field}", "text or None", value)
    return ""


def _calls(message: dict, where: str) -> list[dict]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list | tuple):
        raise _wrong(f"{where}: tool_calls", "a list of calls", calls)
    clean = []
    for index, call in enumerate(calls):
        place = f"{where}: tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise _wrong(place, "a dict with 'id' and 'function'", call)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = compact_json(arguments, f"{place}: arguments")
        elif not isinstance(arguments, str):
            raise _wrong(f"{place}: arguments", "text or a dict", arguments)
        clean.append({"id": _text(call, "id", place), "arguments": arguments})
    return clean


def _text(mapping: dict, field: str, where: str) -> str:
    if field not in mapping:
        raise ValueError(f"{where}: {field} is missing")
    if not isinstance(mapping[field], str):
        raise _wrong(f"{where}: {field}", "text", mapping[field])
    return mapping[field]


def _wrong(what: str, wanted: str, value: Any) -> ValueError:
    return ValueError(f"{what} must be {wanted}, not {value!r:.80}")
