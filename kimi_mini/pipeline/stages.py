"""The stages in a table: name and function."""

from __future__ import annotations

from kimi_mini.pipeline import publish as publishing
from kimi_mini.pipeline.evaluate import evaluate_stage
from kimi_mini.pipeline.finetune import finetune
from kimi_mini.pipeline.plan import Run
from kimi_mini.pipeline.reinforce import reinforce
from kimi_mini.pipeline.synthesise import filter_passed, synthesise
from kimi_mini.pipeline.text import drill, pretrain


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
