"""The stages in their order: name -> function. Each takes the run, does the work, and returns what to note about it.

Every function can be stopped anywhere and called again. What it has finished it reads from the run's folder. All ranks
call it; each does its share, and the first one writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from kimi_mini.agent.folder import fingerprint
from kimi_mini.base import ranks
from kimi_mini.evaluation import scoreboard
from kimi_mini.pipeline.evaluate import evaluate, rows_of
from kimi_mini.pipeline.finetune import finetune
from kimi_mini.pipeline.plan import Run
from kimi_mini.pipeline.publish import report
from kimi_mini.pipeline.reinforce import reinforce
from kimi_mini.pipeline.synthesise import filter_passed, synthesise
from kimi_mini.pipeline.text import drill, pretrain
from kimi_mini.training.synthesis import mixture

STAGES: dict[str, Callable[[Run], dict]] = {
    "drill": drill,
    "pretrain": pretrain,
    "synthesise": synthesise,
    "filter": filter_passed,
    "finetune": finetune,
    "reinforce": reinforce,
    "evaluate": evaluate,
    "report": lambda run: ranks.first_rank(
        lambda: report(run, [name for name in STAGES if name != "report"])
    ),
}


def tables(run: Run) -> dict[str, Any]:
    """What else decides a run's numbers, for plan.json: what the worlds say (shares of the sources, rows and their
    limits), and the weights of a further course's agent and of the ends that it is averaged with."""
    plan = run.plan
    ends = {"ends": [fingerprint(end) for end in run.ends]} if run.agent else {}
    decisive = ("family", "levels", "limits", "attempts", "thinking", "share")
    return ends | {
        "agent": run.agent and fingerprint(run.agent),
        "sources": {
            f"{source.family}/{source.mode}": {
                "share": source.share,
                "levels": source.levels,
                "length": source.length,
            }
            for source in mixture(plan.finetune.plain)
        },
        "rows": {
            row.name: {name: value for name, value in asdict(row).items() if name in decisive}
            for row in rows_of(plan.evaluation)
        },
        "sampling_temperature": scoreboard.SAMPLING_TEMPERATURE,
    }
