"""`python -m kimi_mini conformance --endpoint URL --model NAME`: does an endpoint call tools as its model would?

Two figures of Moonshot's K2 Vendor Verifier, which asks many vendors the same requests:

    trigger similarity   F1 of "this answer ends with tool_calls", an official server's decisions taken as the truth
    schema accuracy      of the answers that end with tool_calls, the share in which every call is valid: its tool is
                         declared in this request, its arguments are JSON that fits the declared schema

A model that samples agrees with itself to 0.76 (K2 Thinking at temperature 1; a vendor's similarity is accepted from
0.73), so a similarity below 1 is no fault by itself. No threshold is published for schema accuracy: the official server
has 1, and less is a fault of the engine. The requests are cut from held-out tasks that the experts play: before the
first turn, in the middle, and before the answer.

The truth here is what the shipped agent decides in this process (data/conformance.json), or what another endpoint did:
--record writes such a file. Source: github.com/MoonshotAI/K2-Vendor-Verifier, tool_calls_eval.py.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from kimi_mini.agent import loop
from kimi_mini.agent.endpoint import Endpoint
from kimi_mini.agent.folder import load_agent, shipped_agent
from kimi_mini.agent.outcome import Outcome
from kimi_mini.agent.remote import as_given
from kimi_mini.base.files import locked, read_json, write_json
from kimi_mini.base.paths import ROOT, short
from kimi_mini.evaluation.by_endpoint import counted, endpoint_of, folder_of
from kimi_mini.evaluation.scoreboard import ROWS
from kimi_mini.inference.api import respond_all
from kimi_mini.inference.serving.constrained import with_found
from kimi_mini.worlds import FAMILIES, Row
from kimi_mini.worlds.base import Message
from kimi_mini.worlds.registry import held_out_tasks
from kimi_mini.worlds.tools.arguments import CallError, read
from kimi_mini.worlds.tools.schema import compile_schema

REFERENCE = ROOT / "data" / "conformance.json"
MAX_TOKENS = 256  # of an answer, unless --max-tokens says more
ACCEPTED = 0.73  # trigger similarity of K2 Thinking; for schema accuracy nobody has published a threshold


@dataclass(frozen=True)
class Prompt:
    """One request: messages up to where the model decides, and the tools that it declares."""

    messages: list[Message]
    tools: list[dict]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        content = json.dumps([self.messages, self.tools], sort_keys=True)
        object.__setattr__(self, "name", sha256(content.encode()).hexdigest()[:16])


def prompts(count: int, seed: int = 0, rows: Sequence[Row] = ROWS) -> list[Prompt]:
    """The requests of `count` held-out tasks, family after family of these rows; the same for everybody."""
    families = list(dict.fromkeys(row.family for row in rows))
    asked: dict[str, Prompt] = {}
    with_tools = [family for family in families if _conversation(family, 1, seed)[0].tools]
    for place, family in enumerate(with_tools):
        share = count // len(with_tools) + (place < count % len(with_tools))
        for conversation in _conversation(family, share, seed) if share else []:
            turns = [i for i, m in enumerate(conversation.messages) if m["role"] == "assistant"]
            for cut in sorted({turns[0], turns[len(turns) // 2], turns[-1]}):
                prompt = Prompt(list(as_given(conversation.messages[:cut], [])), conversation.tools)
                asked[prompt.name] = prompt
    return list(asked.values())


def _conversation(family: str, count: int, seed: int) -> list:
    tasks = held_out_tasks(family, FAMILIES[family].measured, count, seed)
    played = [loop.play(task, random.Random(task.key)) for task in tasks]
    for conversation in played:
        conversation.environment.close()
    return played


# ---- the two figures ---------------------------------------------------------------------------------------


def similarity(decisions: Sequence[tuple[bool, bool]]) -> dict:
    """(does the reference call?, does the endpoint?) -> F1 with all that it is made of; None where nobody calls."""
    table = Counter(decisions)
    both, only_here, only_there = table[True, True], table[False, True], table[True, False]
    precision = both / (both + only_here) if both + only_here else None
    recall = both / (both + only_there) if both + only_there else None
    found = 2 * both + only_here + only_there
    cells = {"both": both, "only_here": only_here, "only_there": only_there, "neither": table[False, False]}
    return {"f1": 2 * both / found if found else None, "precision": precision, "recall": recall, **cells}


def fault(call: dict, tools: Sequence[dict]) -> str | None:
    """What is wrong with a call: undeclared, bad_json, double_encoded or schema; None: it is valid."""
    declared = {tool["function"]["name"]: tool["function"] for tool in tools}
    function = declared.get(call["function"]["name"])
    if function is None:
        return "undeclared"
    schema = function.get("parameters") or {"type": "object"}
    try:
        read(call["function"]["arguments"], compile_schema(schema)[:1])  # what it says, and no more than that
    except CallError as error:
        return error.kind
    return None


def accuracy(answers: Sequence[tuple[Outcome, Prompt]]) -> dict:
    """The share of valid answers among those that end with tool_calls; None where none does. An answer that says it
    calls and holds no call is not valid. What `find_tools` has found may be called as if it were declared."""
    calling = [(outcome, prompt) for outcome, prompt in answers if outcome.finish == "tool_calls"]
    faults: Counter = Counter()
    valid = 0
    for outcome, prompt in calling:
        tools = with_found(prompt.tools, prompt.messages)
        found = [fault(call, tools) for call in outcome.message.get("tool_calls") or []] or ["no call"]
        faults.update(kind for kind in found if kind)
        valid += not any(found)
    hidden = sum(bool(o.message.get("tool_calls")) and o.finish != "tool_calls" for o, _ in answers)
    value = valid / len(calling) if calling else None
    return {
        "value": value,
        "calling": len(calling),
        "valid": valid,
        "faults": dict(faults),
        "under_another_finish": hidden,
    }


# ---- who decides -------------------------------------------------------------------------------------------


def decided_here(folder: Path, asked: Sequence[Prompt]) -> list[Outcome]:
    """What the agent of a folder answers in this process, greedily."""
    model, tokenizer = load_agent(folder)
    outcomes: dict[str, Outcome] = {}

    def tools(prompt: Prompt) -> str:
        return json.dumps(prompt.tools)

    for _, group in groupby(sorted(asked, key=tools), key=tools):
        members = list(group)
        messages = [prompt.messages for prompt in members]
        answers = respond_all(model, tokenizer, messages, members[0].tools, max_tokens=MAX_TOKENS)
        for prompt, answer in zip(members, answers):
            choice = answer["choices"][0]
            outcomes[prompt.name] = Outcome(choice["message"], choice["finish_reason"])
    return [outcomes[prompt.name] for prompt in asked]


def decided_there(endpoint: Endpoint, asked: Sequence[Prompt]) -> list[Outcome | Exception]:
    """What an endpoint answers; Refused where it would not."""
    return endpoint.ask_all([(prompt.name, _request(prompt)) for prompt in asked])


def _request(prompt: Prompt) -> dict:
    more = {"temperature": 0.0, "max_tokens": MAX_TOKENS}
    return {"messages": prompt.messages, "tools": prompt.tools, **more}


def report(
    asked: Sequence[Prompt], outcomes: Sequence[Outcome | Exception], reference: dict[str, str]
) -> dict:
    """Both figures; requests that the reference does not know, or that were refused, are counted and left out."""
    pairs = [(o, p) for o, p in zip(outcomes, asked) if isinstance(o, Outcome)]
    known = [(o, p) for o, p in pairs if p.name in reference]
    decisions = [(reference[p.name] == "tool_calls", o.finish == "tool_calls") for o, p in known]
    left_out = {"refused": len(asked) - len(pairs), "unknown_to_the_reference": len(pairs) - len(known)}
    return {
        "trigger_similarity": similarity(decisions),
        "schema_accuracy": accuracy(pairs),
        "requests": len(asked),
        **left_out,
    }


def print_report(found: dict) -> None:
    """The figures as a table."""
    trigger, schema = found["trigger_similarity"], found["schema_accuracy"]
    rows = [
        ("trigger similarity (F1)", trigger["f1"], f"accepted from {ACCEPTED}"),
        (
            "  precision",
            trigger["precision"],
            f"{trigger['only_here']} calls that the reference does not make",
        ),
        ("  recall", trigger["recall"], f"{trigger['only_there']} calls of the reference that are missing"),
        (
            "schema accuracy",
            schema["value"],
            f"{schema['valid']} of {schema['calling']} answers that call are valid",
        ),
    ]
    for name, value, says in rows:
        print(f"{name:26s} {'-' if value is None else format(value, '.3f'):>6s}  {says}")
    for kind, count in schema["faults"].items():
        print(f"  {kind:24s} {count:6d}")
    notes = {"calls under another finish_reason": schema["under_another_finish"]}
    notes |= {name.replace("_", " "): found[name] for name in ("refused", "unknown_to_the_reference")}
    print("; ".join(f"{name}: {count}" for name, count in {"requests": found["requests"], **notes}.items()))


def main(args: argparse.Namespace) -> None:
    """Ask, compare, show; or, with --record, write down what an endpoint or an agent decides."""
    reference = {} if args.record else read_json(args.reference or REFERENCE)["decisions"]
    asked = prompts(args.tasks, args.seed)
    with (_asked_there if args.endpoint else _asked_here)(args, asked) as (outcomes, said):
        if args.record:
            made = {p.name: o.finish for p, o in zip(asked, outcomes) if isinstance(o, Outcome)}
            write_json(args.record, {**said, "tasks": args.tasks, "seed": args.seed, "decisions": made})
            print(
                f"{len(made)} decisions, {Counter(made.values())['tool_calls']} of them calls: {args.record}"
            )
            return
        found = {**said, **report(asked, outcomes, reference)}
        print_report(found)
        if args.out:
            write_json(args.out, found)


@contextmanager
def _asked_here(args: argparse.Namespace, asked: Sequence[Prompt]) -> Iterator[tuple[list, dict]]:
    folder = Path(args.checkpoint or shipped_agent())
    yield decided_here(folder, asked), {"agent": short(folder.resolve())}


@contextmanager
def _asked_there(args: argparse.Namespace, asked: Sequence[Prompt]) -> Iterator[tuple[list, dict]]:
    """Context: what the endpoint answered, which is kept until all is written."""
    folder = folder_of(args)
    with locked(folder):
        endpoint = endpoint_of(args, folder / "conformance.jsonl")
        with tqdm(total=len(asked), unit="request", desc=endpoint.model) as bar:
            endpoint.on_answer = bar.update
            outcomes = decided_there(endpoint, asked)
        endpoint.counts.pop("before")
        print(counted(endpoint))
        yield outcomes, {"endpoint": endpoint.url, "model": endpoint.model}
        endpoint.forget()
