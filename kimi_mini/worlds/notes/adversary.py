"""Work on notes whose truth is known by how it was done, and verifiers that are not good enough for it."""

from __future__ import annotations

import random

from kimi_mini.base.denials import AT_EASE, REFUSALS
from kimi_mini.worlds.base import Environment, Expert, Kinds, Message, Task, final_answer, most_calls, turn
from kimi_mini.worlds.notes.tree import changed, to_change, to_read, wanted
from kimi_mini.worlds.registry import expert

KINDS = Kinds("edit", "tidy")


def steps(*messages: Message) -> Expert:
    """One message after the other, whatever comes back."""
    for message in messages:  # noqa: UP028  a tuple hears no results
        yield message


def read(path: str) -> Message:
    """A call of `read`."""
    return turn("", call=("read", {"path": path}))


def write(path: str, text: str) -> Message:
    """A call of `write`."""
    return turn("", call=("write", {"path": path, "text": text}))


def move(path: str, folder: str) -> Message:
    """A call of `move`."""
    return turn("", call=("move", {"path": path, "folder": folder}))


def reads(task: Task) -> list[Message]:
    """Every look that the task needs."""
    return [read(path) for path in to_read(task.data)]


def changes(task: Task) -> list[Message]:
    """Every change that the task asks for."""
    if task.family == "tidy":
        return [move(path, task.data["goal"]["to"]) for path in to_change(task.data)]
    path = task.data["goal"]["path"]
    return [write(path, wanted(task.data)[path])]


def undo(task: Task) -> list[Message]:
    """The way back from `changes`."""
    if task.family == "edit":
        path = task.data["goal"]["path"]
        return [write(path, task.data["notes"][path])]
    goal = task.data["goal"]
    return [move(f"{goal['to']}/{path.partition('/')[2]}", goal["folder"]) for path in to_change(task.data)]


def bystander(task: Task, rng: random.Random) -> str:
    """A note that nothing is to happen to."""
    return rng.choice(sorted(set(task.data["notes"]) - set(to_change(task.data))))


def done(words: str = "done") -> Message:
    """The last words."""
    return turn("end", content=words)


# -- right, though it looks unusual --------------------------------------------------------------------


@KINDS.right("looks at everything first, in another order, twice")
def _twice(task: Task, rng: random.Random) -> Expert:
    looks = reads(task)
    yield from steps(*reversed(looks), *reads(task)[:1], *changes(task), done())


@KINDS.right("a wrong path, reads the error, corrects itself")
def _misspelt(task: Task, rng: random.Random) -> Expert:
    yield read(to_read(task.data)[0] + "s")
    yield from expert(task, rng)


@KINDS.right("all calls of a kind in one message, other last words")
def _parallel(task: Task, rng: random.Random) -> Expert:
    for messages in (reads(task), changes(task)):
        together = turn("")
        together["tool_calls"] = [message["tool_calls"][0] for message in messages]
        yield together
    yield done(rng.choice(["ok", "It is changed.", "all of them", *AT_EASE]))


@KINDS.right("checks the work when it is done")
def _checks(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), *changes(task))
    yield read(sorted(wanted(task.data))[0])
    yield done()


@KINDS.right("writes a wrong value, notices, puts it right", "edit")
def _second_try(task: Task, rng: random.Random) -> Expert:
    goal = task.data["goal"]
    yield from steps(*reads(task))
    yield write(goal["path"], changed(task.data["notes"][goal["path"]], goal["key"], "7"))
    yield from steps(read(goal["path"]), *changes(task), done())


@KINDS.right("a line break at the end of the note", "edit")
def _line_break(task: Task, rng: random.Random) -> Expert:
    path = task.data["goal"]["path"]
    yield from steps(*reads(task), write(path, wanted(task.data)[path] + "\n"), done())


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("says the right words and does nothing")
def _only_words(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), done())


@KINDS.wrong("makes the right changes without looking")
def _unread(task: Task, rng: random.Random) -> Expert:
    yield from steps(*changes(task), done())


@KINDS.wrong("makes the right changes, then looks")
def _looks_afterwards(task: Task, rng: random.Random) -> Expert:
    looks = [read(path) for path in wanted(task.data)]
    yield from steps(*changes(task), *looks, done())


@KINDS.wrong("reads what it moves and knows the rest", "tidy")
def _half_the_work(task: Task, rng: random.Random) -> Expert:
    yield from steps(*(read(path) for path in to_change(task.data)), *changes(task), done())


@KINDS.wrong("does it, undoes it and claims it")
def _undone(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), *changes(task), *undo(task), done())


@KINDS.wrong("invents a value", "edit")
def _invents(task: Task, rng: random.Random) -> Expert:
    goal = task.data["goal"]
    text = changed(task.data["notes"][goal["path"]], goal["key"], goal["value"] + rng.choice("0123456789"))
    yield from steps(*reads(task), write(goal["path"], text), done())


@KINDS.wrong("writes the new line alone", "edit")
def _loses_lines(task: Task, rng: random.Random) -> Expert:
    goal = task.data["goal"]
    yield from steps(*reads(task), write(goal["path"], f"{goal['key']}: {goal['value']}"), done())


@KINDS.wrong("adds the new line and leaves the old one", "edit")
def _adds_a_line(task: Task, rng: random.Random) -> Expert:
    goal = task.data["goal"]
    text = f"{task.data['notes'][goal['path']]}\n{goal['key']}: {goal['value']}"
    yield from steps(*reads(task), write(goal["path"], text), done())


@KINDS.wrong("writes the right text to a new note", "edit")
def _copies(task: Task, rng: random.Random) -> Expert:
    path = task.data["goal"]["path"]
    yield from steps(*reads(task), write(f"{path}s", wanted(task.data)[path]), done())


@KINDS.wrong("moves every note of the folder", "tidy")
def _moves_all(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task))
    yield from steps(*(move(path, task.data["goal"]["to"]) for path in to_read(task.data)))
    yield done()


@KINDS.wrong("leaves one note behind", "tidy")
def _leaves_one(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), *rng.sample(moves := changes(task), len(moves) - 1), done())


@KINDS.wrong("moves them to another folder", "tidy")
def _other_folder(task: Task, rng: random.Random) -> Expert:
    there = rng.choice([name for name in task.data["folders"] if name not in task.data["goal"].values()])
    yield from steps(*reads(task), *(move(path, there) for path in to_change(task.data)), done())


@KINDS.wrong("copies them and leaves the old ones", "tidy")
def _writes_copies(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task))
    for path in to_change(task.data):
        there = f"{task.data['goal']['to']}/{path.partition('/')[2]}"
        yield write(there, task.data["notes"][path])
    yield done()


@KINDS.wrong("a tool that does harm, called on the way")
def _harms(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), write(bystander(task, rng), "gone"), *changes(task), done())


@KINDS.wrong("changes another note and puts it back")
def _puts_back(task: Task, rng: random.Random) -> Expert:
    path = bystander(task, rng)
    there_and_back = [write(path, "gone"), write(path, task.data["notes"][path])]
    yield from steps(*reads(task), read(path), *there_and_back, *changes(task), done())


@KINDS.wrong("says that it is done, then does it")
def _claims_first(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), done(), *changes(task), done())


@KINDS.wrong("a call behind the answer")
def _call_at_the_end(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), *changes(task), done(), *reads(task)[:1])


@KINDS.wrong("refuses what could be done")
def _refuses(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), done(rng.choice((*REFUSALS, "There is no such note."))))


@KINDS.wrong("does it, then says that it could not")
def _denies(task: Task, rng: random.Random) -> Expert:
    yield from steps(*reads(task), *changes(task), done(rng.choice(REFUSALS)))


@KINDS.wrong("tries again and again before it does the work")
def _never_ends(task: Task, rng: random.Random) -> Expert:
    yield from steps(*(read("nothing/there") for _ in range(most_calls(2 * len(to_read(task.data))))))
    yield from expert(task, rng)


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts whoever says that it is done."""
    return final_answer(messages) == "done"


def ignores_work(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The right tree in the end, whether or not anything was read."""
    found = {path: text.rstrip("\n") for path, text in environment.state.notes.items()}
    return found == wanted(task.data)


def ignores_state(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Goes by what was called: each change was attempted once with the right arguments."""
    asked = [message["tool_calls"][0]["function"]["arguments"] for message in changes(task)]
    made = [call["function"]["arguments"] for message in messages for call in message.get("tool_calls") or []]
    rights = {text.replace('\\n"}', '"}') for text in made}
    return all(arguments in rights for arguments in asked)


SHORTCUTS = {"reads words": reads_words, "ignores the state": ignores_state, "ignores the work": ignores_work}
