"""One customer's world: a town library with its own tools, titles and way of asking; only the requests vary.

It is what adapting to a customer's data means in practice. Everything around a request is fixed: three tools, sixteen
titles, one sentence a kind of request, one form of results, one system message. What is asked, of which titles, in
which order and with which numbers, is drawn. Held-out tasks are told apart by their content, as everywhere.

    ask      how many copies there are of some titles        least    which of some titles has the fewest copies
    trace    the last sequel of a title                      orders   reserve titles, each for so many days

Tasks are tasks of world `desk`: its tools, expert and verdict. The agent `final` was trained on none of its forms.
"""

from __future__ import annotations

import random

from kimi_mini.worlds.base import Task
from kimi_mini.worlds.desk.domains import Deed, Domain
from kimi_mini.worlds.desk.evolution import Spec
from kimi_mini.worlds.desk.surface import assembled
from kimi_mini.worlds.desk.tasks import PATTERNS, Words

TITLES = (
    *("amber coast", "black winter", "crooked mile", "dark orchard", "empty theatre", "far thunder"),
    *("golden river", "hidden door", "iron captain", "jolly widow", "king of rain", "last lantern"),
    *("misty canal", "northern rose", "open prison", "pale dancer"),
)
LIBRARY = Domain(
    "town library", "book", "books", {"copies": ()}, ("sequel",), (Deed("reserve", "for # days"),), (), TITLES
)
SYSTEM = "You are the assistant of the town library."
FORM = "{value}"
REQUESTS = {
    "ask": "How many copies of {list}?",
    "trace": "Follow the sequel of {start} to the end.",
    "least": "Fewest copies: {list}?",
    "orders": "Reserve {list}.",
}
SIZES = {"ask": range(1, 4), "trace": range(1, 4), "least": range(2, 5), "orders": range(1, 4)}
TOKENS = 400  # of a trajectory, about
FAMILY = "library"


def _spec(kind: str, what: str, name: str, description: str, *arguments: tuple[str, str, str]) -> Spec:
    return Spec(LIBRARY.name, "catalogue", kind, what, "book", "books", "days", name, description, arguments)


TITLE, DAYS = ("name", "title", ""), ("number", "days", "")
TOOLS = (
    _spec("read", "copies", "count_copies", "Copies of a book on the shelves.", TITLE),
    _spec("link", "sequel", "sequel_of", "The book that goes on with the story, or none.", TITLE),
    _spec("deed", "reserve", "reserve_book", "Keep a book for a reader.", DAYS, TITLE),
)


def generate(rng: random.Random, pattern: str, held_out: bool = False) -> Task:
    """A task of one kind, of a size that is drawn, on the asked side of the split."""
    while True:
        size = rng.choice(SIZES[pattern])
        made = PATTERNS[pattern](rng, LIBRARY, size, Words())
        if pattern == "orders":
            made.steps["orders"] = [
                [name, days, f'"{name}" for {days} days'] for name, days, _ in made.steps["orders"]
            ]
        entries = [said for *_, said in made.steps.get("orders", ())] or [f'"{name}"' for name in made.asked]
        text = REQUESTS[pattern].format(list=", ".join(entries), start=entries[0])
        about = {"pattern": pattern, "domain": LIBRARY.name, "outcome": "done", "gone": None, "form": FORM}
        task = assembled(FAMILY, size, made, text, TOOLS, SYSTEM, ({}, {}), about)
        if task.held_out == held_out:
            return task


def held_out_tasks(pattern: str, count: int, seed: int = 0) -> list[Task]:
    """`count` different held-out tasks of one kind; the same for every model."""
    rng, tasks = random.Random(f"{seed}/held out/{FAMILY}/{pattern}"), {}
    while len(tasks) < count:
        task = generate(rng, pattern, held_out=True)
        tasks[task.key] = task
    return list(tasks.values())
