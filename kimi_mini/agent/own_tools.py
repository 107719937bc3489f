"""Tools of one's own: a Python file whose functions become tools that the agent is told of.

    def shelf_of(book: str) -> int:
        "Gives the shelf of a book."
        return {"moby dick": 12}[book.lower()]

Every public function of the file becomes a tool: its docstring is the description, its annotations the schema (str,
int, float, bool, list, dict; a default makes an argument optional). Functions that are imported are left out. When
there are more tools than the agent was trained to read at once, they have to be found by `find_tools`.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kimi_mini.agent.conversation import Conversation, first_messages
from kimi_mini.base.errors import BadFile, MissingFile
from kimi_mini.worlds import Environment, Task
from kimi_mini.worlds.tools import Finder, Tool, Toolbox

TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
DEFERRED = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
MOST_DECLARED = 12


def tool_of(function: Callable) -> Tool:
    """A function as a tool. Raises ValueError for an argument whose type has no schema, or that has no name for the
    caller, and for a function that gives no value when it is called."""
    plain = function if inspect.isfunction(function) else inspect.unwrap(function)
    if any(deferred(plain) for deferred in DEFERRED):
        raise ValueError(f"{function.__name__}: a tool returns its value at once, without async or yield")
    properties, required = {}, []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        kind = TYPES.get(parameter.annotation)
        if kind is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(
                f"{function.__name__}: annotate {name} with one of {', '.join(one.__name__ for one in TYPES)}"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ValueError(f"{function.__name__}: arguments come by name, so leave out the / behind {name}")
        properties[name] = {"type": kind}
        if parameter.default is parameter.empty:
            required.append(name)
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(function.__name__, inspect.getdoc(function) or "", schema, function)


def toolbox_of(tools: Sequence[Tool]) -> Toolbox:
    """All of them declared, or behind `find_tools` if they are many. Raises ValueError for two of one name, or, behind
    `find_tools`, for a declaration that is too long."""
    return (Finder if len(tools) > MOST_DECLARED else Toolbox)(tools, canonical=True)


def dialogue(words: str, tools: Sequence[Tool]) -> Conversation:
    """The user's words before an agent that has these tools; nobody knows the right answer, so there is no verdict."""
    task = Task("desk", "ask", 1, words, system=None)
    return Conversation(task, first_messages(task), Environment(toolbox_of(tools)))


def _is_of(module: str, thing: object) -> bool:
    """Whether it is a function of that module, perhaps behind a decorator that keeps its name, as functools.cache."""
    return inspect.isfunction(getattr(thing, "__wrapped__", thing)) and thing.__module__ == module


def load_tools(file: str | Path) -> list[Tool]:
    """The tools of a Python file, which is run. Raises MissingFile or BadFile, in one line."""
    file = Path(file)
    if not file.is_file():
        raise MissingFile(f"{file}: no such file; --tools wants a Python file with functions")
    spec = importlib.util.spec_from_file_location("own_tools_of_a_user", file)
    if spec is None:
        raise BadFile(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up the annotations of the file
    try:
        spec.loader.exec_module(module)
        tools = [
            tool_of(function)
            for name, function in vars(module).items()
            if not name.startswith("_") and _is_of(spec.name, function)
        ]
        toolbox_of(tools)
    except (Exception, SystemExit) as error:  # whatever a user's file raises is news for the user
        sys.modules.pop(spec.name, None)
        reason = (str(error).splitlines() or [""])[0]
        raise BadFile(f"{file}: {type(error).__name__}: {reason}") from error
    if not tools:
        raise BadFile(f"{file}: it has no public function; each becomes a tool")
    return tools
