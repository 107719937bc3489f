"""Learning per token: how much MuonClip needs to reach the loss at which tuned AdamW ends.

Three ways to train the same nano, from the same weights, on the same windows of real text in the same order:

    MuonClip        this project
    AdamW           this project's model, fused AdamW for everything
    transformers    DeepseekV3ForCausalLM of transformers with fused AdamW: what one would run otherwise

Every point is a whole run with its own schedule (WSD, down to zero over the last 65%), so that losses of different
budgets can be compared; gradients are clipped at 1 everywhere; weight decay 0.1, betas (0.9, 0.95). A learning rate is
tuned by doubling and halving it until both neighbours are worse, with a seed of its own: AdamW's at every budget,
MuonClip's at the middle one and for its longest run; transformers at the middle, and with AdamW's rates at the others
(so not tuned there, and its routers train without the bias rule that ours have: no like for like in loss).
The validation loss of an AdamW run is looked up on the curve of the MuonClip runs of the same seed (straight in
log tokens and log loss): the tokens at which it is reached, divided by the budget, is the ratio.

Seconds are tokens times the median time of a step, so that a pause of the machine counts for nothing. Each way takes
its step whole or in two halves, whichever its first steps showed to be faster. data/run/ keeps every finished run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from kimi_mini import corpus, viz
from kimi_mini.bench import same_in_transformers
from kimi_mini.command import in_one_line
from kimi_mini.config import KimiConfig
from kimi_mini.experiments.common import gap
from kimi_mini.experiments.options import arguments, figures
from kimi_mini.model import KimiMini
from kimi_mini.muonclip import MuonClip
from kimi_mini.recipe import ADAMW_LR, BIAS_RATE, STEP_TOKENS, TAU
from kimi_mini.results import Log, read_json, write_json
from kimi_mini.schedule import wsd
from kimi_mini.tokenizer import Tokenizer
from kimi_mini.train import Example, collate, keep_freed_memory, token_losses

WINDOW, HELD_OUT = 256, 128
BUDGETS = (200_000, 400_000, 800_000)  # tokens of the AdamW runs
SHORTER = (0.2, 0.4, 0.8, 1.6, 3.2)  # budgets of the MuonClip runs, in units of the first one
START = {"MuonClip": 0.008, "AdamW": 0.004}  # learning rates where tuning begins
DECAY, BETAS, TUNING_SEED = 0.1, (0.9, 0.95), 100
MOONLIGHT = 0.519
COLOURS = {"MuonClip": viz.BLUE, "AdamW": viz.ORANGE, "transformers": viz.GREY}


def windows() -> tuple[np.ndarray, Tensor]:
    """Training windows (N, 256) uint16 and held-out ones (128, 256) long, split by document."""
    tokenizer, parts = Tokenizer.load(), corpus.split(corpus.default_documents(5_000_000))
    packed = [corpus.pack(corpus.token_stream(tokenizer, part), WINDOW) for part in parts]
    held_out = packed[1][:: len(packed[1]) // HELD_OUT][:HELD_OUT]
    return packed[0], torch.from_numpy(held_out.astype(np.int64))


# ---- three ways to train -------------------------------------------------------------------------------------


def model_and_optimizer(way: str, lr: float, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The nano with the seed's weights, in this project's or transformers' code."""
    torch.manual_seed(seed)
    model = KimiMini(KimiConfig.preset("nano"))
    if way == "MuonClip":
        return model, MuonClip(model, lr=lr, adamw_lr=ADAMW_LR, weight_decay=DECAY, betas=BETAS, tau=TAU)
    if way == "transformers":
        model = same_in_transformers(model)
    return model, torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=DECAY, betas=BETAS, fused=True)


def mean_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean loss of windows (B, T) long, in nats a token."""
    if isinstance(model, KimiMini):
        rows = [Example(window, np.ones(len(window), bool)) for window in ids.numpy()]
        return token_losses(model, collate(rows)).mean()
    logits = model(ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def step_seconds(model: nn.Module, optimizer, ids: Tensor, micro: int, bias_rate: float) -> float:
    """One step over the windows ids (B, T), `micro` windows at a time; how long it took."""
    began = time.perf_counter()
    parts = ids.split(micro)
    for part in parts:
        (mean_loss(model, part) / len(parts)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if isinstance(model, KimiMini):
        model.update_router_bias(bias_rate)
        model.reset_max_logits()
    return time.perf_counter() - began


def run(way: str, lr: float, tokens: int, seed: int, data: tuple[np.ndarray, Tensor]) -> dict:
    """One whole training: its validation loss, its tokens, and what a step took (median, in seconds)."""
    training, held_out = data
    model, optimizer = model_and_optimizer(way, lr, seed)
    model.train()
    rows = STEP_TOKENS // WINDOW
    steps = max(4, round(tokens / STEP_TOKENS))
    order = np.random.default_rng([seed, 2]).permutation(len(training))
    rates, times, cuts = [group["lr"] for group in optimizer.param_groups], {rows: [], rows // 2: []}, [rows, rows // 2]
    for step in range(steps):
        factor = wsd(step, steps, min(20, steps // 4), decay_fraction=0.65)
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * factor
        chosen = np.take(order, np.arange(step * rows, (step + 1) * rows), mode="wrap")
        ids = torch.from_numpy(training[chosen].astype(np.int64))
        micro = cuts[step // 3 % 2] if step < 6 else min(cuts, key=lambda cut: np.median(times[cut][:3]))
        times[micro].append(step_seconds(model, optimizer, ids, micro, BIAS_RATE * factor))
    model.eval()
    with torch.no_grad():
        loss = float(np.mean([mean_loss(model, part).item() for part in held_out.split(8)]))
    return dict(way=way, lr=lr, seed=seed, tokens=steps * STEP_TOKENS, loss=loss, at_once=micro * WINDOW,
                step_seconds=float(np.median(times[micro])))  # fmt: skip


class Runs:
    """Runs by their settings, kept in a file so that a command that was stopped goes on."""

    def __init__(self, file: Path):
        self.file, self.data = file, None
        self.done = read_json(file) if file.is_file() else []

    def get(self, way: str, lr: float, tokens: int, seed: int) -> dict:
        """The run of these settings: read, or made."""
        asked = dict(way=way, lr=lr, asked=tokens, seed=seed)
        found = next((entry for entry in self.done if entry.items() >= asked.items()), None)
        if found is None:
            self.data = self.data or windows()
            found = run(way, lr, tokens, seed, self.data) | asked
            self.done.append(found)
            write_json(self.file, self.done)
            print(f"{way:13s} lr {lr:.4f}  seed {seed:3d}  {found['tokens']:>9,} tokens  loss {found['loss']:.4f}  "
                  f"{1e3 * found['step_seconds']:.0f} ms a step", flush=True)  # fmt: skip
        return found


def tuned(way: str, tokens: int, runs: Runs, start: float) -> tuple[float, list[dict]]:
    """The learning rate whose double and half are both worse, and all that was tried."""
    tried: dict[float, dict] = {}

    def loss(lr: float) -> float:
        if lr not in tried:
            tried[lr] = runs.get(way, lr, tokens, TUNING_SEED)
        return tried[lr]["loss"]

    best = start
    while True:
        better = min((best, best * 2, best / 2), key=loss)
        if better == best:
            return best, list(tried.values())
        best = better


def tune(runs: Runs, scaled: Callable[[int], int], log: Log) -> dict[str, dict[int, float]]:
    """way -> {budget: learning rate} for all runs to make; what was tried goes into the log."""
    def best(way: str, budget: int, start: float) -> float:
        rate, tried = tuned(way, scaled(budget), runs, start)
        log.more["tuning"] += tried
        return rate

    middle = BUDGETS[1]
    adamw = {middle: best("AdamW", middle, START["AdamW"])}
    adamw = {budget: adamw.get(budget) or best("AdamW", budget, adamw[middle]) for budget in BUDGETS}
    ours, longest = best("MuonClip", middle, START["MuonClip"]), round(BUDGETS[0] * SHORTER[-1])
    ours = {round(BUDGETS[0] * share): ours for share in SHORTER} | {longest: best("MuonClip", longest, ours)}
    rates = {"MuonClip": ours, "AdamW": adamw,
             "transformers": adamw | {middle: best("transformers", middle, adamw[middle])}}  # fmt: skip
    log.more["rates"] = rates
    print("tuned:", rates, flush=True)
    return rates


# ---- what follows from the runs ------------------------------------------------------------------------------


def tokens_to(loss: float, curve: Sequence[dict]) -> float:
    """Where a curve of runs reaches `loss`: straight in log tokens and log loss, also beyond its ends."""
    curve = sorted(curve, key=lambda entry: entry["tokens"])
    x, y = np.log([entry["tokens"] for entry in curve]), np.log([entry["loss"] for entry in curve])
    lower = int(np.clip(np.sum(y > np.log(loss)) - 1, 0, len(curve) - 2))  # the last point that is still above
    slope = (x[lower + 1] - x[lower]) / (y[lower + 1] - y[lower])
    return float(np.exp(x[lower] + slope * (np.log(loss) - y[lower])))


def power_law(entries: Sequence[dict]) -> tuple[float, float]:
    """a and b of loss = a * tokens^-b, by least squares in logarithms."""
    slope, intercept = np.polyfit(np.log([e["tokens"] for e in entries]), np.log([e["loss"] for e in entries]), 1)
    return float(np.exp(intercept)), float(-slope)


def compared(rows: Sequence[dict], seeds: Sequence[int]) -> list[dict]:
    """For every seed, reference and budget: tokens and seconds of MuonClip to the reference's loss, as shares."""
    found = []
    for seed in seeds:
        ours = [entry for entry in rows if entry["seed"] == seed and entry["way"] == "MuonClip"]
        step = float(np.median([entry["step_seconds"] for entry in ours]))
        for other in (entry for entry in rows if entry["seed"] == seed and entry["way"] != "MuonClip"):
            share = tokens_to(other["loss"], ours) / other["tokens"]
            found.append(dict(seed=seed, reference=other["way"], budget=other["asked"], tokens=share,
                              seconds=share * step / other["step_seconds"]))  # fmt: skip
    return found


def over(found: Sequence[dict], reference: str, name: str, seeds: Sequence[int],
         mean: Callable = np.mean, **where: float) -> dict:  # fmt: skip
    """One number a seed (the mean over its budgets, or one of them), as a row with its interval."""
    values = []
    for seed in seeds:
        wanted = dict(seed=seed, reference=reference, **where)
        values.append(float(mean([entry[name] for entry in found if entry.items() >= wanted.items()])))
    return gap(values, seeds, len(BUDGETS) if not where else 1)


def report(log: Log, seeds: Sequence[int]) -> None:
    """Claims, shares at each budget, and the power laws."""
    found = compared(log.rows, seeds)
    common = dict(figure="figures/token_efficiency.png", notebook="04_pretraining.ipynb")
    budgets = sorted({entry["budget"] for entry in found})
    ends = lambda entry: {key: entry[key] for key in ("value", "low", "high")}
    by_budget = {f"{name} {budget}": over(found, "AdamW", name, seeds, budget=budget)
                 for budget in budgets for name in ("tokens", "seconds")}  # fmt: skip
    for name, floor, source in (("tokens", 0.65, "Moonlight 3.2 (0.519)"), ("seconds", 0.75, "this project")):
        entry = over(found, "AdamW", name, seeds)
        said = f"{name} that MuonClip needs to reach tuned AdamW's loss, as a share"
        log.claim(f"pretraining/{name}", claim=f"{said} (mean of three budgets)", source=source, floor=floor,
                  at_most=True, **common, **ends(entry))  # fmt: skip
        last = by_budget[f"{name} {budgets[-1]}"]
        log.claim(f"pretraining/{name}_at_the_largest_budget", claim=f"{said} (largest budget alone)", source=source,
                  floor=floor, at_most=True, **common, **ends(last))  # fmt: skip
    largest = ("_at_the_largest_budget", {"budget": budgets[-1]}, "largest budget alone")
    for name, where, said in (("", {}, "mean of three budgets"), largest):
        faster = over(found, "transformers", "seconds", seeds, mean=lambda shares: 1 / np.mean(shares), **where)
        log.claim(f"pretraining/transformers{name}", source="this project", floor=2.5, **common, **ends(faster),
                  claim=f"times faster to a loss, in seconds, than transformers' DeepseekV3 with AdamW ({said})")
    laws = {way: power_law([e for e in log.rows if e["way"] == way and e["seed"] in seeds]) for way in COLOURS}
    trained = sum(run["step_seconds"] * run["tokens"] / STEP_TOKENS for run in (*log.rows, *log.more.get("tuning", [])))
    log.more |= dict(training_seconds=round(trained),  # of all runs; `seconds` counts only those of the last call
                     by_budget=by_budget, compared=found, laws=laws, law_ratio=law_ratio(laws, budgets[-1]))


def law_ratio(laws: dict[str, tuple[float, float]], budget: float) -> float:
    """Share of `budget` at which MuonClip's law has the loss of AdamW's, as Moonlight compares them."""
    (a, b), (c, d) = laws["AdamW"], laws["MuonClip"]
    return float((c / (a * budget**-b)) ** (1 / d) / budget)


@viz.styled
def draw(log: dict) -> Figure:
    """Validation loss against tokens and against seconds, mean of the seeds with their range."""
    fig, axes = viz.figure(11, 4.8, 1, 2, sharey=True)
    for way, colour in COLOURS.items():
        runs = [entry for entry in log["rows"] if entry["way"] == way and entry["seed"] in log["seeds"]]
        budgets = sorted({entry["tokens"] for entry in runs})
        losses = [[entry["loss"] for entry in runs if entry["tokens"] == budget] for budget in budgets]
        step = np.median([entry["step_seconds"] for entry in runs])
        for ax, x in zip(axes[0], (np.array(budgets) / 1e6, np.array(budgets) / STEP_TOKENS * step)):
            ax.plot(x, [np.mean(group) for group in losses], "o-", color=colour, label=way)
            ax.fill_between(x, list(map(min, losses)), list(map(max, losses)), color=colour, alpha=0.2)
            ax.set_xscale("log")
    for ax, ticks in zip(axes[0], ((0.1, 0.2, 0.4, 0.8), (5, 10, 20, 40, 80))):
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    axes[0, 0].set(xlabel="tokens (millions)", ylabel="validation loss (nats a token)", title="Per token")
    axes[0, 1].set(xlabel="seconds (one thread)", title="Per second")
    axes[0, 0].legend()
    return fig


def main() -> None:
    """Tune each way, train with every seed, compare; write data/results/token_efficiency.json and its figure."""
    args = arguments(__doc__.splitlines()[0])
    keep_freed_memory()
    scaled = lambda tokens: int(tokens * args.scale)
    runs = Runs(Path(f"data/run/token_efficiency_{args.scale:g}.json"))
    log = Log("token_efficiency", seeds=args.seeds, folder=args.folder, tuning=[])
    rates = tune(runs, scaled, log)
    for seed in args.seeds:
        for way, by_budget in rates.items():
            for budget, lr in by_budget.items():
                log.row(**runs.get(way, lr, scaled(budget), seed))
    report(log, args.seeds)
    path = log.save()
    draw(log.as_dict()).savefig(figures(path.parent) / "token_efficiency.png", dpi=110)
    for claim in log.claims:
        print("{name}: {value:.3f} [{low:.3f}, {high:.3f}] floor {floor}, holds: {holds}".format(**claim))
    print(f"power laws: {log.more['laws']}, ratio {log.more['law_ratio']:.3f} (Moonlight {MOONLIGHT})")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
