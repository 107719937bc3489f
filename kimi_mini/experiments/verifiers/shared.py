"""What the experiments with agents share: checkpoints to start from, and fine-tuning on a chosen pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.course.figures import scores
from kimi_mini.evaluation import scoreboard
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.loop import History
from kimi_mini.training.synthesis import Source, Trajectory
from kimi_mini.worlds import registry
from kimi_mini.worlds.rows import LIMITS

BASE, TUNED = CHECKPOINTS / "base", CHECKPOINTS / "tuned"


def pools(
    tokenizer: Tokenizer,
    sources: Sequence[Source],
    tokens: int,
    seed: int,
    mistakes: float,
    keep: Callable[[Trajectory], bool] = lambda trajectory: trajectory.passed,
    passes: float = 1.5,
) -> sft.Pools:
    """Trajectories of `sources` that `keep` lets through, enough for `tokens` tokens read `passes` times."""
    return sft.pools_of(trajectories(tokenizer, sources, tokens, seed, mistakes, keep, passes))


def trajectories(
    tokenizer: Tokenizer,
    sources: Sequence[Source],
    tokens: int,
    seed: int,
    mistakes: float,
    keep: Callable[[Trajectory], bool] = lambda trajectory: trajectory.passed,
    passes: float = 1.5,
) -> dict[Source, list[Trajectory]]:
    """The same as trajectories, which know the keys of their tasks."""
    made = {}
    for source in sources:
        # the mistakes of an experiment cost more than usual
        count = synthesis.wanted(source, tokens, passes) * 2
        everything = synthesis.synthesise(tokenizer, source, count, seed, mistakes)
        made[source] = [trajectory for trajectory in everything if keep(trajectory)]
    return made


def tune(model: KimiMini, examples: sft.Pools, tokens: int, seed: int, title: str = "") -> History:
    """Fine-tune `model` in place as the pipeline does: same optimizer, step size, curriculum and schedule."""
    plan = Plan(seed=seed, finetune=Finetune(tokens=tokens))
    return finetune.tune(model, examples, plan, title=title)


def success(
    model: KimiMini,
    tokenizer: Tokenizer,
    family: str,
    levels: Sequence[int],
    count: int,
    temperature: float = 0.0,
    attempts: int = 1,
    thinking: bool = True,
    seed: int = 0,
) -> list[list[bool]]:
    """Which of `attempts` attempts at each of `count` held-out tasks passed."""
    tasks = registry.held_out_tasks(family, levels, count, seed)
    copies = [task for task in tasks for _ in range(attempts)]
    done = scoreboard.solve(model, tokenizer, copies, LIMITS, thinking, temperature, seed)
    passed = [conversation.verdict().passed for conversation in done]
    for conversation in done:
        conversation.environment.close()
    return [passed[i : i + attempts] for i in range(0, len(passed), attempts)]


def board(title: str) -> Callable[[dict], Figure]:
    """What draws the scoreboard of a log, for `harness.finish`."""
    return lambda log: scores.scoreboard(log["scoreboard"], title=title)
