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

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import style
from kimi_mini.evaluation.attention import attention_rows
from kimi_mini.evaluation.scoreboard import solve
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.thinking import shared
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task
from kimi_mini.worlds.held_out import held_out_tasks
from kimi_mini.worlds.rows import MANAGED, Limits

CALLS = {10: 40, 15: 40, 20: 40, 50: 40, 100: 40, 200: 16, 300: 16}  # calls -> tasks a seed
SHOWN, PRACTISED = 5, 8  # most calls in fine-tuning, and in RL
NUMBERED = 24  # calls whose numbers are logged one by one
LOOKED_AT, LOOKS = 24, 8  # calls, and episodes a seed, in which attention is measured
GAP_AT, GAP_KEEP = 10, 2  # the call of the gap, and how many turns stay on either side of it


def main() -> None:
    """All of it; write data/results/horizon.json and its figure."""
    args = arguments(__doc__.splitlines()[0], checkpoint=harness.shipped())
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


def how_it_broke(talk: Conversation, tokenizer: Tokenizer) -> tuple[int, str]:
    """How many calls were right before the first turn that was not, and what was wrong about that."""
    path, asked = talk.task.data["path"], items_asked(talk.messages)
    made = next(
        (i for i, (item, right) in enumerate(zip(asked, path)) if item != right), min(len(asked), len(path))
    )
    if made == len(path):
        return made, "right" if talk.verdict().passed else "wrong answer after the last call"
    if made < len(asked) and asked[made]:
        return made, what_was_asked(asked[made], path, made)
    how = f"cut off ({talk.finish})" if made == len(asked) and talk.finish != "stop" else "unreadable"
    name = first_name(talk, tokenizer, made)
    if name is None:
        return made, "stopped too early" if talk.finish == "stop" else how
    return made, f"{how} after {'the right' if name == path[made] else 'another'} name"


def first_name(talk: Conversation, tokenizer: Tokenizer, turn: int) -> str | None:
    """The first item that a turn (from 0) names, in a call that can be read or not; None when none or hidden."""
    place = turn - (talk.turns - len(talk.turn_starts))
    starts = [*talk.turn_starts, len(talk.ids), len(talk.ids)]
    text = tokenizer.decode(talk.ids[starts[place] : starts[place + 1]]) if place >= 0 else ""
    found = re.search(r'"item":"([a-z ]+)', text)
    return found and found[1]


def what_was_asked(item: str, path: Sequence[str], index: int) -> str:
    """A wrong item, put into words."""
    words = {word for name in path[: index + 1] for word in name.split()}
    if item in path[:index]:
        return "an earlier item again"
    return "two names mixed up" if item.split() and set(item.split()) <= words else "some other name"


def items_asked(messages: Sequence[dict]) -> list[str]:
    """The item of every call, in order; unreadable arguments give an empty name."""
    found = []
    for message in messages:
        for call in message.get("tool_calls") or []:
            try:
                found.append(str(json.loads(call["function"]["arguments"])["item"]))
            except (ValueError, KeyError, TypeError):
                found.append("")
    return found


def numbers_of(messages: Sequence[dict]) -> list[int]:
    """The number at the end of every call's id, in order; -1 where there is none."""
    ends = [call["id"].rpartition(":")[2] for message in messages for call in message.get("tool_calls") or []]
    return [int(end) if end.isascii() and end.isdigit() else -1 for end in ends]


def tally(dialogues: Sequence[list[int]]) -> dict:
    """Calls of all dialogues, those whose number is right and those whose number is new in its dialogue; and for each
    of the first calls how many made it, and how many of those with the right number."""
    pairs = [pair for numbers in dialogues for pair in enumerate(numbers)]
    made, right = (
        Counter(place for place, _ in pairs),
        Counter(place for place, number in pairs if place == number),
    )
    first = range(min(NUMBERED, len(made)))
    return {
        "made": len(pairs),
        "numbered": right.total(),
        "unique": sum(len(set(n)) for n in dialogues),
        "made_at": [made[i] for i in first],
        "numbered_at": [right[i] for i in first],
    }


# -- where it looks ------------------------------------------------------------------------------------


def look(model: KimiMini, tokenizer: Tokenizer, log: Log, seed: int, episodes: int) -> None:
    """One row a call: attention of every head, summed by what it falls on, and the chance of the right name."""
    totals, chances = defaultdict(list), defaultdict(list)
    for task in held_out_tasks("follow", [LOOKED_AT], episodes, seed):
        ids, moments = script(tokenizer, task)
        positions = [moment.before for moment in moments]
        weights = attention_rows(model, ids, positions)  # (L, H, P, T)
        with torch.no_grad():
            probabilities = model(torch.tensor([ids])).logits[0, positions].softmax(-1)  # (P, V)
        for row, moment in enumerate(moments):
            mass = [
                weights[:, :, row, list(span)].sum(-1) for span in (moment.newest, moment.older)
            ]  # 2 of (L, H)
            totals[moment.call].append(torch.stack(mass))
            chances[moment.call].append(probabilities[row, ids[moment.before + 1]].item())
    for call, masses in totals.items():
        newest, older = torch.stack(masses).mean(0).round(decimals=4).tolist()
        log.row(
            part="look",
            seed=seed,
            call=call,
            n=len(masses),
            newest=newest,
            older=older,
            chance=round(float(np.mean(chances[call])), 4),
        )


def gap(model: KimiMini, tokenizer: Tokenizer, log: Log, seed: int, episodes: int) -> None:
    """One row: attention on the newest name at one call, with the whole context, with a gap in it, and closed up."""
    found = defaultdict(list)
    for task in held_out_tasks("follow", [GAP_AT], episodes, seed):
        ids, moments = script(tokenizer, task)
        for context, (kept, places) in contexts(tokenizer, ids, moments[-1]).items():
            weights = attention_rows(model, [ids[i] for i in kept], [len(kept) - 1], places)[
                :, :, 0
            ]  # (L, H, T)
            found[context].append(weights[:, :, [kept.index(i) for i in moments[-1].newest]].sum(-1))
    means = {
        context: torch.stack(masses).mean(0).round(decimals=4).tolist() for context, masses in found.items()
    }
    log.row(part="gap", seed=seed, call=GAP_AT, n=episodes, **means)


def contexts(
    tokenizer: Tokenizer, ids: Sequence[int], moment: Moment
) -> dict[str, tuple[list[int], list[int]]]:
    """What stands before a moment in three ways: indices of the tokens that are kept, and the positions they get."""
    turns = [i for i in range(moment.before) if ids[i] == tokenizer.token_id("<|im_assistant|>")]
    every = list(range(moment.before + 1))
    kept = every[: turns[GAP_KEEP]] + every[turns[-1 - GAP_KEEP] :]
    return {"whole": (every, every), "gap": (kept, kept), "closed": (kept, every[: len(kept)])}


@dataclass
class Moment:
    """The position before the name in the `call`-th call, and where the names stand that results have brought."""

    call: int
    before: int
    newest: range
    older: list[int]


def script(tokenizer: Tokenizer, task: Task) -> tuple[list[int], list[Moment]]:
    """An expert's episode as tokens, and the moment before each name that it copies from a result."""
    played = loop.play(task, random.Random(0))
    ids, mask = chat.encode(tokenizer, played.messages, played.tools)
    played.environment.close()
    path, argument = task.data["path"], tokenizer.token_id("<|tool_call_argument_begin|>")
    opening = len(tokenizer.encode_plain('{"item":"'))
    starts = [i + opening for i, token in enumerate(ids) if token == argument and mask[i]]
    moments, seen = [], []
    for call, (before, item) in enumerate(zip(starts, path), 1):
        if call > 1:
            result = starts[call - 2] + len(
                tokenizer.encode_plain(path[call - 2])
            )  # behind the last call's name
            newest = find(ids, tokenizer.encode_plain(item), result)
            moments.append(Moment(call, before, newest, [i for span in seen for i in span]))
            seen.append(newest)
    return ids, moments


def find(ids: Sequence[int], part: Sequence[int], start: int) -> range:
    """Where `part` first stands in `ids` from `start` on."""
    for place in range(start, len(ids) - len(part) + 1):
        if tuple(ids[place : place + len(part)]) == tuple(part):
            return range(place, place + len(part))
    raise ValueError("the name does not stand in the result")


# -- report --------------------------------------------------------------------------------------------


def share(rows: Sequence[dict], key: str, of: str = "n", **where) -> dict:
    """`key` per `of`, summed over the rows that match, as a rate with its interval."""
    chosen = [row for row in rows if all(row.get(name) == value for name, value in where.items())]
    return harness.rate(sum(row[key] for row in chosen), sum(row[of] for row in chosen))


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
    numbered = [
        share(log.rows, "numbered", "made", seed=seed, context="managed", calls=300) for seed in log.seeds
    ]
    log.claim(
        "horizon/300_call_numbers",
        source="K2 report, appendix B (an id counts all calls of the dialogue)",
        claim="of 300 calls with old turns hidden: share whose id bears the right number",
        floor=0.97,
        **common,
        **harness.share_across([one["value"] for one in numbered]),
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
    rows = log["rows"]
    fig, axes = style.figure(13, 5.0, 1, 2)
    left, right = axes[0]
    counts = sorted({row["calls"] for row in rows if row["part"] == "calls"})
    arms = (("managed", "old turns hidden", style.BLUE, "o"), ("full", "whole context kept", style.RED, "s"))
    for context, label, colour, marker in arms:
        points = [share(rows, "passed", part="calls", context=context, calls=count) for count in counts]
        values = [point["value"] for point in points]
        spread = [[p["value"] - p["low"] for p in points], [p["high"] - p["value"] for p in points]]
        left.errorbar(
            counts, values, spread, color=colour, marker=marker, markersize=8, capsize=4, label=label
        )
    left.set(
        xscale="log",
        ylim=(-0.04, 1.05),
        xlabel="calls (shown 1-5, practised 6-8 in RL)",
        ylabel="success",
        title="Held-out tasks solved",
    )
    left.set_xticks(counts, [str(count) for count in counts], minor=False)
    left.minorticks_off()
    left.legend(loc="center right")
    layer, head = copying_head(rows)
    at = sorted({row["call"] for row in rows if row["part"] == "look"})
    newest, older, chance = ([mean_at(rows, call, key, layer, head) for call in at] for key in LINES)
    right.stackplot(
        at,
        newest,
        older,
        [1 - a - b for a, b in zip(newest, older)],
        alpha=0.85,
        colors=(style.GREEN, style.ORANGE, "#DDDDDD"),
        labels=[LINES["newest"], LINES["older"], "elsewhere"],
    )
    right.plot(at, chance, color=style.BLACK, marker="o", markersize=5, label=LINES["chance"])
    right.axvline(PRACTISED + 0.5, color=style.BLACK, linestyle=":", linewidth=1.5)
    right.text(PRACTISED + 0.7, 1.02, "longer than practised", fontsize=style.FONT - 1)
    right.set(
        xlim=(at[0], at[-1]),
        ylim=(0, 1.09),
        xticks=at[::2],
        xlabel="call",
        ylabel="attention, probability",
        title=f"Whole context kept: layer {layer + 1}, head {head + 1}",
    )
    fig.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return fig


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
