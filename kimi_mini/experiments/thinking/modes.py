"""With a thought and without: every family of tasks at every difficulty, the same weights, the same tasks.

Reflex means that the prompt gives an empty thought before every turn; with tools the agent still acts in several turns,
and only the thoughts between them are missing. `cheapest` was never trained without a thought and is left out. What a
reflex could learn with all the tokens is a question of training: chains have a control for it (reflex_control), the
families with tools have none.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from kimi_mini.agent.folder import shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import style
from kimi_mini.evaluation.scoreboard import solve
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.thinking import shared
from kimi_mini.training.synthesis import SOURCES
from kimi_mini.worlds.registry import held_out_tasks, measured_levels
from kimi_mini.worlds.rows import LIMITS

FAMILIES = {"chain": "steps", "follow": "calls", "condition": "digits", "buy": "items", "repair": "lines"}
TASKS = 30  # a seed and level


def main() -> None:
    """Solve everything in both modes; write data/results/modes.json and its figure."""
    args = arguments(__doc__.splitlines()[0], checkpoint=shipped_agent())
    model, tokenizer, log = harness.begin("modes", args)
    count = max(2, int(TASKS * args.scale))
    for seed in args.seeds:
        for family in FAMILIES:
            for level in measured_levels(family):
                tasks = held_out_tasks(family, [level], count, seed)
                for mode in ("thinking", "reflex"):
                    done = solve(model, tokenizer, tasks, LIMITS, thinking=mode == "thinking")
                    log.row(
                        seed=seed,
                        family=family,
                        level=level,
                        mode=mode,
                        n=count,
                        passed=sum(talk.verdict().passed for talk in done),
                        written=sum(talk.written for talk in done),
                    )
                    for talk in done:
                        talk.environment.close()
            print(
                f"seed {seed}, {family}:",
                {m: success(log.rows, family, m)["value"] for m in ("thinking", "reflex")},
                flush=True,
            )
    report(log)
    harness.finish(log, modes=draw)


def success(rows: Sequence[dict], family: str, mode: str, level: int | None = None) -> dict:
    """Success over all seeds, as a rate with its interval."""
    chosen = [r for r in rows if r["family"] == family and r["mode"] == mode and level in (None, r["level"])]
    return harness.rate(sum(row["passed"] for row in chosen), sum(row["n"] for row in chosen))


def report(log: Log) -> None:
    """The claim: what the thought adds where a decision needs working out, with tools too."""

    def gap(seed: int) -> float:
        (passed, count), (less, _) = (counts([seed], mode) for mode in ("thinking", "reflex"))
        return (passed - less) / count

    def counts(seeds: Sequence[int], mode: str) -> tuple[int, int]:
        rows = [r for r in log.rows if (r["family"], r["mode"]) == ("repair", mode) and r["seed"] in seeds]
        return sum(row["passed"] for row in rows), sum(row["n"] for row in rows)

    practice = {source.mode: source.share for source in SOURCES if source.family == "repair"}
    said = (
        "repair: what the thought adds on the same weights and tasks, practised as reflexes in "
        f"{practice['reflex']:.0%} and with thoughts in {practice['think']:.0%} of fine-tuning (no control)"
    )
    log.claim(
        "thinking/repair_gap",
        claim=said,
        source="article (thinking mode)",
        floor=0.15,
        figure="figures/modes.png",
        notebook=shared.NOTEBOOK,
        **harness.on_same_tasks(
            [gap(seed) for seed in log.seeds], *(counts(log.seeds, mode) for mode in ("thinking", "reflex"))
        ),
    )


@style.styled
def draw(log: dict) -> Figure:
    """One panel a family: success against difficulty in both modes."""
    fig, axes = style.figure(13, 4.2, 1, len(FAMILIES), sharey=True, width_ratios=(8, 5, 2.6, 4, 3.2))
    for ax, (family, unit) in zip(axes[0], FAMILIES.items()):
        levels = sorted({row["level"] for row in log["rows"] if row["family"] == family})
        for mode, colour, marker, aside in (
            ("thinking", style.BLUE, "o", -0.1),
            ("reflex", style.ORANGE, "s", 0.1),
        ):
            places = [level + aside for level in levels]  # side by side: equal curves would hide each other
            points = [success(log["rows"], family, mode, level) for level in levels]
            values = [point["value"] for point in points]
            spread = [[p["value"] - p["low"] for p in points], [p["high"] - p["value"] for p in points]]
            ax.errorbar(
                places, values, spread, color=colour, marker=marker, markersize=7, capsize=3, label=mode
            )
        ax.set(title=family, xlabel=unit, ylim=(-0.04, 1.05), xlim=(levels[0] - 0.5, levels[-1] + 0.5))
        ax.set_xticks(levels)
    axes[0, 0].set_ylabel("success")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
