"""A tree of notes in memory, `folder/name` -> text, and four tools over it; what a task wants of it.

A note is lines of `key: value`. What was read and changed is recorded in order, so that a verifier can tell work from
a lucky guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kimi_mini.worlds.base import needs
from kimi_mini.worlds.tools import Tool, ToolError

LONGEST = 2000  # characters of a note
TEXT = {"type": "string"}


@dataclass
class Tree:
    """The notes, the folders they may stand in, and what was done: (list | read | write | move, path)."""

    notes: dict[str, str]
    folders: list[str]
    done: list[tuple[str, str]] = field(default_factory=list)

    def _note(self, path: str) -> str:
        if path not in self.notes:
            raise ToolError(f"no note {path}")
        return self.notes[path]

    def _folder(self, folder: str) -> None:
        if folder not in self.folders:
            raise ToolError(f"no folder {folder}; folders: {', '.join(self.folders)}")

    def list(self, folder: str) -> str:
        """The names of the notes in a folder."""
        self._folder(folder)
        self.done.append(("list", folder))
        return ", ".join(names(self.notes, folder)) or "empty"

    def read(self, path: str) -> str:
        """The text of a note."""
        text = self._note(path)
        self.done.append(("read", path))
        return text

    def write(self, path: str, text: str) -> str:
        """Create a note or replace its text."""
        folder, _, name = path.partition("/")
        self._folder(folder)
        if not name or "/" in name or len(text) > LONGEST:
            raise ToolError(f"a path is folder/name, a text at most {LONGEST} characters")
        self.notes[path] = text
        self.done.append(("write", path))
        return "ok"

    def move(self, path: str, folder: str) -> str:
        """Put a note into another folder, under its name."""
        text, there = self._note(path), f"{folder}/{path.partition('/')[2]}"
        self._folder(folder)
        if there in self.notes:
            raise ToolError(f"{there} is there already")
        del self.notes[path]
        self.notes[there] = text
        self.done.append(("move", path))
        return "ok"

    def tools(self) -> list[Tool]:
        """The four tools over this tree."""
        return [
            Tool("list", "", needs(folder=TEXT), self.list),
            Tool("read", "", needs(path=TEXT), self.read),
            Tool("write", "", needs(path=TEXT, text=TEXT), self.write),
            Tool("move", "", needs(path=TEXT, folder=TEXT), self.move),
        ]


def names(notes: dict[str, str], folder: str) -> list[str]:
    """The notes of a folder, by name."""
    return sorted(path.partition("/")[2] for path in notes if path.startswith(f"{folder}/"))


def changed(text: str, key: str, value: str) -> str:
    """A note with another value behind a key; the other lines as they are."""
    lines = [line.partition(": ") for line in text.split("\n")]
    return "\n".join(f"{found}: {value if found == key else old}" for found, _, old in lines)


def says(text: str, key: str, value: str) -> bool:
    """Whether one of a note's lines is `key: value`."""
    return f"{key}: {value}" in text.split("\n")


def to_change(data: dict) -> list[str]:
    """The notes that a task wants changed or moved."""
    goal, notes = data["goal"], data["notes"]
    if "path" in goal:
        return [goal["path"]]
    paths = [f"{goal['folder']}/{name}" for name in names(notes, goal["folder"])]
    return [path for path in paths if says(notes[path], goal["key"], goal["value"])]


def to_read(data: dict) -> list[str]:
    """The notes that have to be read to know what to change."""
    goal = data["goal"]
    if "path" in goal:
        return [goal["path"]]
    return [f"{goal['folder']}/{name}" for name in names(data["notes"], goal["folder"])]


def wanted(data: dict) -> dict[str, str]:
    """The tree as it has to be in the end."""
    goal, notes = data["goal"], dict(data["notes"])
    for path in to_change(data):
        text = notes.pop(path)
        if "path" in goal:
            notes[path] = changed(text, goal["key"], goal["value"])
        else:
            notes[f"{goal['to']}/{path.partition('/')[2]}"] = text
    return notes
