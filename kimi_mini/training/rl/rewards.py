"""What a finished conversation is worth: named parts, each with a weight, and a cap on their sum.

    verdict    1 if the world's verifier accepts
    rubric     the share of the rubric's criteria that hold: something to climb where no attempt passes yet
    budget     -1 if it was cut off, by tokens, turns or context
    format     minus the share of its calls that no tool could run: undeclared, bad JSON, wrong arguments
    calls      how many calls it made: a reward of effort, without a limit, that nobody should give (see `cap`)
    critic     the chance, by a critic's scores, to win against another attempt at its task: training.rl.critic

The cap keeps one attempt from dominating a step: with `calls` among the parts, an attempt that calls a tool in every
turn is worth more than all right ones together. A cap above every reward caps nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from kimi_mini.agent.conversation import Conversation
from kimi_mini.base.errors import KimiError
from kimi_mini.evaluation.rubric import RUBRIC, score
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.worlds.tools import Toolbox
from kimi_mini.worlds.tools.arguments import CallError, read


def _budget(conversation: Conversation) -> float:
    return 0.0 if conversation.finish == "stop" else -1.0


def _format(conversation: Conversation) -> float:
    calls = [
        call["function"] for message in conversation.messages for call in message.get("tool_calls") or []
    ]
    return -sum(not _runs(call, conversation.environment.toolbox) for call in calls) / max(1, len(calls))


def _runs(call: dict, box: Toolbox | None) -> bool:
    """Whether a tool takes this call."""
    tool = box.tools.get(call["name"]) if box else None
    try:
        return tool is not None and read(call["arguments"], tool.validators()) is not None
    except CallError:
        return False


# of a conversation alone; `critic` needs the whole group
PARTS: dict[str, Callable[[Conversation], float]] = {
    "verdict": lambda conversation: float(conversation.verdict().passed),
    "rubric": lambda conversation: score(RUBRIC, conversation),
    "budget": _budget,
    "format": _format,
    "calls": lambda conversation: float(conversation.calls),
}


def _judged(win_rate: float | None) -> float:
    if win_rate is None:
        raise KimiError("a reward of a critic needs a judge: pass one to `reinforce`")
    return win_rate


def reward(conversation: Conversation, config: RLConfig, win_rate: float | None = None) -> dict[str, float]:
    """The parts that the config names, each times its weight, and "total", their sum between -cap and cap; "passed" is
    the verdict alone, whatever is rewarded. win_rate: what a judge says, for the part `critic`; KimiError without."""
    parts = PARTS | {"critic": lambda _: _judged(win_rate)}
    worth = {name: weight * parts[name](conversation) for name, weight in config.reward}
    total = max(-config.cap, min(config.cap, sum(worth.values())))
    return worth | {"total": total, "passed": PARTS["verdict"](conversation)}
