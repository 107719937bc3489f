"""Seconds of whole training steps: ours, and those of transformers, on the same windows of real text."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_mini.experiments.deployment.compared import same_in_transformers
from kimi_mini.experiments.gpu.sheet import Row
from kimi_mini.experiments.gpu.site import Site
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kernels.cuda import attention as flex
from kimi_mini.model.kimi import KimiMini
from kimi_mini.model.moe import Router
from kimi_mini.pipeline.plan import Plan
from kimi_mini.training.batch import text_batch
from kimi_mini.training.loop import History, in_training, train_step
from kimi_mini.training.machine import compiled
from kimi_mini.training.machine.flops import batch_flops
from kimi_mini.training.machine.placement import is_out_of_memory, peak_memory
from kimi_mini.training.optim.muonclip import MuonClip

Action = Callable[[], object]
LR = 1e-3  # of whatever is timed


def fresh(site: Site, config: KimiConfig) -> KimiMini:
    """A model with random weights on the device."""
    torch.manual_seed(0)
    return KimiMini(config).to(site.device)


def text_of_a_step(site: Site, window: int, tokens: int) -> torch.Tensor:
    """Windows (tokens / window, window) of real text; short text is read again."""
    windows = site.windows(window)[0]
    rows = torch.arange(max(1, tokens // window)) % len(windows)
    return torch.from_numpy(windows[rows.numpy()].astype("int64"))


def our_step(
    site: Site, model: KimiMini, ids: Tensor, micro_tokens: int | None, adamw: bool = False
) -> Action:
    """A step as `pretrain` takes it: micro-batches, clipped gradients, optimizer, QK-Clip, router biases."""
    optimizer = MuonClip(model, lr=LR)
    if adamw:
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    batch, place, rate = text_batch(ids.numpy()), site.place(micro_tokens), Plan().bias_rate

    def step() -> None:
        with in_training(model):
            train_step(model, optimizer, [batch], rate, History(), place=place)
        model.statistics.forget_max_logits()  # of a step with AdamW nobody else does

    return step


def times(site: Site, *actions: Action, rounds: int, warm: int = 3) -> list[list[float]]:
    """Seconds of each action, taken in turn `rounds` times, after `warm` times unmeasured: compiling, and routers that
    learn to balance."""
    found: list[list[float]] = [[] for _ in actions]
    for number in range(warm + rounds):
        for action, seconds in zip(actions, found):
            site.wait()
            began = time.perf_counter()
            action()
            site.wait()
            if number >= warm:
                seconds.append(time.perf_counter() - began)
    return found


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Median, and the quartiles."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]


def speed(site: Site, config: KimiConfig, ids: Tensor, seconds: list[float], rate: float) -> Row:
    """A row: tokens a second and MFU, each with its quartiles, and the most memory since `site.clear`."""
    middle, fast, slow = quartiles(seconds)
    flops = batch_flops(config, text_batch(ids.numpy()))
    row: Row = {"tokens_per_second": ids.numel() / middle, "mfu": flops / middle / rate, "ms": middle * 1e3}
    row |= {"peak_bytes": peak_memory(site.device), "tokens": ids.numel(), "window": ids.shape[1]}
    for name, value in (("low", slow), ("high", fast)):
        row |= {f"tokens_per_second_{name}": ids.numel() / value, f"mfu_{name}": flops / value / rate}
    return row | {"rounds": len(seconds)}


# ---- variants of ours ----------------------------------------------------------------------------------------


def round_robin(router: Router, scores: Tensor) -> Tensor:
    """Experts in turn, whatever the scores (N, E) say: every expert has the same load. -> (N, k)."""
    count, experts = scores.shape
    first = torch.arange(count, device=scores.device)[:, None] * router.top_k
    return (first + torch.arange(router.top_k, device=scores.device)) % experts


@contextmanager
def forced_balance() -> Iterator[None]:
    """Context: routers choose in turn. What is compiled has the choice inside, and is compiled anew."""
    honest = Router.choose
    try:
        Router.choose = round_robin
        forget_compiled()
        yield
    finally:
        Router.choose = honest
        forget_compiled()


def forget_compiled() -> None:
    """Compiled layers are compiled anew."""
    torch._dynamo.reset()
    compiled.compiled.cache_clear()


def untracked(q: Tensor, k: Tensor, v: Tensor, scale: float, valid=None, track: bool = True):
    """The attention for a GPU, without the maxima."""
    return flex.causal_attention(q, k, v, scale, valid, track=False)


# ---- transformers --------------------------------------------------------------------------------------------

SETTINGS = {  # weights in bf16, compiled: the best of them is what we are compared with
    "fp32 weights, autocast": (False, False),
    "bf16 weights": (True, False),
    "bf16 weights, compiled": (True, True),
}


def their_step(site: Site, model: nn.Module, ids: Tensor, micro_tokens: int) -> Action:
    """A step as its users write it: autocast, cross-entropy, clipped gradients, fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    learned = ids.numel() - len(ids)

    def step() -> None:
        for part in ids.split(max(1, micro_tokens // ids.shape[1])):
            part = part.to(site.device)
            with torch.autocast(site.device.type, torch.bfloat16):
                logits = model(part, use_cache=False).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1).float(), part[:, 1:].flatten(), reduction="sum")
            (loss / learned).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def transformers_times(site: Site, config: KimiConfig, ids: Tensor, setting: str, rounds: int) -> Row:
    """`seconds` of rounds and the micro-batch that fitted; or `failed`, why there are none."""
    halved, compiles = SETTINGS[setting]
    options = dict(attn_implementation="sdpa", experts_implementation="grouped_mm")
    model = same_in_transformers(fresh(site, config), **options).to(site.device).train()
    if halved:
        model = model.bfloat16()
    if compiles:
        model.compile(backend=site.place().backend)
    micro = ids.numel()
    while True:
        try:
            (seconds,) = times(site, their_step(site, model, ids, micro), rounds=rounds)
            return {"seconds": seconds, "micro_tokens": micro}
        except Exception as error:  # noqa: BLE001 - of compilers and kernels: which setting works is what is asked
            reason = str(error).splitlines() or [type(error).__name__]
            if not is_out_of_memory(error) or micro <= ids.shape[1]:
                return {"failed": f"{type(error).__name__}: {reason[0][:100]}"}
        micro //= 2
        site.clear()
