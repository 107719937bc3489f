"""How fast it is: every row times two things in turn, in one process, and gives the median of their ratios.

A ratio above 1 means that ours is faster (or cheaper) than what it is compared with. The two are timed one
after the other in every round, so that a slow spell of the machine hits both. `python -m kimi_mini bench`
prints the table.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kimi_mini.base.evidence import VERDICTS, Log
from kimi_mini.experiments.deployment import rollouts
from kimi_mini.experiments.deployment.compared import (
    MID,
    NANO,
    STEP_TOKENS,
    adamw_for,
    attend_kept,
    batch,
    build,
    dense_twin,
    same_in_transformers,
    sdpa,
    training_step,
    untracked,
)
from kimi_mini.experiments.deployment.stopwatch import Action, Bench, Row
from kimi_mini.inference.generation import generate
from kimi_mini.model import MLP, KimiConfig, MoE, kernels
from kimi_mini.model.kernels import engine
from kimi_mini.training.machine.placement import keep_freed_memory
from kimi_mini.training.machine.probe import bf16_pays
from kimi_mini.training.optim.muonclip import MuonClip, split_parameters


def against_transformers(bench: Bench) -> None:
    """Training step with the same weights; transformers in its default setting and with its plain expert
    loop."""
    for label, config, length, floor in (("nano", NANO, 256, 1.25), ("mid", MID, 512, 1.4)):
        model, ids = build(config), batch(config, bench.size(STEP_TOKENS), bench.size(length))
        for experts in ("default", "eager"):
            options = {} if experts == "default" else {"experts_implementation": "eager"}
            reference = same_in_transformers(model, **options).train()
            bench.compare(
                f"step {label} / transformers, {experts} experts",
                training_step(model, ids),
                training_step(reference, ids),
                floor,
            )


def against_dense(bench: Bench) -> None:
    """Training step against a dense model of the same activated parameters and the same attention.

    oneDNN helps large products, which the dense model has more of, so both engines have a row.
    """
    for label, config, length in (("nano", NANO, 256), ("mid", MID, 512)):
        ids = batch(config, bench.size(STEP_TOKENS), bench.size(length))
        steps = training_step(build(config), ids), training_step(build(dense_twin(config)), ids)
        bench.compare(f"step {label} / dense, same activated", *steps, 0.88)
        with kernels.using(linear="reference"):
            bench.compare(f"step {label} / dense, both without oneDNN", *steps, 0.88)


def optimizers(bench: Bench) -> None:
    """A whole training step with MuonClip against one with fused AdamW: at most 1.2 times as long."""
    for label, config, length in (("nano", NANO, 256), ("mid", MID, 512)):
        ids = batch(config, bench.size(STEP_TOKENS), bench.size(length))
        first, second = build(config), build(config)
        bench.compare(
            f"step {label} with MuonClip / with AdamW",
            training_step(first, ids, MuonClip(first, lr=1e-4)),
            training_step(second, ids, adamw_for(second)),
            1 / 1.2,
        )


def optimizer_alone(bench: Bench) -> None:
    """Only optimizer.step(), gradients as they are: MuonClip against torch.optim.Muon on the same matrices +
    AdamW."""
    first, second = build(NANO), build(NANO)
    ids = batch(NANO, bench.size(256), bench.size(256))
    training_step(first, ids)(), training_step(second, ids)()
    clip, adamw = MuonClip(first, lr=1e-4), adamw_for(second)
    bench.compare("optimizer alone nano: MuonClip / AdamW", clip.step, adamw.step)
    flat = [p for p in split_parameters(second)[0] if p.ndim == 2]
    experts = [expert.detach().clone() for p in split_parameters(second)[0] if p.ndim == 3 for expert in p]
    for expert in experts:
        expert.grad = torch.randn_like(expert)
    muon = torch.optim.Muon([*flat, *experts], lr=1e-4, adjust_lr_fn="match_rms_adamw")
    bench.compare("optimizer alone nano: MuonClip / torch Muon", clip.step, muon.step, 1.7)


def generation_rows(bench: Bench) -> None:
    """Greedy generation against transformers' generate, batch 1 and 32, prompt 64, 64 new tokens."""
    model = build(NANO).eval()
    reference = same_in_transformers(model).eval()
    for rows in (1, 32):
        ids = batch(NANO, rows * 64, 64)[:, : bench.size(64)]
        new = bench.size(64)
        options = dict(attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0)

        def theirs(ids=ids, new=new, options=options) -> Tensor:
            return reference.generate(ids, max_new_tokens=new, min_new_tokens=new, **options)

        bench.compare(
            f"generate nano, batch {rows} / transformers",
            lambda ids=ids, new=new: generate(model, ids, new, eos_token_id=-1),
            theirs,
            2.0,
        )


@torch.no_grad()
def absorbed_decoding(bench: Bench) -> None:
    """One decode step of one attention layer, batch 32, context 450: absorbed over cached latents against making keys
    and values of them (naive), and against a cache of keys and values, three times as large (kept)."""
    layer, rows, context = build(NANO).model.layers[0].self_attn, bench.size(32), bench.size(450)
    q = torch.randn(rows, NANO.num_attention_heads, 1, NANO.qk_head_dim)
    latents = torch.randn(rows, context, NANO.latent_dim)

    def ten_times(attend: Callable) -> Action:
        return torch.no_grad()(lambda: [attend(q, latents, None) for _ in range(10)])

    bench.compare(
        "10 decode steps: absorbed / naive, ctx 450",
        ten_times(layer.attend_absorbed),
        ten_times(layer.attend_naive),
        3.0,
    )
    with torch.no_grad():
        split = latents.split([NANO.kv_lora_rank, NANO.qk_rope_head_dim], -1)
        keys, values = (each.contiguous() for each in layer.expand(*split))  # (B, H, T, d) each

    def kept() -> None:
        for _ in range(10):
            attend_kept(q, keys, values)

    bench.compare("10 decode steps: absorbed / kept, ctx 450", ten_times(layer.attend_absorbed), kept)


def attention_rows(bench: Bench) -> None:
    """Training step with the attention that records maxima: against the same without (at most 2% dearer), and
    against torch's fused attention (not slower)."""
    for length in (256, 512, 1024):
        ids, model = batch(NANO, bench.size(STEP_TOKENS), bench.size(length)), build(NANO)
        step = training_step(model, ids)

        @kernels.using(attention=untracked)
        def without_maxima(step=step) -> None:
            step()

        @kernels.using(attention=sdpa)
        def fused(step=step) -> None:
            step()

        bench.compare(f"step nano with maxima / without, len {length}", step, without_maxima, 1 / 1.02)
        bench.compare(f"step nano with maxima / SDPA, len {length}", step, fused, 1.0)


def moe_layers(bench: Bench) -> None:
    """Forward and backward of one MoE layer against a dense MLP as wide as the experts that a token sees."""
    for experts, most in ((32, 1.5), (64, 1.6)):
        config = KimiConfig.preset(
            "nano", hidden_size=128, n_routed_experts=experts, num_experts_per_tok=4, moe_intermediate_size=64
        )
        torch.manual_seed(0)
        routed, dense = MoE(config), MLP(config.hidden_size, 5 * config.moe_intermediate_size)
        for weight in (*routed.parameters(), *dense.parameters()):
            nn.init.normal_(weight, 0.0, 0.02)
        x = torch.randn(1, bench.size(STEP_TOKENS), config.hidden_size, requires_grad=True)
        upstream = torch.randn_like(x)
        both = [lambda m=m, x=x, u=upstream: m(x).backward(u) for m in (routed, dense)]
        bench.compare(f"MoE layer, {experts} experts / dense layer", *both, 1 / most)
        with kernels.using(linear="reference"):
            bench.compare(f"MoE layer, {experts} experts / dense, no oneDNN", *both, 1 / most)


def expert_counts(bench: Bench) -> None:
    """Training step with 8 experts against the same step with more, four chosen: more experts are more
    parameters, hardly more work."""
    ids = batch(NANO, bench.size(STEP_TOKENS), bench.size(256))
    steps = {
        experts: training_step(build(NANO.replace(n_routed_experts=experts, num_experts_per_tok=4)), ids)
        for experts in (8, 64, 256)
    }
    for experts, most in ((64, 1.15), (256, 1.3)):
        bench.compare(f"step nano, {experts} experts / 8 experts", steps[experts], steps[8], 1 / most)


ROWS = (
    against_transformers,
    against_dense,
    optimizers,
    optimizer_alone,
    generation_rows,
    absorbed_decoding,
    attention_rows,
    moe_layers,
    expert_counts,
)


def run(
    threads: Sequence[int] = (1, 2),
    rounds: int = 7,
    scale: float = 1.0,
    clock: str = "wall",
    rows: Sequence[Callable[[Bench], None]] = ROWS,
) -> list[Row]:
    """Measure all rows at each number of threads and print the table; returns the rows.

    Every row is a dict with name, threads, ours_ms, reference_ms, ratio (reference / ours), low and high
    (quartiles), rounds, floor, verdict. The number of threads is put back afterwards.
    """
    before, results = torch.get_num_threads(), []
    keep_freed_memory()  # as in training; without it page faults take half of the time of one MoE layer
    print(f"{'ours / compared with':<46}       {'ours':>12} {'reference':>12}  ratio [quartiles]")
    try:
        for count in threads:
            torch.set_num_threads(count)
            bench = Bench(count, rounds, scale, clock)
            for measure in rows:
                measure(bench)
            results += bench.rows
    finally:
        torch.set_num_threads(before)
    return results


def log_of(rows: Sequence[Row], log: Log) -> Log:
    """The rows in `log`, each floor a claim: the ratio, with its quartiles over rounds, at one and two threads."""
    for row in rows:
        log.row(**row)
        if row["floor"] is not None:
            threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
            log.claim(
                f"bench/{row['name']}/{row['threads']}",
                claim=f"times as fast: {row['name']}, {threads}",
                source="this project",
                value=row["ratio"],
                low=row["low"],
                high=row["high"],
                floor=round(row["floor"], 3),
            )
    return log


def main(args: argparse.Namespace) -> int:
    """`python -m kimi_mini bench`: the table, then where the seconds of RL go; writes bench.json and bench_rl.json.
    With --threads N only the table's rows for these, no log. The engine is probed, as a new run probes it, unless the
    environment names one; whether bf16 would pay is said, and changes nothing (what it is worth where it should be:
    kimi_mini.experiments.pretraining.formats)."""
    if engine.VARIABLE not in os.environ:
        engine.choose(engine.probe())
    log, pays = Log("bench"), bf16_pays(NANO)
    results = run((args.threads,) if args.threads else (1, 2))
    verdicts = Counter(row["verdict"] for row in results if row["floor"] is not None)
    print(", ".join(f"{verdicts[said]} {said}" for said in VERDICTS) + f"; products by {engine.chosen()}")
    print(
        f"bf16 would {'pay' if pays else 'not pay'} in a training step here; on a CPU fp32 is used all the same"
    )
    log.more |= {"engine": engine.chosen(), "bf16_pays": pays}
    if not args.threads:
        log_of(results, log).save()
        rollouts.record(Log("bench_rl")).save()
        print("data/results/bench.json and bench_rl.json are written")
    return 0
