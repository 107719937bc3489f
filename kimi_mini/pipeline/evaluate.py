"""The scoreboard of the final agent, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from kimi_mini.base import ranks
from kimi_mini.base.files import read_json, write_json
from kimi_mini.evaluation import scoreboard
from kimi_mini.pipeline.plan import Evaluation, Run
from kimi_mini.pipeline.shared import load_checkpoint
from kimi_mini.text.tokenizer import Tokenizer


def rows_of(settings: Evaluation) -> list[scoreboard.Row]:
    """The rows that a plan measures, with its limits."""

    def cut(row: scoreboard.Row) -> scoreboard.Row:
        most = {"turn_tokens": settings.turn_tokens, "turns": settings.turns}
        less = {name: min(getattr(row.limits, name), value) for name, value in most.items() if value}
        return replace(row, limits=replace(row.limits, **less))

    rows = scoreboard.ROWS + (scoreboard.VARIED if settings.varied else ())
    return [cut(row) for row in rows if settings.rows is None or row.name in settings.rows]


def evaluate_rows(run: Run, name: str, rows: Sequence[scoreboard.Row]) -> dict[str, dict]:
    """Scoreboard rows of one checkpoint, each saved as it is done."""
    file = run.folder / f"rows-{name}.json"
    board = ranks.first_rank(lambda: read_json(file) if file.is_file() else {})
    model, tokenizer = load_checkpoint(run, name), Tokenizer.load()
    left = [part for row in rows for part in row.parts if part.name not in board]
    for row in tqdm(left, unit="row", desc=name, leave=False, dynamic_ncols=True):
        board[row.name] = scoreboard.measure(model, tokenizer, row, run.plan.evaluation.tasks)
        ranks.first_rank(lambda: write_json(file, board))
    return scoreboard.with_pools(board, rows)


def evaluate(run: Run) -> dict:
    """The scoreboard of the final agent, and what the one before RL makes of the same rows where RL may matter."""
    rows = rows_of(run.plan.evaluation)
    final = evaluate_rows(run, "final", rows)
    before = evaluate_rows(run, "tuned", [row for row in rows if row.before_rl])
    final |= {f"before_rl/{name}": row | {"main": False, "floor": None} for name, row in before.items()}
    if not ranks.rank():
        scoreboard.print_board(final)
    return {"tokens": 0, "scoreboard": final, "summary": f"{len(final)} rows"}
