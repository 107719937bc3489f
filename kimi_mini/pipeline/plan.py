"""What a run does, and the folder in which it is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kimi_mini.base.evidence import check_plan
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RUNS

STAGES = ("drill", "pretrain", "synthesise", "filter", "finetune", "reinforce", "evaluate", "publish")
DEFAULT_FOLDER = RUNS


@dataclass(frozen=True)
class Plan:
    """What a run does. Everything that decides its numbers is here, so a folder of another plan is refused."""

    preset: str = "nano"
    seed: int = 0
    device: str = "cpu"
    scale: float = 1.0  # of all token budgets; below 1 a run is a rehearsal and publishes nothing
    drill_tokens: int = 1_200_000  # at most: the drill ends when its loss is below 0.3
    text_tokens: int = 1_300_000
    finetune_tokens: int = 12_000_000
    rl_rounds: int = 12
    tasks: int = 200  # held-out tasks a row

    def scaled(self, tokens: int) -> int:
        """A token budget times `scale`."""
        return max(8192, int(tokens * self.scale))


class Run:
    """A run's folder: which stages are done, and what each of them noted."""

    def __init__(self, folder: Path, plan: Plan):
        self.folder, self.plan = Path(folder), plan

    def note(self, stage: str) -> Path:
        """The file that says a stage is done."""
        return self.folder / f"{stage}.json"

    def done(self, stage: str) -> bool:
        """Whether `stage` is complete."""
        return self.note(stage).is_file()

    def read(self, stage: str) -> dict[str, Any]:
        """What a finished stage noted."""
        return read_json(self.note(stage))

    def check_plan(self) -> None:
        """Write the plan of a new folder, or refuse a folder that was begun with another one."""
        check_plan(self.folder, asdict(self.plan))
