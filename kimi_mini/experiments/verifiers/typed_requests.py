"""Five small desks as a user writes them in a file for `chat --tools`, and what he types (typed.txt): by hand, out of
no grammar.

Names stand in braces, so that each sentence can be typed with quotes and without. Whoever wrote them knew what the
agent was trained for: each asks for one of the patterns (`kind`), or for what no tool can do. But for the
price of a red lamp, at which the fault of the agent before was seen, no tool and no sentence was tried on an agent
before all of them were written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kimi_mini.agent.own_tools import tool_of
from kimi_mini.worlds.tools import Tool

Call = tuple  # name of a tool, then its arguments
NAME = re.compile(r"{(.+?)}")


@dataclass(frozen=True)
class Request:
    """A sentence, what has to be looked up, what has to be done (exactly this), and what the answer has to hold: these
    words, or with `refuse` that it cannot be done."""

    desk: str
    kind: str
    text: str
    reads: tuple[Call, ...] = ()
    deeds: tuple[Call, ...] = ()
    says: tuple[str, ...] = ()
    refuse: bool = False

    def typed(self, quotes: bool) -> str:
        """The sentence with its names in quotes, or as they are."""
        return NAME.sub(r'"\1"' if quotes else r"\1", self.text)


@dataclass
class Desk:
    """What the tools of one conversation know, and what was called with success, in order."""

    table: dict[str, dict]
    called: list[Call] = field(default_factory=list)

    def read(self, tool: str, name: str, column: str) -> object:
        """A field of a thing that is there. Raises ValueError for one that is not."""
        value = self._thing(name)[column]
        self.called.append((tool, name.lower()))
        return value

    def do(self, tool: str, name: str, number: int) -> str:
        """Note that something was done with a thing that is there. Raises ValueError for one that is not."""
        self._thing(name)
        self.called.append((tool, name.lower(), number))
        return "ok"

    def _thing(self, name: str) -> dict:
        if name.lower() not in self.table:
            raise ValueError(f"{name} is not there")
        return self.table[name.lower()]


def _shop(desk: Desk) -> list[Callable]:
    def price_of(item: str) -> int:
        "Gives the price of an item."
        return desk.read("price_of", item, "price")

    def stock_of(item: str) -> int:
        "Gives the stock of an item."
        return desk.read("stock_of", item, "stock")

    def order(item: str, count: int) -> str:
        "Orders some pieces of an item."
        return desk.do("order", item, count)

    return [price_of, stock_of, order]


def _cities(desk: Desk) -> list[Callable]:
    def get_temperature(city: str) -> int:
        "Tells the temperature in a city."
        return desk.read("get_temperature", city, "temperature")

    def get_rain(city: str) -> int:
        "Tells the rain in a city."
        return desk.read("get_rain", city, "rain")

    return [get_temperature, get_rain]


def _library(desk: Desk) -> list[Callable]:
    def pages(book: str) -> int:
        "The pages of a book."
        return desk.read("pages", book, "pages")

    def sequel(book: str) -> str:
        "Which book is the sequel of a book; none for the last one."
        return desk.read("sequel", book, "sequel")

    def lend(book: str, days: int) -> str:
        "Lends a book for some days."
        return desk.do("lend", book, days)

    return [pages, sequel, lend]


def _office(desk: Desk) -> list[Callable]:
    def lookup_age(person: str) -> int:
        "Looks up the age of a person."
        return desk.read("lookup_age", person, "age")

    def lookup_boss(person: str) -> str:
        "Looks up the boss of a person; none for who has none."
        return desk.read("lookup_boss", person, "boss")

    def pay(person: str, coins: int) -> str:
        "Pays a person some coins."
        return desk.do("pay", person, coins)

    return [lookup_age, lookup_boss, pay]


def _garden(desk: Desk) -> list[Callable]:
    def height(plant: str) -> int:
        "Reads the height of a plant."
        return desk.read("height", plant, "height")

    def water(plant: str, litres: int) -> str:
        "Waters a plant with some litres."
        return desk.do("water", plant, litres)

    def cut(plant: str, times: int) -> str:
        "Cuts a plant some times."
        return desk.do("cut", plant, times)

    return [height, water, cut]


DESKS: dict[str, tuple[Callable[[Desk], list[Callable]], dict[str, dict]]] = {
    "shop": (
        _shop,
        {
            "red lamp": {"price": 12, "stock": 3},
            "blue chair": {"price": 45, "stock": 8},
            "old rope": {"price": 7, "stock": 61},
            "tea": {"price": 4, "stock": 90},
        },
    ),
    "cities": (
        _cities,
        {
            "london": {"temperature": 14, "rain": 22},
            "new york": {"temperature": 9, "rain": 5},
            "cairo": {"temperature": 31, "rain": 0},
        },
    ),
    "library": (
        _library,
        {
            "the white whale": {"pages": 620, "sequel": "the long voyage"},
            "the long voyage": {"pages": 318, "sequel": "home again"},
            "home again": {"pages": 207, "sequel": "none"},
        },
    ),
    "office": (
        _office,
        {
            "mary": {"age": 34, "boss": "john smith"},
            "john smith": {"age": 52, "boss": "anna"},
            "anna": {"age": 47, "boss": "none"},
        },
    ),
    "garden": (_garden, {"apple tree": {"height": 38}, "rose": {"height": 9}, "oak": {"height": 95}}),
}


def tools_of(name: str) -> tuple[Desk, list[Tool]]:
    """A new desk of that name, and its functions as tools."""
    functions, table = DESKS[name]
    desk = Desk(table)
    return desk, [tool_of(function) for function in functions(desk)]


def _call(text: str) -> Call:
    name, *arguments = text.split(", ")
    return (name, *(int(one) if one.isdigit() else one for one in arguments))


def _request(desk: str, line: str) -> Request:
    """A line of the file: kind: sentence -> calls; calls = words of the answer."""
    said, _, wanted = line.partition(" -> ")
    kind, _, text = said.partition(": ")
    calls, _, words = wanted.partition(" = ")
    made = [_call(call) for call in calls.split("; ") if call]
    return Request(
        desk,
        kind,
        text,
        tuple(call for call in made if len(call) == 2),
        tuple(call for call in made if len(call) == 3),
        tuple(word for word in words.split(", ") if word),
        refuse=not made,
    )


def _requests() -> tuple[Request, ...]:
    _, *sections = (Path(__file__).parent / "typed.txt").read_text("utf-8").split("\n## ")
    split = [section.strip().splitlines() for section in sections]
    return tuple(_request(desk, line) for desk, *lines in split for line in lines)


REQUESTS = _requests()
