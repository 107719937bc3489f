"""Tools: what the model may call, how a call is checked, and what the model reads back.

K2 declares its tools as OpenAI function schemas and answers with JSON arguments. A call can go wrong in six ways, and
in each of them the model must get a short message that it can act upon, while the rollout goes on:

    error kind      what the model did (or met)                      what it reads
    undeclared      named a tool that this request does not declare  error: no tool 'fly'; declared: add, search
    bad_json        wrote no JSON, a key twice, or too deep a nest   error: arguments are not JSON: ...
    double_encoded  wrote a JSON string that holds JSON              error: arguments are a JSON string; ...
    schema          broke the declared schema                        error: arguments.count: 'two' is not of ...
    exception       called a tool that failed                        error: search failed: KeyError: 'x'
    timeout         called a tool that never came back               error: search did not answer in 2 s

`Toolbox.call` therefore never raises (Ctrl-C excepted) and always returns a ToolResult. Calls to undeclared
tools and double-encoded arguments are the two failures that the K2 vendor reports meet most.

Names are compared exactly, with case. Speed: a call that passes costs about 15 microseconds, nearly all of it in
the schema check. Validators are compiled once per schema; no thread is started unless the tool itself asks for a
time-out.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from kimi_mini.worlds.tools.arguments import CallError, read, shorten

MAX_CONTENT = 4000  # characters of a result that the model gets to read
MAX_REASON = 200  # characters of an error message
MAX_HANGING = 8  # calls of one tool that may hang at a time before further ones are refused

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # no dot, no colon: call ids read functions.NAME:INDEX


class ToolError(Exception):
    """Raised by a tool's function to tell the model what it did wrong, in the tool's own words."""


@dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    name         letters, digits, _ and -; what the model writes after `functions.`
    description  one sentence for the model
    parameters   JSON schema (draft 2020-12) of the arguments, of type "object"
    function     called with the arguments as keywords; returns a str, or anything that json can write
    timeout      seconds, or None to call directly. With a time-out the function runs in a thread of its own;
                 Python cannot stop a thread, so a function that hangs keeps its thread until it returns.
                 Code that may hang on purpose belongs into the sandbox, which does stop it.
    made         the schema comes from a program that makes valid ones: it is compiled at the first call

    Raises ValueError when the name or the schema is not valid: a mistake of the programmer, not of the model.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any]
    timeout: float | None = None
    made: bool = False
    _hanging: list[threading.Thread] = field(default_factory=list, init=False, repr=False, compare=False)
    _validators: tuple = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _NAME.fullmatch(self.name)):
            raise ValueError(
                f"tool name {self.name!r}: use letters, digits, _ and -, and begin with a letter"
            )
        if not self.made:
            self.validators()

    def validators(self) -> tuple:
        """The checkers of the arguments, compiled once."""
        from kimi_mini.worlds.tools.schema import compile_schema  # slow to import

        if not self._validators:
            try:
                object.__setattr__(self, "_validators", compile_schema(self.parameters))
            except ValueError as error:
                raise ValueError(f"tool {self.name!r}: {error}") from None
        return self._validators

    def declaration(self) -> dict[str, Any]:
        """The OpenAI declaration of this tool, as it is put before the model."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        if not self.description:
            del function["description"]
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolResult:
    """What came back: `content` is the text for the model, `error` the kind of failure or None."""

    ok: bool
    content: str
    error: str | None
    seconds: float


class Toolbox:
    """The tools of one request. Raises ValueError when two tools share a name.

    canonical: the keys of the declarations are sorted at every depth, as K2's own tokenizer sorts them before its
    template: a description then stands before the name that it describes, and reading from left to right finds it.
    """

    def __init__(self, tools: Iterable[Tool], canonical: bool = False):
        self.tools: dict[str, Tool] = {}
        self.canonical = canonical
        for tool in tools:
            if tool.name in self.tools:
                raise ValueError(f"two tools are named {tool.name!r}")
            self.tools[tool.name] = tool

    def declarations(self) -> list[dict[str, Any]]:
        """OpenAI `tools` list, in the order in which the tools were given."""
        declared = [tool.declaration() for tool in self.tools.values()]
        return _sorted(declared) if self.canonical else declared

    def call(self, name: str, arguments_json: str) -> ToolResult:
        """Check the arguments, run the tool, report. Never raises; only Ctrl-C passes through."""
        start = perf_counter()
        try:
            tool = self._find(name)
            value = _run(tool, read(arguments_json, tool.validators()))
            content, error = _as_text(tool, value), None
        except CallError as problem:
            content, error = f"error: {shorten(str(problem), MAX_REASON)}", problem.kind
        return ToolResult(error is None, content, error, perf_counter() - start)

    def _find(self, name: str) -> Tool:
        tool = self.tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise CallError("undeclared", f"no tool {shorten(_safe_str(name), 40)!r}; {self._hint()}")
        return tool

    def _hint(self) -> str:
        """What helps when a tool is not there."""
        return f"declared: {', '.join(self.tools) or 'none'}"


def _sorted(value: Any) -> Any:
    """Dicts at every depth with their keys in order; lists keep theirs."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


def _run(tool: Tool, arguments: dict[str, Any]) -> Any:
    """The function's value. Raises CallError: exception or timeout."""
    try:
        if tool.timeout is None:
            return tool.function(**arguments)
        return _run_in_thread(tool, arguments)
    except CallError:
        raise
    except ToolError as error:
        raise CallError("exception", _safe_str(error) or "the tool gave no reason") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  whatever a tool raises is news for the model
        reason = f"{type(error).__name__}: {_safe_str(error)}".rstrip(": ")
        raise CallError("exception", f"{tool.name} failed: {reason}") from None


def _run_in_thread(tool: Tool, arguments: dict[str, Any]) -> Any:
    tool._hanging[:] = [thread for thread in tool._hanging if thread.is_alive()]
    if len(tool._hanging) >= MAX_HANGING:
        raise CallError("timeout", f"{tool.name} is stuck: {MAX_HANGING} earlier calls never came back")
    outcome: list[tuple[str, Any]] = []

    def work() -> None:
        try:
            outcome.append(("value", tool.function(**arguments)))
        except BaseException as error:  # noqa: BLE001  handed over to the caller's thread
            outcome.append(("error", error))

    thread = threading.Thread(target=work, name=f"tool-{tool.name}", daemon=True)
    thread.start()
    thread.join(tool.timeout)
    if not outcome:
        tool._hanging.append(thread)
        raise CallError("timeout", f"{tool.name} did not answer in {tool.timeout:g} s")
    kind, value = outcome[0]
    if kind == "error":
        raise value
    return value


def _as_text(tool: Tool, value: Any) -> str:
    """What the model reads: text as it is, everything else as JSON; one length limit for both."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    except Exception as error:  # noqa: BLE001  a value may do anything while it is written
        raise CallError("exception", f"{tool.name} returned no JSON value: {_safe_str(error)}") from None
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate would break the tokenizer
    if len(text) > MAX_CONTENT:
        text = f"{text[:MAX_CONTENT]}... ({len(text) - MAX_CONTENT} more characters)"
    return text


def _safe_str(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  an exception whose __str__ fails
        return "(its text cannot be read)"
