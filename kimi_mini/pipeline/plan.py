"""What a run does: every number that decides its results; and the folder in which it is kept.

Needs no torch, so that a run that is done says so at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import check_plan
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RUNS
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.worlds.rows import Limits


@dataclass(frozen=True)
class Optimizer:
    """The arguments of MuonClip, found on the nano with 4096 tokens a step.

    Muon's rate is that of Moonlight's rule (0.2 sqrt(max) times the orthogonal update), 40 times K2's because the model
    is a million times smaller; embedding, head and norms get AdamW's own.
    """

    lr: float = 0.008
    adamw_lr: float = 0.01
    weight_decay: float = 0.05
    tau: float = 100.0

    def build(self, model):
        """MuonClip for `model` with these rates."""
        from kimi_mini.training.optim.muonclip import MuonClip

        return MuonClip(model, **asdict(self))


@dataclass(frozen=True)
class Schedule:
    """Warm-up, stable, decay: `warmup` steps (a quarter of a shorter run) up to `peak` times the optimizer's rates; the
    decay takes the last `decay_fraction` of the steps, or begins when a share `decay_start` of them is done; it ends at
    `floor` of the peak."""

    peak: float = 1.0
    warmup: int = 20
    decay_fraction: float | None = None
    decay_start: float | None = None
    floor: float = 0.0

    def over(self, steps: int) -> Callable[[int], float]:
        """The factor of the learning rates as a function of the step, of `steps`."""
        from kimi_mini.training.optim.schedule import wsd

        warmup = min(self.warmup, steps // 4)
        start = None if self.decay_start is None else max(warmup, int(self.decay_start * steps))
        return lambda step: self.peak * wsd(step, steps, warmup, self.decay_fraction, start, self.floor)


@dataclass(frozen=True)
class Text:
    """Real text: windows of `window` tokens of Moby-Dick and `stdlib_bytes` of Python's standard library; the loss
    is measured on `held_out` windows of other documents."""

    window: int = 256
    stdlib_bytes: int = 5_000_000
    held_out: int = 64


@dataclass(frozen=True)
class Drill:
    """At most `tokens` of drills: they end when the mean loss of `stop_steps` steps is below `stop_loss`.

    whole: they begin with `first` symbols, for a share `held` of the tokens, and grow to the whole vocabulary when a
    share `whole_after` of the tokens is spent; from then on there are cards, too, and only then may they end.
    kept: tokens of drills in each step of pre-training and fine-tuning. Without, a model that looks up 99 of 100 pairs
    looks up none after a million tokens of text.
    """

    tokens: int = 1_200_000
    micro_tokens: int = 4096
    stop_loss: float = 0.3
    stop_steps: int = 20
    whole: bool = False
    first: int = 128
    kept: int = 0
    held: float = 0.3
    whole_after: float = 0.6
    schedule: Schedule = Schedule()


@dataclass(frozen=True)
class Pretrain:
    """Next-token prediction on `tokens` of real text."""

    tokens: int = 1_300_000
    schedule: Schedule = Schedule(decay_fraction=0.3, floor=0.2)


@dataclass(frozen=True)
class Synthesis:
    """Trajectories for fine-tuning, read about `passes` times, and `spare` more a level; a share `mistakes` is
    wrong on purpose. What is varied is drawn from pools that widen to `breadth` (see the desk's `Surface`) until a
    share `wide_after` of a source is made.
    Which sources, and their shares of the tokens, the worlds say: see `Run.begin`."""

    mistakes: float = 0.15
    passes: float = 1.5
    spare: int = 12
    wide_after: float = 0.25
    breadth: float = 1.0


@dataclass(frozen=True)
class Finetune:
    """Fine-tuning on `tokens`, of which each step has `text_tokens` of real text, against forgetting; longer levels
    join between the two ends of `ramp`, reflexes after a share `reflex_after`. `plain`: the share of worlds whose
    surface is always the same; the rest is for those that are varied."""

    tokens: int = 12_000_000
    text_tokens: int = 128
    ramp: tuple[float, float] = (0.02, 0.30)
    reflex_after: float = 0.1
    plain: float = 1.0
    schedule: Schedule = Schedule(decay_start=0.35)


JOINT = (
    *(("follow", level) for level in (6, 7, 8, 9)),
    *(("repair", level) for level in (2, 3, 4)),
    ("cheapest", 5),
    ("buy", 4),
    ("times", 4),
    ("chain", 8),
)


def joint(**more) -> RLConfig:
    """RL on three worlds (shop, repair, chain) in one run: the hardest levels that fine-tuning shows, and of chains of
    records those beyond them; what is half solved is drawn more often."""
    return RLConfig(tasks=JOINT, prioritised=True, **more)


@dataclass(frozen=True)
class Evaluation:
    """`tasks` held-out tasks a row; of all rows (`varied`: those of varied worlds, too), or of those named, their
    limits cut to so many tokens and turns."""

    tasks: int = 200
    varied: bool = False
    rows: tuple[str, ...] | None = None
    turn_tokens: int | None = None
    turns: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a run does. Everything that decides its numbers is here, so a folder of another plan is refused."""

    preset: str = "nano"
    seed: int = 0
    device: str = "cpu"
    processes: int = 1  # sums over two halves of a step are not, to the last bit, those over the whole
    step_tokens: int = 4096
    micro_tokens: int = 2048
    bias_rate: float = 0.005
    optimizer: Optimizer = Optimizer()
    text: Text = Text()
    drill: Drill = Drill()
    pretrain: Pretrain = Pretrain()
    synthesis: Synthesis = Synthesis()
    finetune: Finetune = Finetune()
    rl: RLConfig = field(default_factory=joint)
    evaluation: Evaluation = Evaluation()

    @property
    def rows(self) -> int:
        """Windows of real text in a step."""
        return max(1, self.step_tokens // self.text.window)

    def shared_by(self, count: int) -> Plan:
        """The same for so many processes. KimiError where one of them would have no window of a step."""
        if count > self.rows:
            raise KimiError(
                f"a step of {self.rows} windows cannot be shared by {count} processes: "
                f"take --processes {self.rows} or fewer"
            )
        return replace(self, processes=count)

    def scaled(self, factor: float) -> Plan:
        """The same with all token budgets, rounds and (never more) held-out tasks times `factor`."""
        if factor == 1:
            return self
        tasks = max(8, round(self.evaluation.tasks * factor))

        def tokens(part):
            return replace(part, tokens=max(2 * self.step_tokens, int(part.tokens * factor)))

        return replace(
            self,
            drill=tokens(self.drill),
            pretrain=tokens(self.pretrain),
            finetune=tokens(self.finetune),
            rl=replace(self.rl, rounds=max(2, round(self.rl.rounds * factor))),
            evaluation=replace(self.evaluation, tasks=min(self.evaluation.tasks, tasks)),
        )

    @classmethod
    def reader(cls, **more) -> Plan:
        """An agent that reads what it is told: any word may be asked for, so drills cover the whole vocabulary, and
        most of the fine-tuning is of worlds that put nothing the same way twice. Under two hours."""
        return cls(
            preset=more.pop("preset", "micro"),
            drill=Drill(2_400_000, whole=True, kept=256, stop_loss=0.1),
            finetune=Finetune(
                tokens=33_000_000, text_tokens=64, plain=0.2, schedule=Schedule(peak=0.5, decay_start=0.1)
            ),
            evaluation=Evaluation(varied=True),
            **more,
        )

    @classmethod
    def further(cls, **more) -> Plan:
        """A further course for an agent that reads (`Run.agent`): no drills and no real text before it, every pool wide
        open at once and later voices besides, and a rate that begins at three tenths of the first course's, for a
        higher one undoes more than the tokens teach. Three quarters of an hour."""
        reader = cls.reader(**more)
        return replace(
            reader,
            synthesis=replace(reader.synthesis, wide_after=0.0, breadth=2.0),
            finetune=replace(
                reader.finetune,
                tokens=16_000_000,
                ramp=(-1.0, 0.0),
                reflex_after=0.0,
                schedule=Schedule(peak=0.15, decay_start=0.05),
            ),
        )

    @classmethod
    def rehearsal(cls, **more) -> Plan:
        """Every stage in a minute: few and short steps, rounds and rows; no number of it is worth anything."""
        return cls(
            step_tokens=1024,
            text=Text(stdlib_bytes=300_000),
            drill=Drill(tokens=8192),
            pretrain=Pretrain(tokens=8192),
            finetune=Finetune(tokens=12_000, plain=0.5),
            rl=joint(rounds=2, prompts=3, attempts=3, ptx_tokens=512, limits=Limits(turn_tokens=12, turns=2)),
            evaluation=Evaluation(tasks=4, varied=True, rows=REHEARSED, turn_tokens=6, turns=2),
            **more,
        )


COSTS = {"minutes": 30, "gigabytes": 4}  # what a run should take at most, on two cores
REHEARSED = ("chain/thinking", "shop/buy", "desk/ask", "repair/pass@1", "repair/best_of_4")


@dataclass(frozen=True)
class Run:
    """A run's folder: which stages are done, and what each of them noted. agent: the folder of the weights that a
    further course begins with; None: random ones. ends: of earlier courses, whose mean with its own end a further
    course ends in (training/averaging)."""

    folder: Path = RUNS
    plan: Plan = field(default_factory=Plan)
    agent: Path | None = None
    ends: tuple[Path, ...] = ()

    @classmethod
    def begun_with(cls, folder: Path) -> int | None:
        """The number of processes of the run in `folder`; None where there is none that says so."""
        file = folder / "plan.json"
        plan = read_json(file) if file.is_file() else None
        count = plan.get("processes") if isinstance(plan, dict) else None
        return count if isinstance(count, int) and count > 0 else None

    def note(self, stage: str) -> Path:
        """The file that says a stage is done."""
        return self.folder / f"{stage}.json"

    def done(self, stage: str) -> bool:
        """Whether `stage` is complete."""
        return self.note(stage).is_file()

    def read(self, stage: str) -> dict[str, Any]:
        """What a finished stage noted."""
        return read_json(self.note(stage))

    @property
    def finished(self) -> bool:
        """Whether the log of the whole run, the last thing that it writes, is there."""
        return self.done("plan") and self.done("run")

    def begin(self, **tables) -> None:
        """Write the plan of a new folder, with the `tables` of the worlds (sources, rows) when they are at hand, or
        refuse a folder that was begun with another one."""
        check_plan(self.folder, asdict(self.plan) | tables)
