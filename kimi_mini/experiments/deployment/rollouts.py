"""Where the seconds of a round of RL go: generation, environment, update; and how many tokens a second come of it.

    python -m kimi_mini.experiments.deployment.rollouts          also the last part of `python -m kimi_mini bench`

Rounds of the shipped agent on one family of each world, one process of one thread. generation: the model writes its
turns; environment: tools run, verifiers judge, results become tokens; update: the optimizer's steps, PTX included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tqdm import trange

from kimi_mini.agent import loop
from kimi_mini.agent.folder import load_agent, shipped_agent
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.verifiers.shared import pools
from kimi_mini.pipeline.plan import Plan
from kimi_mini.training import sft
from kimi_mini.training.rl import rounds as rl
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Curriculum
from kimi_mini.training.synthesis import SOURCES

KINDS = {"chain": ("chain", 8), "shop": ("follow", 8), "repair": ("repair", 3)}
ROUNDS, POOL = 4, 60_000  # the first round is not counted; tokens of examples for PTX


class Timed(LocalPolicy):
    """A LocalPolicy that counts the seconds in which it writes."""

    seconds = 0.0

    def reply(self, conversations: Sequence, max_tokens: int) -> list:
        """As LocalPolicy."""
        start = time.perf_counter()
        turns = super().reply(conversations, max_tokens)
        self.seconds += time.perf_counter() - start
        return turns


def measure(world: str, rounds: int, tokens: int) -> dict[str, float]:
    """Tokens that were written a second of the whole, and the shares of the three; of one world's rounds."""
    plan, config = Plan(), RLConfig(tasks=(KINDS[world],))
    model, tokenizer = load_agent(shipped_agent())
    optimizer = replace(plan.optimizer, lr=config.lr, adamw_lr=config.adamw_lr).build(model)
    ptx = sft.mixed(pools(tokenizer, SOURCES, tokens, 0, 0.0), config.ptx_tokens, plan.micro_tokens, 0)
    spent, written, curriculum = dict.fromkeys(("generation", "environment", "update"), 0.0), 0, Curriculum()
    for index in trange(rounds, desc=world, unit="round", leave=False):
        tasks = [one.task() for one in curriculum.draw(config, 0, index) for _ in range(config.attempts)]
        policy = Timed(model, tokenizer, 1.0, index)
        played, done = timed(
            lambda policy=policy, tasks=tasks: loop.run(policy, tokenizer, tasks, config.limits)
        )
        judged, _ = timed(lambda done=done: [conversation.verdict() for conversation in done])
        groups = [done[i : i + config.attempts] for i in range(0, len(done), config.attempts)]
        # the verdicts again: counted twice, they are far below a percent of an update
        update, _ = timed(lambda g=groups, i=index: rl.update(model, optimizer, g, 1.0, config, ptx(i)))
        if index:
            spent["generation"] += policy.seconds
            spent["environment"] += played - policy.seconds + judged
            spent["update"] += update - judged
            written += sum(conversation.written for conversation in done)
        for conversation in done:
            conversation.environment.close()
    whole = sum(spent.values())
    return {"tokens_per_second": written / whole} | {name: part / whole for name, part in spent.items()}


def timed(action: Callable) -> tuple[float, object]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def record(log: Log, scale: float = 1.0) -> Log:
    """Measure the worlds one after the other; a row each, printed and in `log`."""
    for world, (family, level) in KINDS.items():
        found = measure(world, max(2, int(ROUNDS * scale)), max(2_000, int(POOL * scale)))
        log.row(world=world, family=family, level=level, **found)
        shares = ", ".join(f"{name} {found[name]:.0%}" for name in ("generation", "environment", "update"))
        print(f"RL, {world:7s} {found['tokens_per_second']:6.0f} tokens/s written; {shares}", flush=True)
    return log


def main() -> None:
    """Write data/results/bench_rl.json."""
    args = arguments(__doc__.splitlines()[0], seeds=(0,))
    print(record(Log("bench_rl", seeds=args.seeds, folder=args.folder), args.scale).save())


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
