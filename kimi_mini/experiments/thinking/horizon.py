"""How far does it carry? Up to 300 calls in a row, and where it looks when it breaks.

Calls    `follow` tasks of 10 to 300 calls (shown in fine-tuning: 1 to 5, practised in RL: 6 to 8), with all of the
         context kept, and with old turns hidden when the context is full, as K2 Thinking does with old tool results.
         Also: does the id of each call bear its number? K2 counts all calls of the dialogue. No verifier looks at ids.
Why      With the whole context kept, just before the agent writes the next item's name: what its heads look at, and how
         sure it is of the right name. The words before are an expert's, so only the length differs.
Gap      The same at one call with the turns in the middle left out: once every other token stays at its position, once
         they close up. The words are the same, only the distance of the oldest names differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.agent.folder import shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import style
from kimi_mini.evaluation.scoreboard import solve
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.thinking import shared
from kimi_mini.experiments.thinking.length.calls import how_it_broke, numbers_of, tally
from kimi_mini.experiments.thinking.length.copying import gap, look
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.registry import held_out_tasks
from kimi_mini.worlds.rows import MANAGED, Limits

CALLS = {
    10: 40,
    15: 40,
    20: 40,
    50: 40,
    100: 45,
    200: 16,
    300: 45,
}  # calls -> tasks a seed: 45 can hold a bar of 0.97
SHOWN, PRACTISED = 5, 8  # most calls in fine-tuning, and in RL
LOOKS = 8  # episodes a seed in which attention is measured


def main() -> None:
    """All of it; write data/results/horizon.json and its figure."""
    args = arguments(__doc__.splitlines()[0], checkpoint=shipped_agent())
    model, tokenizer, log = harness.begin("horizon", args)
    for seed in args.seeds:
        calls(model, tokenizer, log, seed, args.scale)
        look(model, tokenizer, log, seed, max(2, int(LOOKS * args.scale)))
        gap(model, tokenizer, log, seed, max(2, int(LOOKS * args.scale)))
    report(log)
    harness.finish(log, horizon=draw)


# -- calls ---------------------------------------------------------------------------------------------


def full(count: int, model: KimiMini) -> Limits:
    """Limits that hide nothing: as much context as the model has positions."""
    return Limits(turn_tokens=64, turns=count + 20, context=model.config.max_position_embeddings)


def calls(model: KimiMini, tokenizer: Tokenizer, log: Log, seed: int, scale: float) -> None:
    """`follow` at every length, with and without context management."""
    for count, tasks in CALLS.items():
        chosen = held_out_tasks("follow", [count], max(2, int(tasks * scale)), seed)
        for context, limits in (("managed", MANAGED), ("full", full(count, model))):
            done = solve(model, tokenizer, chosen, limits)
            breaks = [how_it_broke(talk, tokenizer) for talk in done]
            log.row(
                part="calls",
                seed=seed,
                context=context,
                calls=count,
                n=len(done),
                passed=sum(talk.verdict().passed for talk in done),
                finish=dict(Counter(talk.finish for talk in done)),
                how=dict(Counter(how for _, how in breaks)),
                right_calls=dict(sorted(Counter(made for made, _ in breaks).items())),
                **tally([numbers_of(talk.messages) for talk in done]),
                written=round(sum(talk.written for talk in done) / len(done), 1),
            )
            for talk in done:
                talk.environment.close()
            print(f"seed {seed}, {count} calls, {context}: {log.rows[-1]['passed']}/{len(done)}", flush=True)


# -- report --------------------------------------------------------------------------------------------


def share(rows: Sequence[dict], key: str, of: str = "n", **where) -> dict:
    """`key` per `of`, summed over the rows that match, as a rate with its interval."""
    chosen = [row for row in rows if all(row.get(name) == value for name, value in where.items())]
    return harness.rate(sum(row[key] for row in chosen), sum(row[of] for row in chosen))


def numbers(rows: Sequence[dict], seeds: Sequence[int]) -> dict:
    """The share of 300 calls whose id bears its number. One agent, so only dialogues differ, and of each its calls are
    no trials of their own: the wider of the interval over the sets of a seed and of Wilson's over dialogues, of which
    so many as the share says are right from end to end."""
    where = {"part": "calls", "context": "managed", "calls": 300}
    found = [share(rows, "numbered", "made", seed=seed, **where)["value"] for seed in seeds]
    own = [row for row in rows if all(row.get(name) == value for name, value in where.items())]
    count = sum(row["n"] for row in own)
    whole = share(rows, "numbered", "made", **where)["value"]
    return harness.wider(harness.share_across(found), harness.rate(round(whole * count), count))


def report(log: Log) -> None:
    """The claims."""
    common = {"notebook": shared.NOTEBOOK, "figure": "figures/horizon.png"}
    card = "K2 Thinking model card (200-300 sequential calls, old tool results hidden)"
    for count in (100, 300):
        passed = share(log.rows, "passed", part="calls", context="managed", calls=count)
        log.claim(
            f"horizon/{count}_managed",
            claim=f"{count} calls in a row, old turns hidden",
            source=card,
            floor=0.97,
            **common,
            **passed,
        )
    log.claim(
        "horizon/300_call_numbers",
        source="K2 report, appendix B (an id counts all calls of the dialogue)",
        claim="of 300 calls with old turns hidden: share whose id bears the right number",
        floor=0.97,
        **common,
        **numbers(log.rows, log.seeds),
    )
    log.claim(
        "horizon/100_full",
        claim="100 calls with everything kept in the context do not succeed here",
        source="this project",
        floor=0.50,
        at_most=True,
        **common,
        **share(log.rows, "passed", part="calls", context="full", calls=100),
    )


# -- figure --------------------------------------------------------------------------------------------


@style.styled
def draw(log: dict) -> Figure:
    """Left: success against calls. Right: before a name is copied, where the copying head looks, and the result."""
    fig, axes = style.figure(13, 5.0, 1, 2)
    left, right = axes[0]
    _draw_success(left, log["rows"])
    _draw_look(right, log["rows"])
    fig.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return fig


def _draw_success(ax: Axes, rows: Sequence[dict]) -> None:
    counts = sorted({row["calls"] for row in rows if row["part"] == "calls"})
    arms = (("managed", "old turns hidden", style.BLUE, "o"), ("full", "whole context kept", style.RED, "s"))
    for context, label, colour, marker in arms:
        points = [share(rows, "passed", part="calls", context=context, calls=count) for count in counts]
        values = [point["value"] for point in points]
        spread = [[p["value"] - p["low"] for p in points], [p["high"] - p["value"] for p in points]]
        shape = {"color": colour, "marker": marker, "markersize": 8, "capsize": 4}
        ax.errorbar(counts, values, spread, label=label, **shape)
    ax.set(xscale="log", ylim=(-0.04, 1.05), ylabel="success", title="Held-out tasks solved")
    ax.set_xlabel("calls (shown 1-5, practised 6-8 in RL)")
    ax.set_xticks(counts, [str(count) for count in counts], minor=False)
    ax.minorticks_off()
    ax.legend(loc="center right")


def _draw_look(ax: Axes, rows: Sequence[dict]) -> None:
    layer, head = copying_head(rows)
    at = sorted({row["call"] for row in rows if row["part"] == "look"})
    newest, older, chance = ([mean_at(rows, call, key, layer, head) for call in at] for key in LINES)
    shares = (newest, older, [1 - a - b for a, b in zip(newest, older)])
    names, colours = [LINES["newest"], LINES["older"], "elsewhere"], (style.GREEN, style.ORANGE, "#DDDDDD")
    ax.stackplot(at, *shares, alpha=0.85, colors=colours, labels=names)
    ax.plot(at, chance, color=style.BLACK, marker="o", markersize=5, label=LINES["chance"])
    ax.axvline(PRACTISED + 0.5, color=style.BLACK, linestyle=":", linewidth=1.5)
    ax.text(PRACTISED + 0.7, 1.02, "longer than practised", fontsize=style.FONT - 1)
    ax.set(xlim=(at[0], at[-1]), ylim=(0, 1.09), xticks=at[::2])
    title = f"Whole context kept: layer {layer + 1}, head {head + 1}"
    ax.set(xlabel="call", ylabel="attention, probability", title=title)


LINES = {
    "newest": "looks at the newest name",
    "older": "at older names",
    "chance": "probability of the right name",
}


def copying_head(rows: Sequence[dict]) -> tuple[int, int]:
    """(layer, head) that looks most at the newest name at the lengths that fine-tuning showed."""
    seen = [torch.tensor(row["newest"]) for row in rows if row["part"] == "look" and row["call"] <= SHOWN]
    mass = torch.stack(seen).mean(0)  # (L, H)
    return divmod(int(mass.argmax()), mass.shape[1])


def mean_at(rows: Sequence[dict], call: int, key: str, layer: int, head: int) -> float:
    """Mean over seeds of what was measured at a call, for one head where it is a matter of heads."""
    found = [row[key] for row in rows if row["part"] == "look" and row["call"] == call]
    return float(np.mean([value if key == "chance" else value[layer][head] for value in found]))


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
