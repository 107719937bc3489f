"""The endpoint under load: many clients against one, clients that leave or ask nonsense, and its memory over minutes.

    python -m kimi_mini.experiments.deployment.serving

`python -m kimi_mini serve` runs as a process of its own, with 32 places, and clients of the `openai` package ask it
for the first turns of held-out tasks. Each round counts tokens a second at 1 to 32 clients, forwards or backwards.
Then 1,000 requests, of which a tenth is left in the middle and a twentieth is malformed: every other answer is compared
with what `inference.api.respond` writes. Then minutes of little load, in which only the server's memory is looked at.
What is done is kept (data/run/serving) and not done again.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from kimi_mini.agent import conversation as state
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log, check_plan
from kimi_mini.base.intervals import bootstrap, over_seeds
from kimi_mini.base.paths import CHECKPOINTS, RUNS
from kimi_mini.course.figures.deployment.serving import endpoint_under_load
from kimi_mini.evaluation.load import BROKEN, LEAVE, STREAM, WHOLE, Ask, Got, together
from kimi_mini.experiments import harness
from kimi_mini.experiments.deployment.constrained import kept
from kimi_mini.inference.api import respond_all
from kimi_mini.worlds.registry import held_out_tasks, measured_levels

AGENT = CHECKPOINTS / "final"
FAMILIES = ("follow", "condition", "buy", "repair")
PLACES, MOST = 32, 96  # rows at a time, and tokens of an answer
CLIENTS = (1, 2, 4, 8, 16, 32)
ROUNDS, REQUESTS, MINUTES = 5, 1000, 10.0
HOW = (*[LEAVE] * 2, BROKEN, *[WHOLE] * 8, *[STREAM] * 9)  # of twenty requests
TOGETHER = 64  # conversations that `respond` writes at a time
FASTER, FIRST, GROWTH = 5.0, 1.0, 10.0  # times; seconds; MiB: chosen before the first run


def main() -> None:
    """Load, judge, soak; write data/results/serving.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0], seeds=(0,))
    weights, seed = harness.fingerprint(AGENT), args.seeds[0]
    log = Log("serving", seeds=args.seeds, folder=args.folder, weights=weights, places=PLACES)
    folder = RUNS / "serving"
    plan = {"weights": weights, "scale": args.scale, "seeds": args.seeds, "most": MOST, "clients": CLIENTS}
    plan["minutes"] = MINUTES
    check_plan(folder, plan)
    for number in range(max(2, int(ROUNDS * args.scale))):
        part = partial(one_round, AGENT, number, seed, args.scale)
        log.row(what="round", number=number, **kept(folder / f"round-{number}.json", part))
        print(log.rows[-1]["speeds"], flush=True)
    part = partial(many, AGENT, max(20, int(REQUESTS * args.scale)), seed)
    log.row(what="requests", **kept(folder / "requests.json", part))
    part = partial(soak, AGENT, MINUTES * args.scale, seed)
    log.row(what="soak", **kept(folder / "soak.json", part))
    report(log)
    harness.finish(log, serving=endpoint_under_load)


# ------------------------------------------------------------------------------------- server and requests


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Context: the command `serve` in a process of its own; gives its URL, .../v1, and the process."""
    words = ("serve", "--checkpoint", folder, "--port", 0, "--places", PLACES, "--threads", 1)
    command = [sys.executable, "-m", "kimi_mini", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://\S+/v1", process.stdout.readline())
        if found is None:
            raise KimiError(process.stderr.read().strip() or "the endpoint did not start")
        yield found[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.communicate()


def bodies(folder: Path, count: int, seed: str) -> list[dict]:
    """First turns of held-out tasks, the families mixed."""
    found, each = [], -(-count // len(FAMILIES))
    number = random.Random(seed).getrandbits(32)
    for family in FAMILIES:
        for task in held_out_tasks(family, measured_levels(family), each, number):
            opened = state.opening(task)
            opened.environment.close()
            found.append({"messages": opened.messages, "tools": opened.tools})
    random.Random(seed).shuffle(found)
    more = {"model": folder.resolve().name, "max_tokens": MOST, "temperature": 0}
    return [body | more for body in found[:count]]


def malformed(body: Mapping, number: int) -> bytes:
    """A body that no endpoint should answer."""
    wrong = (
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"content": "hello"}]},
        {"temperature": -1},
        {"max_tokens": 0},
        {"n": "two"},
        {"model": "another"},
        {"tool_choice": "sometimes"},
        {"temprature": 1},
    )
    if number % (len(wrong) + 1) == 0:
        return json.dumps(body).encode()[:-9]
    return json.dumps({**body, **wrong[number % (len(wrong) + 1) - 1]}).encode()


def mixed(folder: Path, count: int, seed: str) -> list[Ask]:
    """Requests of which a tenth is left in the middle and a twentieth is malformed."""
    asks = []
    for number, body in enumerate(bodies(folder, count, seed)):
        how = HOW[number % len(HOW)]
        asks.append(Ask(number, body, how, malformed(body, number // len(HOW)) if how == BROKEN else b""))
    random.Random(seed).shuffle(asks)
    return asks


def asked(url: str, path: str) -> str:
    """What a GET gives."""
    with urllib.request.urlopen(url.removesuffix("/v1") + path, timeout=10) as answer:
        return answer.read().decode()


# ------------------------------------------------------------------------------------------------- parts


def one_round(folder: Path, number: int, seed: int, scale: float = 1.0) -> dict:
    """Tokens written a second, and seconds to the first one (median, 95%), by number of clients."""
    speeds, first = {}, {}
    with server(folder) as (url, _):
        asyncio.run(together(url, _streams(folder, 2 * PLACES, f"{seed}/warm/{number}"), PLACES))
        for clients in CLIENTS if number % 2 == 0 else CLIENTS[::-1]:
            count = max(clients, int(max(24, 6 * clients) * min(1.0, scale)))
            asks = _streams(folder, count, f"{seed}/serving/{number}/{clients}")
            found, seconds = asyncio.run(together(url, asks, clients))
            if any(got.status != 200 for got in found):
                raise KimiError(f"{clients} clients: a request was not answered")
            speeds[clients] = sum(got.written for got in found) / seconds
            waits = [got.first for got in found if got.first is not None]
            first[clients] = [float(np.quantile(waits, share)) for share in (0.5, 0.95)]
    return {"speeds": speeds, "first": first}


def _streams(folder: Path, count: int, seed: str) -> list[Ask]:
    return [Ask(number, body) for number, body in enumerate(bodies(folder, count, seed))]


def many(folder: Path, count: int, seed: int) -> dict:
    """The mixed requests, as many at once as there are places, judged; and what the endpoint says of itself behind."""
    asks = mixed(folder, count, f"{seed}/serving/mixed")
    with server(folder) as (url, _):
        found, seconds = asyncio.run(together(url, asks, PLACES))
        until = time.monotonic() + 5
        while json.loads(asked(url, "/health"))["running"] and time.monotonic() < until:
            time.sleep(0.05)
        health = json.loads(asked(url, "/health"))
        counted = re.search(r'kimi_requests_total\{status="200"\} (\S+)', asked(url, "/metrics"))
    judged_ = judged(asks, found, expected(folder, asks))
    first = [got.first for got in found if got.first is not None]
    more = {"running": health["running"] + health["waiting"], "counted": float(counted[1])}
    return {"requests": count, "seconds": seconds, **judged_, **more, "first": first}


def expected(folder: Path, asks: Sequence[Ask]) -> dict[int, tuple]:
    """What `respond` says to each request that is to be answered, by its number."""
    model, tokenizer = load_agent(folder)
    groups: dict[str, list[Ask]] = {}
    for ask in asks:
        if ask.how in (WHOLE, STREAM):
            groups.setdefault(json.dumps(ask.body["tools"]), []).append(ask)
    found = {}
    for group in groups.values():
        for start in range(0, len(group), TOGETHER):
            some = group[start : start + TOGETHER]
            talks = [ask.body["messages"] for ask in some]
            answers = respond_all(model, tokenizer, talks, some[0].body["tools"], max_tokens=MOST)
            found |= {ask.number: _says(answer) for ask, answer in zip(some, answers)}
    return found


def _says(answer: Mapping) -> tuple:
    choice = answer["choices"][0]
    message, calls = choice["message"], choice["message"].get("tool_calls") or ()
    calls = tuple((call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls)
    return message["reasoning_content"] or "", message["content"] or "", calls, choice["finish_reason"]


def judged(asks: Sequence[Ask], found: Sequence[Got], wanted: Mapping[int, tuple]) -> dict[str, int]:
    """Counts: answered, right; lost (no answer, or none that ended), twice (two ends, two ids, an id of another, or
    two for one request), left in the middle, refused, and served: what is malformed and was not refused."""
    how, counts = {ask.number: ask.how for ask in asks}, Counter(dict.fromkeys(COUNTS, 0))
    came = Counter(got.number for got in found)
    ids = Counter(one for got in found for one in got.ids)
    counts["lost"] += sum(number not in came for number, kind in how.items() if kind in (WHOLE, STREAM))
    for got in found:
        if how[got.number] == BROKEN:
            counts["refused" if 400 <= (got.status or 0) < 500 else "served"] += 1
        elif how[got.number] == LEAVE:
            counts["left" if got.left else "not_left"] += 1
        elif got.status != 200 or not got.finishes:
            counts["lost"] += 1
        elif len(got.finishes) > 1 or len(got.ids) != 1 or came[got.number] > 1 or ids[min(got.ids)] > 1:
            counts["twice"] += 1
        else:
            counts["answered"] += 1
            counts["right"] += got.says == wanted[got.number]
    return dict(counts)


COUNTS = ("answered", "right", "lost", "twice", "left", "not_left", "refused", "served")


def soak(folder: Path, minutes: float, seed: int) -> dict:
    """A few mixed requests a second for so long. samples: [seconds, MiB] of the server's resident memory."""
    asks, samples, requests = mixed(folder, 400, f"{seed}/serving/soak"), [], 0
    with server(folder) as (url, process):
        start = time.monotonic()
        while (now := time.monotonic() - start) < 60 * minutes:
            some = [asks[(requests + number) % len(asks)] for number in range(4)]
            asyncio.run(together(url, some, 2))
            requests += len(some)
            samples.append([now, process.memory_info().rss / 2**20])
            time.sleep(max(0.0, 1.0 - (time.monotonic() - start - now)))
        health = json.loads(asked(url, "/health"))
    return {"minutes": minutes, "requests": requests, "samples": samples, "running": health["running"]}


def growth(samples: Sequence[Sequence[float]]) -> float:
    """MiB by which the last eighth of the samples lies above the second, medians: the first is warming up."""
    part = max(1, len(samples) // 8)
    before, after = samples[part : 2 * part] or samples[:1], samples[-part:]
    return statistics.median(mib for _, mib in after) - statistics.median(mib for _, mib in before)


# ------------------------------------------------------------------------------------------------- claims


def report(log: Log) -> None:
    """The claims."""
    claim = partial(
        log.claim, source="this project", figure="figures/serving.png", notebook="10_deployment.ipynb"
    )
    rounds = [row["speeds"] for row in log.rows if row["what"] == "round"]
    low, high = str(CLIENTS[0]), str(CLIENTS[-1])
    ratios = [by[high] / by[low] for by in rounds]
    found = dict(zip(("value", "low", "high"), over_seeds(ratios)))
    says = f"{high} parallel clients get so many times the tokens a second of one ({len(rounds)} rounds)"
    claim("serving/parallel", claim=says, floor=FASTER, **found)
    one = next(row for row in log.rows if row["what"] == "requests")
    of = f"of {one['requests']:,} requests, a tenth cancelled and a twentieth malformed: "
    at_most = {"floor": 0, "at_most": True}
    says = of + "lost or answered twice"
    claim("serving/once", claim=says, value=one["lost"] + one["twice"], **at_most)
    says = of + "answers other than inference.api.respond's at temperature 0"
    claim("serving/answers", claim=says, value=one["answered"] - one["right"], **at_most)
    claim(
        "serving/refused", claim=of + "malformed ones that were not refused", value=one["served"], **at_most
    )
    claim("serving/leave", claim=of + "rows that stay behind them", value=one["running"], **at_most)
    found = dict(zip(("value", "low", "high"), bootstrap(one["first"], partial(np.quantile, q=0.95))))
    says = f"95% of {PLACES} parallel clients' streams begin within so many seconds"
    claim("serving/first_token", claim=says, floor=FIRST, at_most=True, **found)
    rest = next(row for row in log.rows if row["what"] == "soak")
    says = f"MiB by which the server grows over {rest['minutes']:g} minutes, behind the first"
    claim("serving/memory", claim=says, value=growth(rest["samples"]), floor=GROWTH, at_most=True)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
