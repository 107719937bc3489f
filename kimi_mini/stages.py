"""The stages of `make run`, one function each: take the run, do the work, return what to note about it.

Every function can be stopped anywhere and called again. What it has finished it reads from the run's folder.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kimi_mini import publishing
from kimi_mini.agent import folder as folder_
from kimi_mini.base import files
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import read_arrays, read_json, write_json
from kimi_mini.evaluation import scoreboard
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import Run
from kimi_mini.text import corpus, drills
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import recipe, sft, synthesis
from kimi_mini.training.batch import Batch, Example, micro_batches
from kimi_mini.training.loop import History, evaluate_loss, load_state, save_state, train
from kimi_mini.training.machine.placement import choose_device
from kimi_mini.training.optim.schedule import wsd
from kimi_mini.training.recipe import (
    BIAS_RATE,
    MICRO_TOKENS,
    RL_ADAMW_LR,
    RL_LR,
    STEP_TOKENS,
    Bar,
    curve,
    optimizer_for,
)
from kimi_mini.training.rl import rounds as rl
from kimi_mini.training.synthesis import SOURCES

WINDOW = 256  # tokens of a window of real text
TEXT_IN_FINETUNING = 128  # tokens of real text in every step of fine-tuning, against forgetting


def tokenizer_of(run: Run) -> Tokenizer:
    """The shipped tokenizer."""
    return Tokenizer.load()


def new_model(run: Run) -> KimiMini:
    """The preset with random weights from the run's seed."""
    return recipe.new_model(run.plan.preset, choose_device(run.plan.device), run.plan.seed)


def save_checkpoint(run: Run, model: KimiMini, name: str) -> Path:
    """A Hugging Face folder with the tokenizer and the chat template in it."""
    folder = run.folder / "checkpoints" / name
    folder_.save_agent(model, folder)
    return folder


def load_checkpoint(run: Run, name: str) -> KimiMini:
    """The model that an earlier stage saved."""
    if not (run.folder / "checkpoints" / name / "config.json").is_file():
        raise KimiError(f"the checkpoint {name!r} is gone from {run.folder}: delete that folder to train again")
    return folder_.load_agent(run.folder / "checkpoints" / name)[0].to(run.plan.device)


def trained(run: Run, stage: str, model: KimiMini, data: Callable, steps: int, tokens: int, **options) -> History:
    """One training stage with its bar, resumable from data/run/STAGE.pt."""
    bar = Bar(tokens)
    options.setdefault("schedule", lambda step: 1.0)
    history = train(
        model, optimizer_for(model), data, steps, bias_rate=BIAS_RATE, state_file=run.folder / f"{stage}.pt",
        progress=bar, **options,
    )  # fmt: skip
    bar.close()
    return history


def note_of(history: History, **more) -> dict:
    """What every training stage notes."""
    return {"seconds": round(history.seconds, 2), "tokens": sum(history.tokens), "curve": curve(history), **more}


# -- the stages ----------------------------------------------------------------------------------------


def drill(run: Run) -> dict:
    """Recall and copy drills from random weights, until the loss is below 0.3."""
    model, alphabet = new_model(run), synthesis.drill_alphabet(tokenizer_of(run))
    limit = run.plan.scaled(run.plan.drill_tokens)

    def data(step: int) -> list[Batch]:
        rng = np.random.default_rng([run.plan.seed, 1, step])
        examples = [Example(*pair) for pair in drills.drills(rng, STEP_TOKENS, alphabet)]
        return micro_batches(examples, STEP_TOKENS)

    history = trained(
        run, "drill", model, data, limit // STEP_TOKENS, limit,
        schedule=lambda step: min(1.0, (step + 1) / 20),
        stop_when=lambda history: len(history.loss) > 20 and np.mean(history.loss[-20:]) < 0.3,
    )  # fmt: skip
    save_checkpoint(run, model, "drilled")
    loss = float(np.mean(history.loss[-20:]))
    return note_of(history, loss=loss, summary=f"loss {loss:.2f} after {sum(history.tokens):,} tokens")


def text_windows(run: Run, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation windows (N, 256) of real text, split by document; cached in the run's folder."""
    file = run.folder / "text.npz"
    if not file.is_file():
        parts = corpus.split(corpus.default_documents(5_000_000))
        windows = [corpus.pack(corpus.token_stream(tokenizer, part), WINDOW) for part in parts]
        files.save_arrays(file, training=windows[0], validation=windows[1])
    arrays = read_arrays(file)
    return arrays["training"], arrays["validation"]


def text_batch(windows: np.ndarray) -> list[Batch]:
    """Windows (B, T) as one batch in which every token is learned."""
    return micro_batches([Example(row, np.ones(len(row), bool)) for row in windows], 10**9)


def pretrain(run: Run) -> dict:
    """Next-token prediction on real text; the loss on documents held out is noted before and after."""
    tokenizer, model = tokenizer_of(run), load_checkpoint(run, "drilled")
    training, validation = text_windows(run, tokenizer)
    tokens = run.plan.scaled(run.plan.text_tokens)
    steps, rows = tokens // STEP_TOKENS, STEP_TOKENS // WINDOW
    order = np.random.default_rng([run.plan.seed, 2]).permutation(len(training))
    held_out = text_batch(validation[:: max(1, len(validation) // 64)])
    before = evaluate_loss(model, held_out)

    def data(step: int) -> list[Batch]:
        chosen = training[np.take(order, np.arange(step * rows, (step + 1) * rows), mode="wrap")]
        return [batch for part in np.array_split(chosen, 2) for batch in text_batch(part)]

    history = trained(
        run, "pretrain", model, data, steps, tokens,
        schedule=lambda step: wsd(step, steps, min(20, steps // 4), decay_fraction=0.3, floor=0.2),
    )  # fmt: skip
    after = evaluate_loss(model, held_out)
    save_checkpoint(run, model, "base")
    summary = f"validation loss {before:.2f} -> {after:.2f} nats a token"
    return note_of(history, validation_before=before, validation_loss=after, summary=summary)


def synthesise(run: Run) -> dict:
    """Trajectories of every source, judged; all of them are kept on disk, with their verdicts."""
    tokenizer, made = tokenizer_of(run), {}
    tokens = run.plan.scaled(run.plan.finetune_tokens)
    counts = {source: synthesis.wanted(source, tokens) for source in SOURCES}
    with tqdm(total=sum(counts.values()), unit="episode", leave=False, dynamic_ncols=True) as bar:
        for source, count in counts.items():
            made[source] = list(synthesis.synthesise(tokenizer, source, count, run.plan.seed, progress=bar.update))
    synthesis.save(run.folder / "trajectories.npz", made)
    written = sum(len(item.example.ids) for items in made.values() for item in items)
    total = sum(map(len, made.values()))
    return {"tokens": written, "summary": f"{total:,} trajectories of {written:,} tokens"}


def filter_passed(run: Run) -> dict:
    """Keep what the verifiers accepted. The quota of fine-tuning needs some of every level, so an empty one is an
    error here; so is a held-out task."""
    made = synthesis.load(run.folder / "trajectories.npz")
    kept = {source: synthesis.passed_only(items) for source, items in made.items()}
    funnel = {}
    for source, items in made.items():
        for level in source.levels:
            counts = [sum(item.level == level for item in pool) for pool in (items, kept[source])]
            funnel[f"{source.family}/{source.mode}/{level}"] = {"made": counts[0], "passed": counts[1]}
            if not counts[1]:
                raise KimiError(f"no trajectory of {source.family} at level {level} passed; make more of them")
    synthesis.refuse_held_out(item for items in kept.values() for item in items)
    synthesis.save(run.folder / "training.npz", kept)
    total, passed = (sum(entry[key] for entry in funnel.values()) for key in ("made", "passed"))
    return {"funnel": funnel, "tokens": 0, "summary": f"{passed:,} of {total:,} passed their verifier"}


def training_pools(run: Run) -> sft.Pools:
    """The examples that passed, by source and level."""
    return sft.pools_of(synthesis.load(run.folder / "training.npz"))


def finetune(run: Run) -> dict:
    """Supervised fine-tuning on the trajectories that passed, with a little real text in every step."""
    tokenizer, model = tokenizer_of(run), load_checkpoint(run, "base")
    pools = training_pools(run)
    windows = text_windows(run, tokenizer)[0].reshape(-1, TEXT_IN_FINETUNING)
    tokens = run.plan.scaled(run.plan.finetune_tokens)
    plan = sft.make_plan(pools, tokens, STEP_TOKENS - TEXT_IN_FINETUNING, run.plan.seed)
    order = np.random.default_rng([run.plan.seed, 3]).permutation(len(windows))

    def data(step: int) -> list[Batch]:
        text = windows[order[step % len(order)]]
        return sft.batches_of(pools, plan[step], MICRO_TOKENS, [Example(text, np.ones(len(text), bool))])

    steps = len(plan)
    history = trained(
        run, "finetune", model, data, steps, tokens,
        schedule=lambda step: wsd(step, steps, min(20, steps // 4), decay_start=int(0.35 * steps)),
    )  # fmt: skip
    save_checkpoint(run, model, "tuned")
    loss = float(np.mean(history.loss[-50:]))
    return note_of(history, loss=loss, summary=f"loss {loss:.3f} after {sum(history.tokens):,} tokens")


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
        history, rounds = load_state(state, model, optimizer), read_json(log)
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


def evaluate_rows(run: Run, name: str, rows) -> dict[str, dict]:
    """Scoreboard rows of one checkpoint, each saved as it is done."""
    file = run.folder / f"rows-{name}.json"
    board = read_json(file) if file.is_file() else {}
    model, tokenizer = load_checkpoint(run, name), tokenizer_of(run)
    tasks = max(8, round(run.plan.tasks * min(1.0, run.plan.scale)))
    left = [row for row in rows if row.name not in board]
    for row in tqdm(left, unit="row", desc=name, leave=False, dynamic_ncols=True):
        board[row.name] = scoreboard.measure(model, tokenizer, row, tasks)
        write_json(file, board)
    return scoreboard.with_pools(board)


def evaluate_stage(run: Run) -> dict:
    """The scoreboard of the final agent, and what the one before RL makes of the same rows where RL may matter."""
    final = evaluate_rows(run, "final", scoreboard.ROWS)
    before = evaluate_rows(run, "tuned", [row for row in scoreboard.ROWS if row.name in scoreboard.BEFORE_RL])
    final |= {f"before_rl/{name}": entry for name, entry in before.items()}
    scoreboard.print_board(final)
    return {"tokens": 0, "scoreboard": final, "summary": f"{len(final)} rows"}


def publish(run: Run) -> dict:
    """The run's log, figures and checkpoints; a rehearsal (scale below 1) keeps them in its own folder."""
    where = publishing.publish(run)
    return {"tokens": 0, "summary": f"see {where}"}


STAGE_FUNCTIONS = {
    "drill": drill,
    "pretrain": pretrain,
    "synthesise": synthesise,
    "filter": filter_passed,
    "finetune": finetune,
    "reinforce": reinforce,
    "evaluate": evaluate_stage,
    "publish": publish,
}
