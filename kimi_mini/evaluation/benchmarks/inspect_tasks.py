"""The mini benchmarks as tasks of inspect_ai, so that any model that it reaches is judged by them.

    inspect eval kimi_mini/mini_math --model openai-api/moonshot/kimi-k2-thinking --limit 20

The solver is the project's own loop: it asks the model for a turn, runs the calls in the task's environment, lets the
user speak where the world has one, and keeps the limits of turns. The scorer says what the world's verifier said of the
final state. Tokens of a turn are inspect's own business (--max-tokens): our limits are those of a model of a million
parameters.

Extra: pip install '.[inspect]'.
"""

from __future__ import annotations

import json
from functools import cache

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation, opening
from kimi_mini.agent.policy import Answer
from kimi_mini.base.errors import KimiError
from kimi_mini.evaluation.benchmarks.store import Item, items
from kimi_mini.evaluation.benchmarks.table import BENCHMARKS
from kimi_mini.worlds.base import Message

try:
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import (
        ChatMessage,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        ContentReasoning,
        get_model,
    )
    from inspect_ai.scorer import Score, Target, accuracy, grouped, scorer, stderr
    from inspect_ai.solver import Generate, Solver, TaskState, solver
    from inspect_ai.tool import ToolInfo, ToolParams
except ImportError:
    raise KimiError("these tasks are for inspect_ai: pip install '.[inspect]'") from None


# ---- the tasks -----------------------------------------------------------------------------------------------


@task
def mini_swe() -> Task:
    """Repairs."""
    return _task("mini_swe")


@task
def mini_code() -> Task:
    """Functions from their descriptions."""
    return _task("mini_code")


@task
def mini_math() -> Task:
    """Several dependent steps."""
    return _task("mini_math")


@task
def mini_telecom() -> Task:
    """Two sides of a telephone call, and a policy."""
    return _task("mini_telecom")


@task
def mini_search() -> Task:
    """Answers that stand several documents away."""
    return _task("mini_search")


@task
def mini_tools() -> Task:
    """Tools of unseen domains."""
    return _task("mini_tools")


@task
def long_horizon() -> Task:
    """Many calls in a row."""
    return _task("long_horizon")


def _task(name: str) -> Task:
    samples = [
        Sample(
            id=f"{number:03d}-{item.task.key[:8]}",
            input=_opening(item),
            target="accepted by the verifier",
            metadata={"benchmark": name, "part": item.part, "number": number, "level": item.task.level},
        )
        for number, item in enumerate(_items(name))
    ]
    return Task(dataset=MemoryDataset(samples, name), solver=plays(), scorer=verifier(), name=name)


@cache
def _items(name: str) -> list[Item]:
    return items(BENCHMARKS[name])


def _opening(item: Item) -> list[ChatMessage]:
    system = [] if item.task.system is None else [ChatMessageSystem(content=item.task.system)]
    return [*system, ChatMessageUser(content=item.task.prompt)]


# ---- solver and scorer ---------------------------------------------------------------------------------------


@solver
def plays() -> Solver:
    """Work on the task in its environment until somebody ends it."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        item = _items(state.metadata["benchmark"])[state.metadata["number"]]
        conversation = opening(item.task)
        tools = [_tool(declared["function"]) for declared in conversation.tools or []]
        while conversation.finish is None:
            output = await get_model().generate(state.messages, tools)
            state.messages.append(output.message)
            state.output = output
            finish = "length" if output.stop_reason in ("max_tokens", "model_length") else "stop"
            known = len(conversation.messages) + 1
            loop.take_turn(conversation, Answer(ours(output.message), finish), None, item.limits)
            state.messages += _heard(output.message, conversation.messages[known:])
        _judge(conversation, state)
        return state

    return solve


def _judge(conversation: Conversation, state: TaskState) -> None:
    """The verdict, while the environment is open."""
    verdict = conversation.verdict()
    conversation.environment.close()
    state.store.set("passed", verdict.passed)
    state.store.set("evidence", verdict.evidence)


@scorer(metrics=[accuracy(), stderr(), grouped(accuracy(), "part", all=False)])
def verifier():
    """Right if the world's verifier accepts what was done."""

    async def score(state: TaskState, target: Target) -> Score:
        passed = state.store.get("passed", False)
        evidence = state.store.get("evidence", "it did not end")
        return Score(value="C" if passed else "I", explanation=evidence)

    return score


# ---- between the two forms of a message ----------------------------------------------------------------------


def _tool(declared: dict) -> ToolInfo:
    """A tool as inspect declares it."""
    parameters = ToolParams(**declared["parameters"])
    return ToolInfo(name=declared["name"], description=declared.get("description", ""), parameters=parameters)


def ours(message: ChatMessageAssistant) -> Message:
    """A model's message as our loop reads it; calls get their numbers there, and broken arguments stay broken."""
    content = message.content if isinstance(message.content, list) else []
    thought = "".join(part.reasoning for part in content if isinstance(part, ContentReasoning))
    given: Message = {"role": "assistant", "content": message.text or None, "reasoning_content": thought}
    calls = [
        {
            "id": None,
            "type": "function",
            "function": {"name": call.function, "arguments": call.parse_error or json.dumps(call.arguments)},
        }
        for call in message.tool_calls or []
    ]
    return given | ({"tool_calls": calls} if calls else {})


def _heard(asked: ChatMessageAssistant, said: list[Message]) -> list[ChatMessage]:
    """What tools and user say to it, under the ids that the model gave its calls."""
    calls = iter(asked.tool_calls or [])
    heard: list[ChatMessage] = []
    for message in said:
        if message["role"] == "tool":
            call = next(calls)
            heard.append(
                ChatMessageTool(content=message["content"], tool_call_id=call.id, function=call.function)
            )
        else:
            heard.append(ChatMessageUser(content=message["content"]))
    return heard
