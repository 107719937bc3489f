"""How far a LoRA takes the shipped agent in a customer's world; what is kept, and what serving costs.

    python -m kimi_mini.experiments.deployment.adapters

The world is a town library (`worlds.desk.customer`): its own tools, titles and way of asking. The agent knows chains,
sums, a shop and repairs, and does none of these tasks. Data are the world's own expert, with a share of what it knows
already (`Job.replay`). Three ways, the same tokens, and a fourth one:

    lora         A and B of attention and routed experts, by AdamW: Muon's steps learn as fast and have nothing to
                 hold the attention logits with, since QK-Clip may not touch a frozen base (NOTES.md has the numbers)
    lora alone   the same without a replay
    full         every weight, by MuonClip as in the agent's own fine-tuning
    lora even    as lora, with more to replay and as much of each family: a family that is cheap to learn has a small
                 share of the fine-tuning, is seldom seen again, and forgotten (added when the others had been seen)

Measured on held-out tasks: the new world, and every family that the agent was trained on, with the adapter attached.
Without it the agent is what it was, to the last bit: tests/model/test_lora.py. Then the adapters of all seeds and the
agent itself are served in one batch, and beside it one after the other, merged.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from kimi_mini.agent import loop
from kimi_mini.agent.folder import load_agent, shipped_agent
from kimi_mini.base import processes
from kimi_mini.base.command import in_one_line, positive
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import wilson
from kimi_mini.base.paths import RUNS, short
from kimi_mini.course.figures.deployment import adapters as drawn
from kimi_mini.evaluation.scoreboard import solve
from kimi_mini.experiments import harness
from kimi_mini.experiments.verifiers.shared import pools, success
from kimi_mini.inference.adapters import Adapters
from kimi_mini.inference.generation import generate
from kimi_mini.model.compact.lora import Adapter, detach, load_adapter
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan, Schedule
from kimi_mini.pipeline.shared import curve
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.loop import History, train
from kimi_mini.worlds import FAMILIES
from kimi_mini.worlds.desk import customer
from kimi_mini.worlds.registry import measured_levels
from kimi_mini.worlds.rows import LIMITS

START = shipped_agent()
KNOWN = tuple(name for name, family in FAMILIES.items() if family.trained and family.world != "desk")
KINDS = tuple(customer.REQUESTS)
ARMS = ("lora", "lora alone", "full")
EVEN = "lora even"
PASSES = 1.5
CORE_SECONDS = 240  # two minutes of two cores
NOTEBOOK = "10_deployment.ipynb"


@dataclass(frozen=True)
class Job:
    """One arm from one seed. tokens: of training; tasks: held out, a family. The rates come from a trial on
    another world (telecom, seed 10); none was tuned on this one."""

    arm: str
    seed: int
    tokens: int = 1_500_000
    step_tokens: int = 2048
    replay: float = 0.2
    rank: int = 8
    alpha: float = 16.0
    lora_lr: float = 0.015
    full_lr: float = 0.006
    tasks: int = 60
    start: Path = START

    def even(self) -> Job:
        """The same with a larger replay, and tokens enough for as many of the new world, nearly."""
        return replace(self, arm=EVEN, tokens=int(1.2 * self.tokens), replay=0.35)

    def said(self) -> dict:
        """All that decides its numbers."""
        return asdict(self) | {"start": short(self.start), "weights": harness.fingerprint(self.start)}

    def folder(self) -> Path:
        """Where its adapter lies, for serving: another one than that of any other job."""
        told = hashlib.sha256(json.dumps(self.said()).encode()).hexdigest()[:12]
        return RUNS / "adapters" / f"{self.arm.replace(' ', '_')}_{self.seed}_{told}"


def new_world(
    tokenizer: Tokenizer, tasks: int, seed: int, share: float = 1.0, kinds: Sequence[str] = KINDS
) -> sft.Pools:
    """The expert's trajectories at `tasks` tasks that are not held out, the kinds in turn; only what passes is kept.
    share: of the training tokens."""
    source = synthesis.Source(
        customer.FAMILY, "think", share, tuple(range(1, len(kinds) + 1)), customer.TOKENS
    )
    found: sft.Pools = {}
    for index in range(tasks):
        level = index % len(kinds) + 1
        rng = random.Random(f"{seed}/{customer.FAMILY}/{index}")
        played = loop.play(customer.generate(rng, kinds[level - 1]), rng, None, True, 0)
        if played.verdict().passed:
            found.setdefault((source, level), []).extend(synthesis.chains(tokenizer, played))
    return found


def examples_of(tokenizer: Tokenizer, job: Job) -> sft.Pools:
    """What a run learns from: the new world and, with a replay, a share of what the agent knows."""
    share = 0.0 if job.arm.endswith("alone") else job.replay
    tasks = int(job.tokens * (1 - share) / customer.TOKENS / PASSES) + 12
    found = new_world(tokenizer, tasks, job.seed, 1 - share)
    if share:
        old = synthesis.replay(share, even=job.arm == EVEN)
        found |= pools(tokenizer, old, job.tokens // 2, job.seed, mistakes=0.0)
    return found


def adapted(model: KimiMini, examples: sft.Pools, job: Job) -> History:
    """Train in place; with a LoRA that stays attached."""
    steps = sft.make_plan(examples, job.tokens, job.step_tokens, job.seed)
    if job.arm.startswith("lora"):
        adapter = Adapter.new(model, job.rank, job.alpha, seed=job.seed)
        optimizer = torch.optim.AdamW(
            adapter.parameters(), job.lora_lr, (0.9, 0.95), weight_decay=0.0, fused=True
        )
        adapter.attach(model)
    else:
        rates = replace(Plan().optimizer, lr=job.full_lr, adamw_lr=job.full_lr * 1.25)
        optimizer = rates.build(model)
    return train(
        model,
        optimizer,
        lambda step: sft.batches_of(examples, steps[step], Plan().micro_tokens),
        len(steps),
        Schedule(warmup=10, decay_start=0.35).over(len(steps)),
        bias_rate=0.0 if job.arm.startswith("lora") else Plan().bias_rate,
    )


def solved(model: KimiMini, tokenizer: Tokenizer, kind: str, tasks: int) -> float:
    """Greedy success at held-out requests of one kind."""
    done = solve(model, tokenizer, customer.held_out_tasks(kind, tasks), LIMITS)
    return fmean(conversation.verdict().passed for conversation in done)


def live(kind: str = "trace", tokens: int = 250_000, seed: int = 10, tasks: int = 40) -> dict:
    """Teach an agent one kind of request while the reader waits: {adapter, history, before, after}, the last two its
    success at held-out tasks; the adapter is off again."""
    job = Job("lora alone", seed, tokens, start=START)
    model, tokenizer = load_agent(job.start)
    before = solved(model, tokenizer, kind, tasks)
    examples = new_world(tokenizer, int(tokens / customer.TOKENS / PASSES) + 12, seed, kinds=(kind,))
    history = adapted(model, examples, job)
    after = solved(model, tokenizer, kind, tasks)
    return {"adapter": detach(model), "history": history, "before": before, "after": after}


def measure(model: KimiMini, tokenizer: Tokenizer, tasks: int) -> dict:
    """Greedy success at held-out tasks: the new world, whole and by kind, and each family that the agent knows."""
    kinds = {kind: solved(model, tokenizer, kind, tasks) for kind in KINDS}
    levels = {name: measured_levels(name) for name in KNOWN}
    known = {name: harness.mean(success(model, tokenizer, name, levels[name], tasks)) for name in KNOWN}
    return {"new": fmean(kinds.values()), "kinds": kinds, "kept": fmean(known.values()), "known": known}


def work(job: Job) -> dict:
    """One run and its measures; arm "before" is the agent as it is."""
    torch.set_num_threads(1)
    model, tokenizer = load_agent(job.start)
    told: dict = {"arm": job.arm, "seed": job.seed}
    if job.arm != "before":
        examples, began = examples_of(tokenizer, job), time.process_time()
        history = adapted(model, examples, job)
        told["core_seconds"] = time.process_time() - began
        learned = sum(param.numel() for param in model.parameters() if param.requires_grad)
        told |= {"seconds": history.seconds, "tokens": sum(history.tokens), "learned": learned}
        told |= {"curve": curve(history, 60), "max_logit": max(history.max_logit)}
    if job.arm.startswith("lora"):
        model.adapter.save(job.folder(), short(job.start))
        told["bytes"] = (job.folder() / "adapter_model.safetensors").stat().st_size
    return told | measure(model, tokenizer, job.tasks)


def serve(jobs: list[Job], rows: int = 8, tokens: int = 48) -> dict:
    """All adapters of `jobs` and the agent itself, `rows` rows each, in one batch, and beside it one after the other,
    merged and folded: tokens a second, and the share of rows in which both write the same."""
    model, tokenizer = load_agent(jobs[0].start)
    adapters = {f"seed {job.seed}": load_adapter(model, job.folder()) for job in jobs}
    tasks = customer.held_out_tasks("ask", rows * (len(adapters) + 1))
    prompts = [
        chat.encode(tokenizer, [{"role": "user", "content": task.prompt}], None, True)[0] for task in tasks
    ]
    shortest = min(map(len, prompts))
    ids = torch.tensor([prompt[-shortest:] for prompt in prompts])
    names = [name for name in (None, *adapters) for _ in range(rows)]
    served, whole = Adapters(model, adapters), {name: one.merged(model) for name, one in adapters.items()}
    began = time.perf_counter()
    mixed = generate(served, ids, tokens, eos_token_id=[], rows=names)
    middle = time.perf_counter()
    parts = [
        generate(whole.get(name, model), ids[i * rows :][:rows], tokens, eos_token_id=[])
        for i, name in enumerate((None, *adapters))
    ]
    ended = time.perf_counter()
    same = (mixed == torch.cat(parts)).all(1).double().mean().item()
    written = len(ids) * tokens
    spent = {"mixed": written / (middle - began), "merged": written / (ended - middle)}
    return {"same": same, **spent, "rows": len(ids)}


def main() -> None:
    """Adapt from every seed, each way; serve; write data/results/adapters.json."""
    options = harness.common_parser(__doc__.splitlines()[0], start=START)
    options.add_argument("--processes", type=positive, default=processes.default_count())
    args = harness.read(options)
    plain = Job("before", 0, start=args.start)
    tasks, tokens = max(4, int(plain.tasks * args.scale)), int(plain.tokens * args.scale)
    plain = replace(plain, tasks=tasks, tokens=tokens)
    jobs = [plain, *(replace(plain, arm=arm, seed=seed) for seed in args.seeds for arm in ARMS)]
    jobs += [replace(plain, seed=seed).even() for seed in args.seeds]
    more = {"weights": harness.fingerprint(args.start), "settings": jobs[1].said()}
    log = Log("adapters", seeds=args.seeds, folder=args.folder, **more)
    for told in harness.side_by_side(jobs, RUNS / f"adapters_{args.scale:g}.json", args.processes, work, log):
        log.row(**told)
        print(told["arm"], told["seed"], f"new {told['new']:.3f} kept {told['kept']:.3f}", flush=True)
    log.more["served"] = serve([job for job in jobs if job.arm == "lora"])
    report(log, tasks)
    harness.finish(log, adapters=drawn.adapted)


def report(log: Log, tasks: int) -> None:
    """Scoreboard, then claims."""
    before, *runs = log.rows
    by_arm = {arm: [one for one in runs if one["arm"] == arm] for arm in (*ARMS, EVEN)}
    count, board = tasks * len(before["kinds"]), {}
    low, high = wilson(round(before["new"] * count), count)
    board["adapters/before"] = harness.entry(
        before["new"], low, high, count, [0], "the new world: the shipped agent"
    )
    for arm, found in by_arm.items():
        name = arm.replace(" ", "_")
        says = f"the new world: {arm}"
        board[f"adapters/{name}"] = harness.row(
            [one["new"] for one in found], log.seeds, count, says, arm == "lora"
        )
        kept = [one["kept"] - before["kept"] for one in found]
        says = f"what it knew, mean of {len(KNOWN)} families: {arm} - before"
        board[f"adapters/{name}_kept"] = harness.gap(kept, log.seeds, tasks * len(KNOWN), says, arm == "lora")
    log.more["scoreboard"] = board
    claims(log, before, by_arm, count)


def claims(log: Log, before: dict, by_arm: dict[str, list[dict]], count: int) -> None:
    """What is claimed of the adapters with a replay, and of serving them. count: tasks of the new world."""

    def claim(name: str, says: str, found: dict, floor: float, **more) -> None:
        place = {"figure": "figures/adapters.png", "notebook": NOTEBOOK, "source": "LoRA (arXiv 2106.09685)"}
        log.claim(f"adapters/{name}", claim=says, floor=floor, **found, **more, **place)

    later = f", with an even replay{harness.SEEN}"
    for prefix, how, lora in (("", "", by_arm["lora"]), ("even/", later, by_arm[EVEN])):
        says = "a LoRA teaches the shipped agent a world that it has never seen"
        claim(f"{prefix}new", says + how, harness.share_across([one["new"] for one in lora]), 0.9)
        kept = harness.across([one["kept"] - before["kept"] for one in lora])
        says = "with it attached the agent forgets nothing elsewhere (mean of its families, after - before)"
        claim(f"{prefix}kept", says + how, kept, -0.02)
        lost = {name: [one["known"][name] - had for one in lora] for name, had in before["known"].items()}
        worst = min(lost, key=lambda name: fmean(lost[name]))
        says = f"nor in any one of them (the worst of {len(lost)} families: {worst}, after - before)"
        claim(f"{prefix}kept/worst", says + (how or harness.SEEN), harness.across(lost[worst]), -0.02)
        says = "core seconds of that training (two minutes of two cores are 240)"
        spent = harness.across([one["core_seconds"] for one in lora])
        claim(f"{prefix}seconds", says + how, spent, CORE_SECONDS, at_most=True)
    says, had = "the agent before: the world is new", harness.rate(round(before["new"] * count), count)
    claim("before", says, had, 0.2, at_most=True, seeds=[0])  # one agent: its interval is over tasks
    says = "adapters in one batch write what each merged model writes (share of rows)"
    claim("served", says, harness.across([log.more["served"]["same"]]), 1.0)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
