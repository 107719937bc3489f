"""A short run of RL on tasks of moderate difficulty, with the pre-training side beside it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict

from tqdm import tqdm

from kimi_mini.base.files import read_json, write_json
from kimi_mini.pipeline.plan import Run
from kimi_mini.pipeline.shared import load_checkpoint, save_checkpoint, tokenizer_of, training_pools
from kimi_mini.training import sft
from kimi_mini.training.batch import Batch
from kimi_mini.training.loop import History, load_state, save_state
from kimi_mini.training.recipe import MICRO_TOKENS, RL_ADAMW_LR, RL_LR, optimizer_for
from kimi_mini.training.rl import rounds as rl


def ptx_data(run: Run, tokens: int) -> Callable[[int], list[Batch]]:
    """The pre-training side of RL: examples that passed, all families mixed."""
    pools = training_pools(run)
    everything = [(key, index) for key, examples in pools.items() for index in range(len(examples))]

    def data(index: int) -> list[Batch]:
        rng = random.Random(f"{run.plan.seed}/ptx/{index}")
        chosen, size = [], 0
        while size < tokens:
            chosen.append(rng.choice(everything))
            size += len(pools[chosen[-1][0]][chosen[-1][1]].ids)
        return sft.batches_of(pools, chosen, MICRO_TOKENS)

    return data


def reinforce(run: Run) -> dict:
    """A short run of RL on tasks of moderate difficulty; saved after every round."""
    tokenizer, model = tokenizer_of(run), load_checkpoint(run, "tuned")
    settings = rl.Settings(rounds=max(2, round(run.plan.rl_rounds * run.plan.scale)))
    optimizer = optimizer_for(model, RL_LR, RL_ADAMW_LR)
    state, log = run.folder / "reinforce.pt", run.folder / "reinforce-rounds.json"
    history, rounds = History(), []
    if state.is_file() and log.is_file():
        history, rounds = load_state(state, model, optimizer), read_json(log, list)
        rounds = rounds[: len(history.loss)]
    bar = tqdm(total=settings.rounds, initial=len(rounds), unit="round", leave=False, dynamic_ncols=True)

    def on_round(index: int, measured: rl.Round) -> None:
        rounds.append(asdict(measured))
        history.loss.append(-measured.reward)
        history.tokens.append(int(measured.tokens * settings.prompts * settings.attempts))
        write_json(log, rounds)
        save_state(state, model, optimizer, history)
        bar.update()
        bar.set_postfix(success=f"{measured.success:.2f}")

    ptx = ptx_data(run, settings.ptx_tokens)
    if not (rounds and rl.learned(rl.Round(**rounds[-1]), settings)):
        rl.reinforce(model, tokenizer, optimizer, settings, run.plan.seed, ptx, len(rounds), on_round)
    bar.close()
    save_checkpoint(run, model, "final")
    first, last = rounds[0]["success"], rounds[-1]["success"]
    summary = f"{settings.family}: success while sampling {first:.2f} -> {last:.2f}"
    return {"tokens": sum(history.tokens), "rounds": rounds, "summary": summary}
