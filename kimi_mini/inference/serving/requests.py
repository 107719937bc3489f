"""What a request to /v1/chat/completions may hold, and the rows that it becomes.

Nothing that matters is passed over: a field that is not known here, or is known and cannot be done, is refused with its
name. Fields that change nothing about the answer (SAYS_NOTHING) may be there.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.serving.constrained import Constraint, with_found
from kimi_mini.inference.writer import Marks, Row, dice, stops_of
from kimi_mini.text import chat
from kimi_mini.text.habits import Habits
from kimi_mini.text.tokenizer import Tokenizer

SAYS_NOTHING = frozenset(
    "user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention".split()
)
MOST_STOPS, MOST_CHOICES, MOST_ALTERNATIVES = 4, 8, 20
SPEAKERS = ("system", "developer", "user", "tool")  # whose messages have a content


class Refused(KimiError):
    """A request that is not answered: an HTTP status, OpenAI's type and code, and the field that is to blame."""

    def __init__(self, message: str, status: int = 400, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict:
        """As OpenAI's servers say it."""
        kinds = {401: "authentication_error", 404: "not_found_error", 413: "request_too_large"}
        kinds |= {429: "rate_limit_error", 500: "server_error", 503: "server_error", 504: "timeout"}
        kind = kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StreamOptions(_Strict):
    """What a stream says besides."""

    include_usage: StrictBool = False


class TemplateOptions(_Strict):
    """K2's own switch, as vLLM and SGLang pass it on."""

    thinking: StrictBool = True


class Chat(_Strict):
    """The body of a request. Names and defaults are OpenAI's, but for: temperature, None: the server's; thinking and
    thinking_budget, tokens of a thought."""

    model: str
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: StrictBool = True
    response_format: dict[str, Any] | None = None
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MOST_STOPS)]
        | None
    ) = None
    seed: Annotated[int, Field(strict=True)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES, strict=True)] = 1
    logprobs: StrictBool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES, strict=True)] | None = None
    chat_template_kwargs: TemplateOptions | None = None
    thinking: StrictBool | dict[Literal["type"], Literal["enabled", "disabled"]] | None = None
    thinking_budget: Annotated[int, Field(ge=0, strict=True)] | None = None
    presence_penalty: Literal[0, 0.0] | None = None
    frequency_penalty: Literal[0, 0.0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @classmethod
    def read(cls, body: bytes) -> Chat:
        """Raises Refused in one line that names the field."""
        try:
            fields = json.loads(body)
            json.dumps(fields, ensure_ascii=False).encode()  # no half letters; nesting that others can follow
        except (ValueError, RecursionError) as error:
            raise Refused(f"the body is no JSON: {error!s:.100}") from None
        if not isinstance(fields, dict):
            raise Refused(f"the body must be a JSON object, not {type(fields).__name__}")
        try:
            said = {k: v for k, v in fields.items() if v is not None and k not in SAYS_NOTHING}
            return cls.model_validate(said)
        except ValidationError as errors:
            raise cls._refusal(errors.errors(include_url=False, include_context=False)[0]) from None

    @classmethod
    def _refusal(cls, error: dict) -> Refused:
        place = ".".join(map(str, error["loc"])) or error["msg"].partition(":")[0]
        says = {"extra_forbidden": f"{place}: is not known here", "missing": f"{place}: is missing"}
        says["alone"] = error["msg"]
        return Refused(
            says.get(error["type"], f"{place}: {error['msg']}, not {error['input']!r:.60}"), param=place
        )

    @model_validator(mode="after")
    def _together(self) -> Chat:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("alone", "top_logprobs: wants logprobs true beside it")
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("alone", "stream_options: wants stream true beside it")
        return self

    @property
    def thinks(self) -> bool:
        """Whether a thought comes first, however that was said."""
        if self.thinking is not None:
            return self.thinking is True or self.thinking == {"type": "enabled"}
        return self.chat_template_kwargs is None or self.chat_template_kwargs.thinking

    @property
    def stops(self) -> list[str]:
        """The strings at which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def most(self) -> int | None:
        """Tokens that may be written."""
        given = self.max_completion_tokens, self.max_tokens
        return next((limit for limit in given if limit is not None), None)


def with_own_ids(messages: Sequence[dict]) -> tuple[list[dict], int]:
    """The messages with the ids of all calls as K2 writes them, functions.NAME:INDEX, whatever they were before, and
    how many calls there are. A model copies the style of ids that it reads, and knows one alone.

    Refused for a result without its call.
    """
    renamed: dict[str, str] = {}
    done, count = [], 0
    for index, message in enumerate(messages):
        message = dict(message)
        calls = message.get("tool_calls")
        if message.get("role") == "assistant" and isinstance(calls, list):
            message["tool_calls"] = []
            for call in calls:
                function = call.get("function") if isinstance(call, dict) else None
                if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                    raise Refused(f"message {index}: a call needs a function with a name", param="messages")
                own = f"functions.{function['name']}:{count}"
                renamed[str(call.get("id"))] = own
                message["tool_calls"].append({**call, "id": own})
                count += 1
        elif message.get("role") == "tool":
            asked = message.get("tool_call_id")
            if not isinstance(asked, str) or asked not in renamed:
                raise Refused(
                    f"message {index}: no call before it has the id {asked!r:.60}", param="messages"
                )
            message["tool_call_id"] = renamed[asked]
            message.setdefault("name", renamed[asked].removeprefix("functions.").rpartition(":")[0])
        done.append(message)
    return done, count


def check_contents(messages: Sequence[dict]) -> None:
    """Refused, as OpenAI's API does, where a message has no content; an assistant's may be its calls alone."""
    for index, message in enumerate(messages):
        if message.get("role") in SPEAKERS and message.get("content") is None:
            raise Refused(f"message {index}: content is missing", param="messages")


def check_reasoning(messages: Sequence[dict]) -> None:
    """Refused, as Moonshot's API does, where a running chain of calls has lost its thoughts."""
    for index in range(chat.history_end(list(messages)) + 1, len(messages)):
        message = messages[index]
        fields = [message.get(name) for name in ("reasoning_content", "reasoning")]
        if message.get("role") == "assistant" and not any(isinstance(field, str) for field in fields):
            raise Refused(
                "thinking is enabled but reasoning_content is missing in assistant tool call message at index "
                f"{index}",
                param="messages",
            )


def prompt_of(
    asked: Chat, tokenizer: Tokenizer, strict: bool = False, habits: Habits | None = None
) -> tuple[list[int], list[Constraint]]:
    """The tokens before the turn, in the form that the agent is used to, and what holds each choice to the format.
    Raises Refused."""
    habits = habits or Habits()
    check_contents(asked.messages)
    messages, calls = with_own_ids(asked.messages)
    if strict and asked.thinks:
        check_reasoning(messages)
    form = asked.tool_choice or "auto", asked.parallel_tool_calls, asked.thinks, calls, asked.response_format
    try:
        declared = habits.ordered(asked.tools)  # the order of its arguments is that of a call, too
        tools = with_found(declared, messages)
        hooks = [Constraint(tokenizer, tools, *form) for _ in range(asked.n)]
        prompt, _ = chat.encode(
            tokenizer, messages, declared, True, asked.thinks, as_written=False, system=habits.system
        )
    except (KimiError, ValueError, RecursionError) as error:
        raise Refused(str(error)) from None
    return prompt, hooks


def rows_of(
    asked: Chat,
    tokenizer: Tokenizer,
    model,
    max_length: int,
    temperature: float = 0.0,
    constrained: bool = True,
    strict: bool = False,
    adapter: str | None = None,
    most: int | None = None,
    loops: int = 0,
    habits: Habits | None = None,
) -> list[Row]:
    """The rows of a request, one a choice. temperature, most: where the request names none (most: tokens, None: what
    the context holds). constrained: calls cannot be malformed. strict: a chain of calls must bring its thoughts. loops:
    see Row. habits: of the agent. Raises Refused."""
    prompt, hooks = prompt_of(asked, tokenizer, strict, habits)
    if len(prompt) >= max_length:
        says = f"the messages take {len(prompt)} tokens, and the context holds {max_length}"
        raise Refused(says, code="context_length_exceeded", param="messages")
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    return [
        Row(
            prompt,
            min(asked.most or most or max_length, max_length - len(prompt)),
            stops_of(model, tokenizer),
            dice(seed, choice),
            asked.thinking_budget if asked.thinks else None,
            Marks.of(tokenizer),
            hook if constrained else None,
            adapter,
            temperature if asked.temperature is None else asked.temperature,
            asked.top_p,
            loops=loops,
        )
        for choice, hook in enumerate(hooks)
    ]
