"""Is the thought needed, or was answering at once only trained too little? A control that trains on nothing else.

The agent of `make run` sees few tokens of reflex chains, so its poor reflex alone proves nothing. This control starts
from the same base checkpoint and spends all the tokens that the run spent on chains (thinking and reflex together) on
reflex chains, with the same curriculum and schedule, and answers the same held-out tasks.

What it shows: at this size and with these tokens, dependent steps have to be written down. What it does not show: that
no amount of training could do without. An answer at once is three tokens to learn from (two digits and the end), one
with its thought about fifty, and even at length 1 (one fact to recall, nothing to chain) the control stays poor.
"""

from __future__ import annotations

from collections.abc import Sequence

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.harness import arguments, finish, mean, row, share_across
from kimi_mini.experiments.verifiers.shared import BASE, board, pools, success, tune
from kimi_mini.pipeline.plan import Plan
from kimi_mini.training.synthesis import SOURCES, Source
from kimi_mini.worlds.registry import trained_levels

SHARE = sum(source.share for source in SOURCES if source.family == "chain") / sum(s.share for s in SOURCES)
TASKS = 200  # at each length
CONTROL = "chains answered at once, trained on nothing else"


def main() -> None:
    """Train and measure the control; write data/results/reflex_control.json."""
    args = arguments(__doc__.splitlines()[0], base=BASE)
    tokens = int(Plan().finetune.tokens * SHARE * args.scale)
    tasks, lengths = max(4, int(TASKS * args.scale)), trained_levels("chain")
    log = Log("reflex_control", seeds=args.seeds, folder=args.folder)
    by_length: dict[int, list[float]] = {length: [] for length in lengths}
    for seed in args.seeds:
        model, tokenizer = load_agent(args.base)
        examples = pools(
            tokenizer, [Source("chain", "reflex", 1.0, lengths)], tokens, seed, mistakes=0.0, passes=6
        )
        history = tune(model, examples, tokens, seed, f"reflex only, seed {seed}")
        for length in lengths:
            outcomes = success(model, tokenizer, "chain", [length], tasks, thinking=False)
            by_length[length].append(mean(outcomes))
        log.row(
            seed=seed,
            tokens=sum(history.tokens),
            seconds=round(history.seconds, 1),
            loss=history.loss[-1],
            success={str(length): values[-1] for length, values in by_length.items()},
        )
        print(
            f"seed {seed}: " + " ".join(f"{length}:{v[-1]:.2f}" for length, v in by_length.items()),
            flush=True,
        )
    report(log, by_length, args.seeds, tasks)
    finish(log, reflex_control=board("Chains answered at once by a model trained on nothing else"))


def report(log: Log, by_length: dict[int, list[float]], seeds: Sequence[int], tasks: int) -> None:
    """Scoreboard rows of every length and of the long ones, and the claim about these."""

    def entry(values: list[float], lengths: int, says: str, main: bool = False) -> dict:
        return row(values, seeds, tasks * lengths, f"{CONTROL}: {says}", main) | {"thinking": False}

    overall = [sum(values) / len(values) for values in zip(*by_length.values())]
    deep = [sum(values) / len(values) for values in zip(*(v for n, v in by_length.items() if n >= 6))]
    board = {f"chain/reflex_control/{n}": entry(v, 1, f"length {n} alone") for n, v in by_length.items()}
    board["chain/reflex_control"] = entry(overall, len(by_length), "all lengths", main=True)
    board["chain/reflex_control_6_to_8"] = entry(deep, 3, "lengths 6 to 8")
    log.more["scoreboard"] = board
    single = board["chain/reflex_control/1"]["value"]
    says = f"six or more dependent steps are not learned without a thought, at equal tokens (one step: {single:.2f})"
    where = {"figure": "figures/chain_by_length.png", "notebook": "08_thinking_mode.ipynb"}
    where["source"] = "article (thinking mode beside a reflex mode)"
    log.claim("chain/reflex_control", claim=says, floor=0.30, at_most=True, **share_across(deep), **where)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
