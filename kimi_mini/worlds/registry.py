"""What a world says of itself, and where everybody else finds it.

A world's file ends with `register(World(...))`, and one line of `kimi_mini/worlds/__init__.py` imports it. All that
is about one world alone stands in its file: its four functions, its families and their shares of the training tokens,
its rows of the scoreboard and their floors, the players that its verifier is tried on, its words, its colour, its
demonstration. Synthesis, scoreboard, audit, figures and chat ask here, and name no world. Here too: which levels are
trained, which are measured, and held-out tasks that are the same for every model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kimi_mini.base.errors import KimiError
from kimi_mini.worlds.base import Environment, Expert, Kind, Message, Sheet, Task, Verdict
from kimi_mini.worlds.rows import Row

MODES = ("think", "reflex", "window", "sheet")  # of training; what they are: training.synthesis
TRIES = 1000  # draws until a task of the asked side must have come: one in sixteen is held out


@dataclass(eq=False)
class Family:
    """One kind of task of a world. `name` and `world` are written by the world that holds it.

    levels     what training covers
    shares     mode of training -> share of the training tokens; none: not trained
    measured   levels whose held-out tasks are new to the model; all that are trained, unless they are given
    windows    levels of the longer episodes of which mode `window` shows the last turns
    length     tokens of a trajectory, about: by it the number of those that are made is reckoned
    sheet      makes an exercise sheet, for mode `sheet`
    """

    levels: Sequence[int]
    shares: Mapping[str, float]
    measured: Sequence[int] = ()
    windows: Sequence[int] = ()
    length: int = 150
    sheet: Callable[[random.Random], Sheet] | None = None
    name: str = ""
    world: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a share of a mode that is unknown, or that the family cannot do."""
        self.measured = self.measured or self.levels
        for mode in self.shares:
            if not {"window": self.windows, "sheet": self.sheet}.get(mode, mode in MODES):
                raise ValueError(f"a share for mode {mode}, and nothing to make it from")

    @property
    def trained(self) -> bool:
        """Whether training has a share for it."""
        return bool(self.shares)

    def levels_in(self, mode: str) -> tuple[int, ...]:
        """The levels that a mode of training covers; an exercise sheet has a single one."""
        return tuple({"window": self.windows, "sheet": (1,)}.get(mode, self.levels))


@dataclass(frozen=True)
class Demo:
    """What a world offers to those who talk to an agent.

    own_task   a task in the user's own words; None if they are not about this world
    examples   tasks to type and to change
    place      what the user's own tasks are about, as text
    left       what the work on such a task has left behind, in words; empty if nothing
    """

    own_task: Callable[[str], Task | None] = lambda words: None
    examples: Sequence[str] = ()
    place: str = ""
    left: Callable[[Task, Environment], str] = lambda task, environment: ""


@dataclass(eq=False)
class World:
    """A world: its four functions (see `worlds.base`), and what the rest of the package has to know about it.

    families           name -> Family
    rows               of the scoreboard; every family needs one
    kinds              trajectories whose truth is known, to try verifiers on; the expert's own are added
    colour             of its bars
    mistakes           what the expert can be asked for
    varied             whether every task is put in a surface of its own, so that reading helps and recall does not
    bare               whether some answers are right as a bare value alone: no sentence around it, no sign
    words              what the model has to copy letter by letter, as it stands in the text (with its space)
    recital            a text with every word in each of its places, for the tokenizer to learn them
    shortcuts          name -> verifier that is not good enough, to compare with
    false_statements   what a thought states that is not true
    demo               for the terminal
    """

    name: str
    generate: Callable[[random.Random, str, int], Task]
    open_environment: Callable[[Task], Environment]
    expert: Callable[..., Expert]
    verify: Callable[[Task, list[Message], Environment], Verdict]
    families: Mapping[str, Family]
    rows: Sequence[Row]
    kinds: Sequence[Kind] = ()
    colour: str = "#56B4E9"
    mistakes: Sequence[str] = ("slip", "lazy")
    varied: bool = False
    bare: bool = False
    words: Sequence[str] = ()
    recital: Callable[[random.Random], str] | None = None
    shortcuts: Mapping[str, Callable[[Task, list[Message], Environment], bool]] = field(default_factory=dict)
    false_statements: Callable[[Task, str], list[str]] = lambda task, thought: []
    demo: Demo = Demo()

    def __post_init__(self) -> None:
        """Raises ValueError for a family without a row, and for a row that is not of this world."""
        for name, family in self.families.items():
            family.name, family.world = name, self.name
        if missing := self.families.keys() - {row.family for row in self.rows if row.main}:
            raise ValueError(
                f"world {self.name}: no main row of the scoreboard for {', '.join(sorted(missing))}"
            )
        for row in self.rows:
            if row.family not in self.families or not row.name.startswith(f"{self.name}/"):
                raise ValueError(f"world {self.name}: row {row.name} of family {row.family} is not its own")
        self.rows = tuple(
            row if row.levels else replace(row, levels=tuple(self.families[row.family].measured))
            for row in self.rows
        )
        self.kinds = self._with_the_experts()

    @property
    def trained(self) -> bool:
        """Whether training has a share for any of its families. What is not trained is not measured either: its rows
        wait for a run that trains it."""
        return any(family.trained for family in self.families.values())

    def _with_the_experts(self) -> tuple[Kind, ...]:
        """Every expert is tried as it plays and, unless the world has its own script for that, with one wrong step."""
        families = tuple(self.families)
        plain = Kind("as the expert does it", True, families, lambda task, rng: self.expert(task, rng))
        slip = Kind(SLIP, False, families, lambda task, rng: self.expert(task, rng, "slip"))
        return (plain, *([] if SLIP in [kind.name for kind in self.kinds] else [slip]), *self.kinds)


SLIP = "one wrong step, carried on to the end"
WORLDS: dict[str, World] = {}
FAMILIES: dict[str, Family] = {}


def register(world: World) -> World:
    """Make a world known by its name and its families by theirs. Raises ValueError for a name that is taken."""
    if taken := {world.name} & WORLDS.keys() | world.families.keys() & FAMILIES.keys():
        raise ValueError(f"world {world.name}: {', '.join(sorted(taken))} stands for something else already")
    WORLDS[world.name] = world
    FAMILIES.update(world.families)
    return world


def world_of(family: str) -> World:
    """The world that a family belongs to."""
    return WORLDS[FAMILIES[family].world]


def generate(
    rng: random.Random, family: str, level: int, held_out: bool = False, breadth: float = 1.0
) -> Task:
    """A task of `family` on the asked side of the split: held-out tasks are told apart by their content, so no seed can
    bring one into a training stream. breadth: how much of its pools a varied world draws from, of 1. Raises KimiError
    when there seems to be none."""
    world = world_of(family)
    more = (breadth,) if world.varied else ()
    for _ in range(TRIES):
        task = world.generate(rng, family, level, *more)
        if task.held_out == held_out:
            return task
    raise KimiError(
        f"{TRIES:,} tasks of {family} at level {level} were drawn, and {'none is' if held_out else 'all are'} held "
        "out: it has too few different tasks there; take other levels, or let the world vary more"
    )


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """The scripted expert of the task's world."""
    return WORLDS[task.world].expert(task, rng, mistake)


def trained_levels(family: str) -> tuple[int, ...]:
    """The levels that training covers."""
    return tuple(FAMILIES[family].levels)


def measured_levels(family: str) -> tuple[int, ...]:
    """The trained levels on which held-out tasks are new to the model."""
    return tuple(FAMILIES[family].measured)


def held_out_tasks(family: str, levels: Sequence[int], count: int, seed: int) -> list[Task]:
    """`count` different held-out tasks, level after level in turn; the same for every model and every mode.

    A level with few different tasks (two digits times one) gives what it has, and the others fill up.
    """
    rng = random.Random(f"{seed}/held out/{family}/{list(levels)}")
    tasks: dict[str, Task] = {}
    tries, new = 0, 0  # the last try that brought a new task
    while len(tasks) < count:
        task = generate(rng, family, levels[tries % len(levels)], held_out=True)
        tries += 1
        if tasks.setdefault(task.key, task) is task:
            new = tries
        if tries - new > 1000:
            raise KimiError(
                f"{family} at levels {list(levels)} has fewer than {count} held-out tasks: take fewer"
            )
    return list(tasks.values())
