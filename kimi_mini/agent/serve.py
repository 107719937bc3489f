"""`python -m kimi_mini serve`: the endpoint of `inference.serving` on an agent, and its page.

The page's tasks come from our worlds, and the tools that they declare run here: GET /page/worlds, POST /page/tasks,
POST /page/call. An environment stays open for as long as its page may come back (KEPT of them, AGE seconds).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kimi_mini.agent import conversation as state
from kimi_mini.agent.endpoint import read_key
from kimi_mini.agent.folder import load_agent, whose
from kimi_mini.base.errors import KimiError
from kimi_mini.text.habits import Habits
from kimi_mini.worlds import WORLDS, generate, registry

if TYPE_CHECKING:  # an extra
    from fastapi import FastAPI

EXTRA = "the endpoint needs more packages: pip install '.[serve]'"
KEPT, AGE = 64, 1800.0


class Tables:
    """The environments of the page's tasks, by session."""

    def __init__(self, seed: int | None = None):
        self.rng, self.lock = random.Random(seed), threading.Lock()
        self.open: OrderedDict[str, tuple[float, state.Conversation]] = OrderedDict()

    def worlds(self) -> list[dict[str, str]]:
        """Those that an agent of ours may work in."""
        return [{"name": name, "says": ", ".join(world.families)} for name, world in WORLDS.items()]

    def draw(self, world: str) -> dict[str, Any]:
        """A held-out task of this world: session, tools, messages. Raises KimiError for an unknown one."""
        if world not in WORLDS:
            raise KimiError(f"no world {world!r:.40}; there are {', '.join(WORLDS)}")
        with self.lock:
            family = self.rng.choice(list(WORLDS[world].families))
            level = self.rng.choice(registry.measured_levels(family))
            opened = state.opening(generate(self.rng, family, level, held_out=True))
            session = secrets.token_urlsafe(12)
            self.open[session] = time.monotonic(), opened
            self._clear()
        return {"session": session, "tools": opened.tools, "messages": opened.messages}

    def call(self, session: str, call: dict) -> str:
        """What a tool returns. Raises KimiError for a session that has ended, and for what is no call."""
        with self.lock:
            self._clear()
            if session not in self.open:
                raise KimiError("this task's tools are not there any more: draw a new one")
            opened = self.open[session][1]
            self.open[session] = time.monotonic(), opened
            self.open.move_to_end(session)
            function = call.get("function") if isinstance(call, dict) else None
            fields = (
                [function.get(name) for name in ("name", "arguments")]
                if isinstance(function, dict)
                else [None]
            )
            if not all(isinstance(field, str) for field in fields):
                raise KimiError("a call has a function with a name and arguments, both text")
            message = {"role": "assistant", "content": "", "tool_calls": [call | {"id": call.get("id")}]}
            kept = len(opened.messages)  # the page has the dialogue; here only the world's state goes on
            result = state.act(opened, message)[0]["content"]
            del opened.messages[kept:]
            return result

    def _clear(self) -> None:
        """End those that are too many, or too old; the first was used the longest ago."""
        while self.open and (
            len(self.open) > KEPT or time.monotonic() - next(iter(self.open.values()))[0] > AGE
        ):
            self.open.popitem(last=False)[1][1].environment.close()

    def close(self) -> None:
        """End all of them."""
        for _, opened in self.open.values():
            opened.environment.close()
        self.open.clear()


def add_page(app: FastAPI, tables: Tables) -> None:
    """The page and its routes on an endpoint."""
    from fastapi import Request
    from fastapi.responses import HTMLResponse, JSONResponse

    from kimi_mini.inference.serving.requests import Refused

    page = files("kimi_mini.inference.serving").joinpath("page.html").read_text(encoding="utf-8")
    endpoint = app.state.endpoint

    async def fields(request) -> dict:
        endpoint.admit(request)
        try:
            found = json.loads(await endpoint.body_of(request))
        except (ValueError, RecursionError):
            raise Refused("the body is no JSON") from None
        return found if isinstance(found, dict) else {}

    async def shown(work, *words) -> JSONResponse:
        try:
            return JSONResponse(await asyncio.to_thread(work, *words))
        except KimiError as error:
            raise Refused(str(error)) from None

    async def index(request: Request) -> HTMLResponse:
        return HTMLResponse(page)

    async def worlds(request: Request) -> JSONResponse:
        endpoint.admit(request)
        return JSONResponse({"worlds": tables.worlds()})

    async def tasks(request: Request) -> JSONResponse:
        return await shown(tables.draw, str((await fields(request)).get("world")))

    async def call(request: Request) -> JSONResponse:
        asked = await fields(request)
        session = str(asked.get("session"))
        return await shown(lambda: {"content": tables.call(session, asked.get("call"))})

    app.add_route("/", index, ["GET"])
    app.add_route("/page/worlds", worlds, ["GET"])
    app.add_route("/page/tasks", tasks, ["POST"])
    app.add_route("/page/call", call, ["POST"])


@contextlib.contextmanager
def serving(
    folder: str | Path,
    port: int = 0,
    host: str = "127.0.0.1",
    places: int = 16,
    queue: int = 64,
    adapters=None,
    **more,
) -> Iterator[str]:
    """Context: the agent of a folder behind an endpoint on a thread of this process; gives its URL, .../v1.

    adapters: name -> folder. more: fields of `inference.serving.app.Settings`.
    """
    with contextlib.closing(bound(host, port)) as held:  # first: a port that is taken costs no model
        server, engine, tables = build(folder, host, places, queue, adapters or {}, more)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [held]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise KimiError("the endpoint did not start")
                time.sleep(0.01)
            yield f"http://{address(host, held.getsockname()[1])}/v1"
        finally:
            engine.close()  # first: open streams end in a line of their own, and the server need not cut them off
            server.should_exit = True
            thread.join(10)
            tables.close()


def build(folder: str | Path, host: str, places: int, queue: int, adapters: dict[str, str], more: dict):
    """(server, engine, tables), nothing started but the engine. Raises KimiError without the extra packages, and for an
    adapter that has the model's own name."""
    try:
        import uvicorn

        from kimi_mini.inference.serving.app import Settings, create_app
        from kimi_mini.inference.serving.engine import Engine
    except ImportError as error:
        raise KimiError(f"{EXTRA} ({error.name} is missing)") from None
    from kimi_mini.inference.adapters import Adapters
    from kimi_mini.model.compact.lora import load_adapter

    own = {"name": Path(folder).resolve().name, "adapters": tuple(adapters), "habits": Habits.load(folder)}
    settings = Settings(**own | more)
    if settings.name in adapters:
        raise KimiError(f"the model itself is called {settings.name}: give its adapter another name")
    model, tokenizer = load_agent(folder)
    served = model
    if adapters:
        served = Adapters(model, {name: load_adapter(model, place) for name, place in adapters.items()})
    engine = Engine(served, places, queue)
    app, tables = create_app(engine, model, tokenizer, settings), Tables()
    add_page(app, tables)
    config = uvicorn.Config(
        app, host=host, log_level="warning", timeout_graceful_shutdown=3, access_log=False
    )
    return uvicorn.Server(config), engine, tables


def address(host: str, port: int) -> str:
    """Host and port as they stand in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound(host: str, port: int) -> socket.socket:
    """A socket on this port, 0: any that is free. Raises KimiError for one that is taken or not ours, and for no host
    at all, which would be every address of this machine."""
    if not host:
        raise KimiError(
            "--host wants an address: 127.0.0.1 is this machine alone, 0.0.0.0 all of its addresses"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off, 40 ms a request, where a socket names its protocol
    held = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((host, port))
    except (OSError, TypeError) as error:  # TypeError: a name that cannot be one of a host
        held.close()
        reason = getattr(error, "strerror", None) or error
        raise KimiError(
            f"{address(host, port)} cannot be used ({reason}): --host and --port name another address"
        ) from None
    held.listen(128)
    return held


def named(words: list[str]) -> dict[str, str]:
    """NAME=FOLDER as a dict. Raises KimiError for what is none, and for two of one name."""
    pairs = [word.partition("=") for word in words]
    if wrong := [word for word, (name, _, place) in zip(words, pairs) if not (name and place)]:
        raise KimiError(f"--adapter wants NAME=FOLDER, not {wrong[0]!r}")
    names = [name for name, _, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise KimiError(f"--adapter names {twice[0]!r} twice: give each adapter a name of its own")
    return {name: place for name, _, place in pairs}


def main(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    more = {
        "key": read_key(args.api_key_file),
        "constrained": not args.unconstrained,
        "strict": args.strict_reasoning,
    }
    more |= {"temperature": args.temperature, "tokens": args.max_tokens, "timeout": args.timeout}
    with serving(
        args.checkpoint, args.port, args.host, args.places, args.queue, named(args.adapter), **more
    ) as url:
        key = "with its key" if more["key"] else "without a key"
        print(
            f"{whose(Path(args.checkpoint))}: {url}, {key}; the page: {url.removesuffix('v1')}; Ctrl-C ends it",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
    print("\nstopped; nothing was changed")
    return 0
