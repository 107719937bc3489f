"""Clients that load an endpoint: many at once, some that leave in the middle, some that ask nonsense.

    asks = [Ask(number, {"messages": ...}) for number, ... in ...]
    answers, seconds = asyncio.run(together(url, asks, clients=32))

The `openai` client asks what it can ask; bodies that it would not send go over `httpx2`, which it brings
along (the extra [serve]). A client asks one thing after the other, as people do: so many are under way as there are
clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from httpx2 import HTTPError
from openai import APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

WHOLE, STREAM, LEAVE, BROKEN = "whole", "stream", "leave", "broken"
PATIENCE = 120.0


@dataclass(frozen=True)
class Ask:
    """One request. how: WHOLE and STREAM are to be answered; LEAVE: a stream that is left at its first words; BROKEN:
    `raw` is sent as it stands, and should be refused."""

    number: int
    body: dict[str, Any]
    how: str = STREAM
    raw: bytes = b""


@dataclass
class Got:
    """What came of it. status: of HTTP, None: nothing came at all; ids: under which answers came; finishes: how often
    one was said to be over; first and seconds: until the first word and the end; written: tokens, as the endpoint
    counts them; left: in the middle, as was meant."""

    number: int
    status: int | None = None
    ids: set[str] = field(default_factory=set)
    finishes: list[str] = field(default_factory=list)
    thought: str = ""
    content: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    written: int = 0
    first: float | None = None
    seconds: float = 0.0
    left: bool = False

    @property
    def says(self) -> tuple:
        """The answer itself: thought, content, calls, how it ended."""
        return self.thought, self.content, tuple(self.calls), *self.finishes


async def together(url: str, asks: Sequence[Ask], clients: int) -> tuple[list[Got], float]:
    """What came of each, and the seconds of all; `clients` ask at a time."""
    left, found = iter(asks), []
    http = DefaultAsyncHttpxClient(timeout=PATIENCE)
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http) as client:

        async def one_client() -> None:
            for ask in left:
                found.append(await asked(client, http, url, ask))

        start = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(clients)))
        return found, time.perf_counter() - start


async def asked(client: AsyncOpenAI, http, url: str, ask: Ask) -> Got:
    """One request and all that comes of it; an error of the line is what came."""
    got, start = Got(ask.number), time.perf_counter()
    try:
        if ask.how == BROKEN:
            json = {"Content-Type": "application/json"}
            got.status = (
                await http.post(f"{url}/chat/completions", content=ask.raw, headers=json)
            ).status_code
        elif ask.how == WHOLE:
            _whole(got, await client.chat.completions.create(**ask.body))
        else:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            stream = await client.chat.completions.create(**ask.body, **options)
            async for chunk in stream:
                _piece(got, chunk, start)
                if ask.how == LEAVE and got.first is not None:
                    got.left = not got.finishes
                    await stream.close()
                    break
            got.status = 200
    except APIStatusError as error:
        got.status = error.status_code
    except (OpenAIError, HTTPError, OSError):
        pass
    got.seconds = time.perf_counter() - start
    return got


def _whole(got: Got, answer) -> None:
    choice, got.status = answer.choices[0], 200
    got.ids.add(answer.id)
    got.finishes.append(choice.finish_reason)
    got.thought, got.content = choice.message.reasoning_content or "", choice.message.content or ""
    for call in choice.message.tool_calls or ():
        got.calls.append((call.id, call.function.name, call.function.arguments))
    got.written = answer.usage.completion_tokens


def _piece(got: Got, chunk, start: float) -> None:
    got.ids.add(chunk.id)
    if chunk.usage:
        got.written += chunk.usage.completion_tokens
    for choice in chunk.choices:
        delta = choice.delta
        thought = getattr(delta, "reasoning_content", None) or ""
        if got.first is None and (thought or delta.content or delta.tool_calls):
            got.first = time.perf_counter() - start
        got.thought += thought
        got.content += delta.content or ""
        for part in delta.tool_calls or ():
            if part.id:
                got.calls.append((part.id, part.function.name, ""))
            call_id, name, arguments = got.calls[part.index]
            got.calls[part.index] = call_id, name, arguments + (part.function.arguments or "")
        if choice.finish_reason:
            got.finishes.append(choice.finish_reason)
