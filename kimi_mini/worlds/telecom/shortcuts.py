"""Verifiers of calls to a telephone company that are not good enough."""

from __future__ import annotations

from kimi_mini.worlds.base import Environment, Message, Task, final_answer


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts whoever has the last word."""
    return final_answer(messages) is not None


def ignores_work(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The user was helped and not a penny too much refunded; the policy is not looked at."""
    refunds = [event[1] for event in environment.done if event[0] == "refund"]
    return environment.helped and sum(refunds) <= task.data["limit"]


def ignores_state(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Goes by what was called: an identification, and a technician only where one is needed."""
    calls = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or []]
    return "identify" in calls and ("technician" in calls) == (task.data["cause"] == "technician")


SHORTCUTS = {"reads words": reads_words, "ignores the state": ignores_state, "ignores the work": ignores_work}
