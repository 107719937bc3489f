"""What a rollout by another policy does to the gradient of RL, and what repairs it.

The policy that samples is the trained one in bf16, INT8 or INT4, or as it was 1, 4 or 16 optimizer steps ago; the
trainer has fp32 weights. Each time the same tasks are tried with the same dice, and the trainer's gradient is taken

    none        as if it had sampled the tokens itself
    mask        K2.5's: tokens whose log-ratio is too large have no gradient
    truncated   with weights pi / mu a token, cut at 2
    replay      as if it had, with the experts that the rollout chose; and with each of the other two

Against what? Three gradients are right in some sense, and each row has the distance to all of them.

exact       on-policy, on the rollout's own tokens (`error`): with weights pi / mu of whole attempts they have the
            on-policy gradient of the trainer's fp32 policy as their mean, without any bias. Where a few attempts have
            nearly all of the weight it is worth nothing: `effective` is the share of the attempts that count (1 / sum
            of squared normalised weights, over their number), and claims of it take the mismatches alone in which
            at least half do. There all errors are no larger than chance makes them, and no repair can halve those.
same dice   on attempts that the trainer's policy itself has made at these tasks with these dice (`dice_error`).
            Attempts that come out the same cancel; one token that does not makes the rest another sample. Row "other
            dice": two samples of the same policy. Claims of INT4 and of 16 steps, where errors are larger than that,
            stand on this reference; they were added when the rows were known.
sampler     the gradient that the rollout's own weights and experts have on these tokens (`tokens_error`, for what
            leaves tokens unweighted). No chance is in it. It says how well the trainer follows what the sampler did,
            which is what replay is for, and not whether this is what a trainer in fp32 wants.

The first two have chance in them, which no repair undoes: `chance` is the error that differences with the mean 0, as
scattered over the tasks as these are, would have. An error that is no larger shows nothing but chance.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, geometric_mean

import torch
from torch import Tensor
from tqdm import tqdm

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation, training_rows
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import rl as figures
from kimi_mini.experiments.harness import SEEN, across, arguments, fingerprint, finish, ratio_across
from kimi_mini.experiments.verifiers.shared import TUNED
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.model.moe import choices, replayed
from kimi_mini.pipeline.plan import Plan
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.rl import mismatch
from kimi_mini.training.rl import rounds as rl
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Curriculum
from kimi_mini.training.rl.objective import Scale, advantages
from kimi_mini.training.rl.rewards import reward

SEEDS = (3, 4, 5)  # 0 was looked at while the references were chosen
KINDS = (("follow", 8), ("follow", 9))  # of which the agent solves a little over half: see rl_gap
STEPS, STEP_PROMPTS = 16, 3
AGES = (1, 4, 16)
TASKS, ATTEMPTS = 10, 8
REPAIRS = tuple(itertools.product((False, True), mismatch.LOSSES))  # (replay?, loss)
LOSSES = {**mismatch.LOSSES, "exact": mismatch.exact}
ENOUGH = 0.5  # effective share of the attempts
FAR = ("int4", "16 steps")  # mismatches in which no seed has so many
CLAIMED = {
    "mask": ("The log-ratio mask", "K2.5 report 4.4.2"),
    "truncated": ("Truncated importance weights", "Yao et al. 2025"),
    "replay": ("Router replay", "arXiv 2510.11370"),
}
PLACE = {"figure": "figures/mismatch.png", "notebook": "07_joint_reinforcement_learning.ipynb"}


@dataclass
class Rollout:
    """Groups of attempts, what each attempt is worth, the experts of each of its training rows, and who made them."""

    policy: KimiMini
    groups: list[list[Conversation]]
    worth: dict[Conversation, float]
    experts: dict[Conversation, list[Tensor]]


def main() -> None:
    """Measure from every seed; write data/results/mismatch.json."""
    args = arguments(__doc__.splitlines()[0], seeds=SEEDS, base=TUNED)
    steps, tasks = max(2, int(STEPS * args.scale)), max(2, int(TASKS * args.scale))
    log = Log("mismatch", seeds=args.seeds, folder=args.folder, weights=fingerprint(args.base))
    start, tokenizer = load_agent(args.base)
    with tqdm(total=len(args.seeds) * (2 + len(mismatch.FORMATS) + len(AGES)), leave=False) as bar:
        for seed in args.seeds:
            policies = older(start, tokenizer, seed, steps)
            trained = policies.pop("trained")
            policies = {name: mismatch.rounded(trained, name) for name in mismatch.FORMATS} | policies
            config = RLConfig(tasks=KINDS, prompts=tasks, attempts=ATTEMPTS)
            reference = sampled(trained, tokenizer, config, seed)
            wanted = gradient(trained, reference, config)
            bar.update()
            other = gradient(trained, sampled(trained, tokenizer, config, seed, 1), config)
            log.row(seed=seed, mismatch="other dice", repair="none", **error(other, wanted, "dice_"))
            bar.update()
            for name in policies:
                rollout = sampled(policies[name], tokenizer, config, seed)
                for row in measured(trained, rollout, config, wanted):
                    log.row(seed=seed, mismatch=name, **row)
                    print(log.rows[-1], flush=True)
                bar.update()
    report(log)
    finish(log, mismatch=figures.mismatch)


def older(start: KimiMini, tokenizer: Tokenizer, seed: int, steps: int) -> dict[str, KimiMini]:
    """RL on a copy of `start`, an optimizer step a round: what it ends in, "trained", and what it was before."""
    model, plan = copy.deepcopy(start), Plan()
    config = RLConfig(
        tasks=KINDS, rounds=steps, prompts=STEP_PROMPTS, attempts=ATTEMPTS, updates=1, solved=1.0
    )
    optimizer = replace(plan.optimizer, lr=config.lr, adamw_lr=config.adamw_lr).build(model)
    kept = [copy.deepcopy(model)]
    keep = lambda index, found: kept.append(copy.deepcopy(model))
    rl.reinforce(model, tokenizer, optimizer, config, seed, on_round=keep)
    names = {age: "1 step" if age == 1 else f"{age} steps" for age in AGES if age <= steps}
    return {"trained": model} | {name: kept[-1 - age] for age, name in names.items()}


def sampled(policy: KimiMini, tokenizer: Tokenizer, config: RLConfig, seed: int, dice: int = 0) -> Rollout:
    """The attempts of this policy at the tasks of a seed."""
    drawn = Curriculum().draw(config, seed, 10**6)  # no round of the training before
    tasks = [one.task() for one in drawn for _ in range(config.attempts)]
    recording = mismatch.Recording(policy, tokenizer, config.temperature[0], rl.hash_seed(seed, dice))
    done = loop.run(recording, tokenizer, tasks, config.limits)
    experts = {one: mismatch.row_experts(one, recording.experts[one]) for one in done}
    worth = {one: reward(one, config)["total"] for one in done}
    for one in done:
        one.environment.close()
    groups = [done[i : i + config.attempts] for i in range(0, len(done), config.attempts)]
    return Rollout(policy, groups, worth, experts)


def gradients(
    model: KimiMini, rollout: Rollout, config: RLConfig, repairs: Sequence[tuple[bool, str]]
) -> dict[tuple[bool, str], Tensor]:
    """The gradient of `model` for each repair, (P, D): what each group adds. (replay?, "exact") is a reference."""
    scale = Scale(len(rollout.worth), sum(c.written for c in rollout.worth), config.limits.context)
    weights = list(model.parameters())
    found: dict[tuple[bool, str], list[Tensor]] = {repair: [] for repair in repairs}
    model.train()
    for group in rollout.groups:
        gains = advantages(torch.tensor([rollout.worth[c] for c in group]))
        if not gains.any():
            for parts in found.values():
                parts.append(torch.zeros(sum(weight.numel() for weight in weights)))
            continue
        rows = [training_rows(c) for c in group]
        experts = mismatch.replay([row for c in group for row in rollout.experts[c]])
        for replays in dict.fromkeys(replays for replays, _ in repairs):
            free = torch.full_like(experts, -1)
            with replayed(model.routers(), experts if replays else free):
                written = rl.written_by(model, rows, config.temperature[0])
            for loss in (loss for also, loss in repairs if also == replays):
                value = LOSSES[loss](written, gains, scale)
                parts = torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True)
                found[replays, loss].append(torch.cat([part.flatten() for part in parts]))
    model.statistics.forget()
    return {repair: torch.stack(parts) for repair, parts in found.items()}


def gradient(model: KimiMini, rollout: Rollout, config: RLConfig, replays: bool = False) -> Tensor:
    """Without any weights of tokens."""
    return gradients(model, rollout, config, [(replays, "none")])[replays, "none"]


def measured(trained: KimiMini, rollout: Rollout, config: RLConfig, same_dice: Tensor) -> list[dict]:
    """A row a repair: its errors against the exact on-policy gradient, that with the `same dice` (P, D), and, of what
    leaves tokens unweighted, that of the sampler. The first has what the mismatch is like, too."""
    found = gradients(trained, rollout, config, [*REPAIRS, (False, "exact")])
    exact, own = found.pop((False, "exact")), gradient(rollout.policy, rollout, config, replays=True)
    rows = []
    for (replays, loss), one in found.items():
        name = (
            " + ".join(part for part in ("replay" * replays, loss if loss != "none" else "") if part)
            or "none"
        )
        row = {"repair": name, **error(one, exact), **error(one, same_dice, "dice_")}
        if loss == "none":
            row |= error(one, own, "tokens_")
            row.pop("tokens_chance")  # there is none
        rows.append(row)
    rows[0] |= drift(trained, rollout, config)
    return rows


def error(gradient: Tensor, wanted: Tensor, prefix: str = "") -> dict[str, float]:
    """How far a gradient is from the one that is wanted, both (P, D) by groups: length of the difference, what of it
    may be chance (see above), and length of the gradient, in lengths of the wanted one; cosine."""
    off, total, goal = gradient - wanted, gradient.sum(0), wanted.sum(0)
    scatter = (off - off.mean(0)).square().sum() * len(off) / (len(off) - 1)
    found = {
        "error": off.sum(0).norm() / goal.norm(),
        "chance": scatter.sqrt() / goal.norm(),
        "cosine": torch.cosine_similarity(total, goal, dim=0),
        "norm": total.norm() / goal.norm(),
    }
    return {prefix + name: value.item() for name, value in found.items()}


@torch.no_grad()
def drift(trained: KimiMini, rollout: Rollout, config: RLConfig) -> dict[str, float]:
    """What the mismatch is like: mean |log pi / mu| a token, without and with replay; the share of tokens outside the
    mask, of (token, layer) that go to other experts; the effective share of the attempts; success of the rollout."""
    ratios: dict[bool, list[Tensor]] = {False: [], True: []}
    whole, other = [], []
    for group in rollout.groups:
        rows = [training_rows(c) for c in group]
        given = mismatch.replay([row for c in group for row in rollout.experts[c]])
        with evaluating(trained), choices(trained.routers()) as calls:
            written = rl.written_by(trained, rows, config.temperature[0])
        ratios[False].append(written.log_ratio)
        whole.append(written.summed(written.log_ratio))
        with evaluating(trained), replayed(trained.routers(), given):
            ratios[True].append(rl.written_by(trained, rows, config.temperature[0]).log_ratio)
        own = torch.stack([chosen.view(given.shape[1:]) for (chosen,) in calls])
        differ = (own.sort(-1).values != given.sort(-1).values).any(-1)
        other.append(differ[given[..., 0] >= 0])
    shares = torch.cat(whole).double().softmax(0)
    plain, replaying = (torch.cat(ratios[replays]).abs() for replays in (False, True))
    return {
        "log_ratio": plain.mean().item(),
        "log_ratio_replayed": replaying.mean().item(),
        "masked": (plain > mismatch.CLIP[0]).float().mean().item(),
        "other_experts": torch.cat(other).float().mean().item(),
        "effective": 1 / (shares.square().sum() * len(shares)).item(),
        "success": fmean(worth > 0 for worth in rollout.worth.values()),
    }


def left(log: Log, repair: str, seed: int, key: str) -> float | None:
    """The error that a repair leaves, in that without one: the geometric mean over the mismatches of one seed in which
    enough attempts count, or over all of them where the reference is the sampler; None without any."""
    at = {(row["mismatch"], row["repair"]): row for row in log.rows if row["seed"] == seed}
    names = [name for name, of in at if of == repair]
    close = [name for name in names if at[name, "none"]["effective"] >= ENOUGH or key != "error"]
    ratios = [at[name, repair][key] / at[name, "none"][key] for name in close]
    return geometric_mean(ratios) if ratios else None


def report(log: Log) -> None:
    """Whether a repair leaves at most half of the error."""
    ours, theirs = "to the on-policy gradient", "to the sampler's gradient on the same tokens"
    asked = {repair: (repair, "error", ours) for repair in CLAIMED}
    for name, (repair, key, to) in (asked | {"replay_tokens": ("replay", "tokens_error", theirs)}).items():
        words, source = CLAIMED[repair]
        shares = [left(log, repair, seed, key) for seed in log.seeds]
        says = f"{words} halve{third(words)} the distance {to} (share left, mean over mismatches)"
        found = {"value": None} if None in shares else ratio_across(shares)
        log.claim(f"mismatch/{name}", claim=says, source=source, floor=0.5, at_most=True, **found, **PLACE)
    for name in dict.fromkeys(row["mismatch"] for row in log.rows if row["mismatch"] in FAR):
        for repair in CLAIMED:
            claim_far(log, name, repair)


def claim_far(log: Log, name: str, repair: str) -> None:
    """What a repair leaves of a mismatch of which the exact reference knows nothing, against that of the same dice."""
    at = {
        (row["seed"], row["repair"]): row
        for row in log.rows
        if row["mismatch"] == name and row["repair"] in (repair, "none")
    }
    pairs = [(at[seed, repair], at[seed, "none"]) for seed in log.seeds]
    words, source = CLAIMED[repair]
    left = ratio_across([one["dice_error"] / none["dice_error"] for one, none in pairs])
    to = "the on-policy gradient of the same dice"
    says = f"{words} halve{third(words)} the distance to {to}, {name}: share left{SEEN}"
    log.claim(
        f"mismatch/{name}/{repair}", claim=says, source=source, floor=0.5, at_most=True, **left, **PLACE
    )
    turned = across([one["dice_cosine"] - none["dice_cosine"] for one, none in pairs])
    says = f"{words} turn{third(words)} the gradient to {to}, {name}: cosine, with - without{SEEN}"
    log.claim(f"mismatch/{name}/{repair}/cosine", claim=says, source=source, floor=0.0, **turned, **PLACE)


def third(words: str) -> str:
    """The s of a verb behind a name in the singular."""
    return "" if words.endswith("s") else "s"


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
