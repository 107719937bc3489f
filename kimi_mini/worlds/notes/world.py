"""World `notes`: a small tree of notes in memory; tools list, read, write (create or replace) and move.

Families
    edit    change one value in a note; its other lines stay (level: other lines)
    tidy    move the notes of a folder that say something to another folder (level: notes, less one)

What counts is the tree in the end, to the letter, and that nothing was changed unread. Names, keys and values are
invented anew for each task.
"""

from __future__ import annotations

import random

from kimi_mini.base.denials import gives_up
from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Message,
    Task,
    Verdict,
    answers_early,
    final_answer,
    invented,
    most_calls,
    turn,
)
from kimi_mini.worlds.notes.adversary import KINDS, SHORTCUTS
from kimi_mini.worlds.notes.tree import Tree, changed, says, to_change, to_read, wanted
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.rows import Row
from kimi_mini.worlds.tools import Toolbox

# -- tasks ---------------------------------------------------------------------------------------------


def generate(rng: random.Random, family: str, level: int) -> Task:
    """A tree of notes, and what to do with it."""
    prompt, goal, notes, folders = (_edit if family == "edit" else _tidy)(rng, level)
    paths = rng.sample(sorted(notes), len(notes))
    data = {"goal": goal, "notes": {path: notes[path] for path in paths}, "folders": folders}
    return Task("notes", family, level, prompt, data)


def _note(rng: random.Random, keys: list[str]) -> str:
    """Lines of the keys in any order, with numbers."""
    return "\n".join(f"{key}: {rng.randrange(10, 100)}" for key in rng.sample(keys, len(keys)))


def _edit(rng: random.Random, level: int) -> tuple[str, dict, dict, list[str]]:
    here, there, name, other, *keys = invented(rng, 5 + level)
    path, key = f"{here}/{name}", keys[0]
    notes = {place: _note(rng, keys) for place in (path, f"{here}/{other}", f"{there}/{name}")}
    value = next(
        value for value in map(str, rng.sample(range(10, 100), 2)) if not says(notes[path], key, value)
    )
    prompt = rng.choice(
        (f"In the note {path} change {key} to {value}.", f"Set {key} to {value} in the note {path}.")
    )
    return prompt, {"path": path, "key": key, "value": value}, notes, [here, there]


def _tidy(rng: random.Random, level: int) -> tuple[str, dict, dict, list[str]]:
    here, to, other, key, value, *rest = invented(rng, 8 + level)
    values, paths = rest[:1], [f"{here}/{name}" for name in rest[1 : level + 2]]
    right = rng.randrange(1, len(paths))  # some are moved, some stay
    said = rng.sample([value] * right + values * (len(paths) - right), len(paths))
    notes = {path: f"{key}: {word}" for path, word in zip(paths, said)}
    notes[f"{other}/{rest[-1]}"] = f"{key}: {value}"
    prompt = rng.choice(
        (
            f"Move the notes in {here} that say {key}: {value} to {to}.",
            f"Put every note of {here} with {key}: {value} into {to}.",
        )
    )
    return prompt, {"folder": here, "key": key, "value": value, "to": to}, notes, [here, other, to]


# -- the environment -----------------------------------------------------------------------------------


def open_environment(task: Task) -> Environment:
    """The notes as the task has them, and the tools over them."""
    tree = Tree(dict(task.data["notes"]), list(task.data["folders"]))
    return Environment(Toolbox(tree.tools()), tree)


# -- the expert ----------------------------------------------------------------------------------------


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """Reads before it changes. `mistake="slip"` writes another text, or takes one note for what it is not;
    `mistake="lazy"` says that it is done when it has looked."""
    return (_play_edit if task.family == "edit" else _play_tidy)(task, rng, mistake)


def _play_edit(task: Task, rng: random.Random, mistake: str | None) -> Expert:
    path, key, value = (task.data["goal"][name] for name in ("path", "key", "value"))
    text = yield turn(f"read {path}", call=("read", {"path": path}))
    if mistake != "lazy":
        written = changed(text, key, value)
        if mistake == "slip":
            lines = written.split("\n")
            lines.pop(rng.randrange(len(lines)))
            written = rng.choice([changed(text, key, value[::-1] + "0"), "\n".join(lines)])
        yield turn(f"{key}: {value}, the rest stays", call=("write", {"path": path, "text": written}))
    yield turn("end", content="done")


def _play_tidy(task: Task, rng: random.Random, mistake: str | None) -> Expert:
    here, key, value, to = (task.data["goal"][name] for name in ("folder", "key", "value", "to"))
    listed = yield turn(f"look in {here}", call=("list", {"folder": here}))
    found = [] if mistake == "lazy" else listed.split(", ")
    slip = rng.randrange(len(found)) if mistake == "slip" else None
    note = ""
    for number, name in enumerate(found):
        path = f"{here}/{name}"
        text = yield turn(f"{note}read {name}", call=("read", {"path": path}))
        note = f"{name} stays, "
        if says(text, key, value) != (number == slip):
            yield turn(f"{key}: {value}, {name} to {to}", call=("move", {"path": path, "folder": to}))
            note = ""
    yield turn(f"{note}end", content="done")


# -- the verifier --------------------------------------------------------------------------------------


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """The tree is what was asked for, to the letter (but for line breaks at the end of a note); no other note was ever
    touched, not even to be put back; and each was read before it was changed, those that stay in their folder too."""
    tree, data, answer = environment.state, task.data, final_answer(messages)
    if not answer or answers_early(messages):
        return Verdict(False, "no answer, or it went on behind it")
    calls, most = (
        sum(message.get("role") == "tool" for message in messages),
        most_calls(2 * len(to_read(data))),
    )
    if calls > most:
        return Verdict(False, f"{calls} calls, where {most} are plenty")
    found = {path: text.rstrip("\n") for path, text in tree.notes.items()}
    if wrong := sorted(dict(found.items() ^ wanted(data).items())):
        return Verdict(False, f"{wrong[0]} is {found.get(wrong[0], 'not there')!r}")
    read: set[str] = set()
    for what, path in tree.done:
        if what in ("write", "move") and path not in to_change(data):
            return Verdict(False, f"{path} was changed, and nobody asked for it")
        if what in ("write", "move") and path not in read:
            return Verdict(False, f"{path} was changed unread")
        read |= {path} if what == "read" else set()
    if unread := sorted(set(to_read(data)) - read):
        return Verdict(False, f"{unread[0]} was never read")
    if gives_up(answer):
        return Verdict(False, f"answered {answer[:40]!r}, whatever was done")
    return Verdict(True, f"{len(to_change(data))} changed as asked, {len(found)} notes as they should be")


# -- what the others have to know ----------------------------------------------------------------------

HOME = {  # small enough to check an agent by eye
    "home/milk": "count: 2\nbought: no",
    "home/rice": "count: 1\nbought: yes",
    "home/soap": "count: 4\nbought: yes",
    "work/desk": "count: 1\nbought: no",
}


def own_task(words: str) -> Task | None:
    """A task about the demo's notes, told apart by its first word."""
    family = {"in": "edit", "set": "edit", "move": "tidy", "put": "tidy"}.get(words.split()[0].lower())
    return family and Task("notes", family, 1, words, {"notes": HOME, "folders": ["home", "work", "old"]})


def shown(notes: dict[str, str]) -> str:
    """Each note on a line."""
    return "\n".join(f"{path:<12}{'; '.join(text.splitlines())}" for path, text in sorted(notes.items()))


DEMO = Demo(
    own_task,
    examples=(
        "In the note home/milk change count to 37.",
        "Move the notes in home that say bought: yes to old.",
    ),
    place=shown(HOME) + "\nold         (an empty folder)",
    left=lambda task, environment: f"the notes now:\n{shown(environment.state.notes)}",
)

FAMILIES = {"edit": Family(range(1, 5), {}), "tidy": Family(range(1, 3), {})}
ROWS = (
    Row("notes/edit", "edit", says="change one value in a note"),
    Row("notes/tidy", "tidy", says="move the notes of a folder that say something"),
)

register(
    World(
        "notes",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        colour="#D55E00",
        shortcuts=SHORTCUTS,
        demo=DEMO,
    )
)
