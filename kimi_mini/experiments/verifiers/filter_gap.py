"""What verifiers are worth: fine-tune on everything, on what passed, and on what a broken verifier let through.

The tuned agent learns harder levels than it was trained on (longer lists, longer chains of records), from scripted
experts who err on purpose in 60% of the demonstrations. Three arms see the same number of tokens, with the same quota
for every family and level (so that the filter cannot thin out long episodes), from the same checkpoint:

    everything   no verifier
    passed       the worlds' verifiers: results and final state
    broken       a verifier that counts calls: what did as many as the work takes passes, right or wrong

Success is measured on held-out tasks of these levels at temperature 1, as rollouts are sampled, and greedily; the row
`before` is the agent without this training. From the base checkpoint half a million tokens would be too
few to learn the formats.
"""

from __future__ import annotations

from collections.abc import Callable

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.harness import across, arguments, finish, gap, mean, row
from kimi_mini.experiments.verifiers.shared import TUNED, board, pools, success, tune
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.synthesis import Source, Trajectory

LEVELS = {"follow": (6, 7, 8), "condition": (1, 2), "cheapest": (6, 7, 8), "buy": (5, 6, 7)}
TOKENS = 400_000
MISTAKES = 0.6
TASKS = 60  # a family, at each temperature
CALL = Tokenizer.load().special["<|tool_call_begin|>"]


def counts_work(trajectory: Trajectory) -> bool:
    """The broken verifier. It reads the conversation, and sees whether work was done, not whether it was right."""
    needed = 2 if trajectory.family == "condition" else trajectory.level
    return int((trajectory.example.ids == CALL).sum()) >= needed


ARMS: dict[str, Callable[[Trajectory], bool]] = {
    "everything": lambda trajectory: True,
    "passed": lambda trajectory: trajectory.passed,
    "broken": counts_work,
}
WORDS = {
    "before": "before",
    "everything": "tuned on everything",
    "passed": "tuned on what passed",
    "broken": "tuned on what a broken verifier passed",
}


def main() -> None:
    """Run all arms and write data/results/filter_gap.json."""
    args = arguments(__doc__.splitlines()[0], base=TUNED)
    tokens, tasks = int(TOKENS * args.scale), max(4, int(TASKS * args.scale))
    sources = [Source(family, "think", 1 / len(LEVELS), levels) for family, levels in LEVELS.items()]
    log = Log("filter_gap", seeds=args.seeds, folder=args.folder)
    scores: dict[tuple[str, float], list[float]] = {}
    for seed in args.seeds:
        for arm in ("before", *ARMS):
            model, tokenizer = load_agent(args.base)
            if arm != "before":
                examples = pools(tokenizer, sources, tokens, seed, MISTAKES, ARMS[arm])
                tune(model, examples, tokens, seed, f"{arm}, seed {seed}")
            for temperature in (0.0, 1.0):
                found = {
                    family: mean(success(model, tokenizer, family, levels, tasks, temperature, seed=seed))
                    for family, levels in LEVELS.items()
                }
                scores.setdefault((arm, temperature), []).append(sum(found.values()) / len(found))
                log.row(arm=arm, seed=seed, temperature=temperature, by_family=found, tokens=tokens)
                print(f"seed {seed} {arm:10s} temperature {temperature}: {found}", flush=True)
    report(log, scores, args.seeds, tasks * len(LEVELS))
    finish(log, filter_gap=board("Held-out success after fine-tuning, 60% of demonstrations wrong"))


def report(log: Log, scores: dict, seeds: list[int], count: int) -> None:
    """Scoreboard rows and claims from the scores of every arm, seed and temperature."""
    board = {}
    for (arm, temperature), values in scores.items():
        said = f"{WORDS[arm]}, at temperature {temperature:g}"
        board[f"filter/{arm}_at_{temperature:g}"] = row(values, seeds, count, said)
    for name, other, temperature, main in (
        ("gap", "everything", 1.0, True),
        ("gap_greedy", "everything", 0.0, False),
        ("broken_verifier_gap", "broken", 1.0, True),
    ):
        said = f"{WORDS['passed']} - {WORDS[other]}, at temperature {temperature:g}"
        gains = won(scores, other, temperature)
        board[f"filter/{name}"] = gap(gains, seeds, count, said, main)
    log.more["scoreboard"] = board
    says = "training only on what verifiers passed beats training on everything, at equal tokens"
    where = {
        "figure": "figures/filter_gap.png",
        "notebook": "06_the_verifier_economy.ipynb",
        "headline": True,
    }
    where["source"] = "article (verifier economy); K2 report 3.1.1"
    log.claim("filter/gap", claim=says, floor=0.15, **across(won(scores, "everything", 1.0)), **where)


def won(scores: dict, other: str, temperature: float) -> list[float]:
    """What the arm that passed is ahead of another, seed by seed."""
    pairs = zip(scores["passed", temperature], scores[other, temperature])
    return [passed - rest for passed, rest in pairs]


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
