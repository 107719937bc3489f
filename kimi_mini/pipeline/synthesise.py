"""Experts work on generated tasks, verifiers judge them, and only what passed is kept."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from kimi_mini.base import ranks
from kimi_mini.base.errors import KimiError
from kimi_mini.pipeline.plan import Plan, Run
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import synthesis
from kimi_mini.training.synthesis import Source, Trajectory


def synthesise(run: Run) -> dict:
    """Trajectories of every source, judged; all of them are kept on disk, with their verdicts."""
    made = trajectories(
        run.plan, synthesis.mixture(run.plan.finetune.plain), run.plan.finetune.tokens, run.plan.seed
    )
    ranks.first_rank(lambda: synthesis.save(run.folder / "trajectories.npz", made))
    done = [item for items in made.values() for item in items]
    written = sum(len(item.example.ids) for item in done)
    return {"tokens": written, "summary": f"{len(done):,} trajectories of {written:,} tokens"}


def trajectories(
    plan: Plan, sources: Sequence[Source], tokens: int, seed: int
) -> dict[Source, list[Trajectory]]:
    """Enough of every source for fine-tuning on so many tokens, made by all ranks; the same on each."""
    tokenizer, settings = Tokenizer.load(), plan.synthesis
    counts = {
        source: synthesis.wanted(source, tokens, settings.passes, settings.mistakes, settings.spare)
        for source in sources
    }
    jobs = [(source, index) for source, count in counts.items() for index in range(count)]
    with tqdm(total=len(jobs), unit="episode", leave=False, dynamic_ncols=True) as bar:

        def one(source: Source, index: int) -> Trajectory:
            bar.update(ranks.world_size())  # the others are about as far
            opened = (index + 1) / max(1, settings.wide_after * counts[source])
            breadth = settings.breadth * min(1, opened)
            return synthesis.numbered(tokenizer, source, index, seed, settings.mistakes, breadth)

        done = ranks.in_order(jobs, lambda own: [one(*job) for job in own])
    made = {source: [] for source in counts}
    for (source, _), item in zip(jobs, done):
        made[source].append(item)
    return made


def filter_passed(run: Run) -> dict:
    """Keep what the verifiers accepted: a moment's work, for the first rank."""
    return ranks.first_rank(lambda: _filter(run))


def _filter(run: Run) -> dict:
    """The quota of fine-tuning needs some of every level, so an empty one is an error here; so is a held-out task."""
    made = synthesis.load(run.folder / "trajectories.npz")
    kept = {source: synthesis.passed_only(items) for source, items in made.items()}
    funnel = {}
    for source, items in made.items():
        for level in source.levels:
            counts = [sum(item.level == level for item in pool) for pool in (items, kept[source])]
            funnel[f"{source.family}/{source.mode}/{level}"] = {"made": counts[0], "passed": counts[1]}
            if not counts[1]:
                raise KimiError(
                    f"no trajectory of {source.family} at level {level} passed; make more of them"
                )
    synthesis.refuse_held_out(item for items in kept.values() for item in items)
    synthesis.save(run.folder / "training.npz", kept)
    total, passed = (sum(entry[key] for entry in funnel.values()) for key in ("made", "passed"))
    return {"funnel": funnel, "tokens": 0, "summary": f"{passed:,} of {total:,} passed their verifier"}
