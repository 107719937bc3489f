"""The scoreboard of the final agent, row by row."""

from __future__ import annotations

from tqdm import tqdm

from kimi_mini.base.files import read_json, write_json
from kimi_mini.evaluation import scoreboard
from kimi_mini.pipeline.plan import Run
from kimi_mini.pipeline.shared import load_checkpoint, tokenizer_of


def evaluate_rows(run: Run, name: str, rows) -> dict[str, dict]:
    """Scoreboard rows of one checkpoint, each saved as it is done."""
    file = run.folder / f"rows-{name}.json"
    board = read_json(file) if file.is_file() else {}
    model, tokenizer = load_checkpoint(run, name), tokenizer_of(run)
    tasks = max(8, round(run.plan.tasks * min(1.0, run.plan.scale)))
    left = [part for row in rows for part in row.parts if part.name not in board]
    for row in tqdm(left, unit="row", desc=name, leave=False, dynamic_ncols=True):
        board[row.name] = scoreboard.measure(model, tokenizer, row, tasks)
        write_json(file, board)
    return scoreboard.with_pools(board, rows)


def evaluate_stage(run: Run) -> dict:
    """The scoreboard of the final agent, and what the one before RL makes of the same rows where RL may matter."""
    final = evaluate_rows(run, "final", scoreboard.ROWS)
    before = evaluate_rows(run, "tuned", [row for row in scoreboard.ROWS if row.before_rl])
    final |= {f"before_rl/{name}": row | {"main": False, "floor": None} for name, row in before.items()}
    scoreboard.print_board(final)
    return {"tokens": 0, "scoreboard": final, "summary": f"{len(final)} rows"}
