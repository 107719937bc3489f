"""Patterns: what can be asked of a desk, each as records, the tools it takes, a request and the goal.

    ask      look up one number of some things                 orders   do something to each of a list
    trace    follow a link to its end                          search   find by one number, pick by another
    branch   look, then do one thing or another                copy     carry a number from one thing to another
    least    the lowest of a list                              create   make a thing, then look whether it is there

`COMPOSED` are put together from the same skills in ways that no training stream contains. The goal is what has to be
true afterwards: reads that must have happened, writes (exactly these), the answer.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kimi_mini.worlds.desk.domains import Deed, Domain
from kimi_mini.worlds.desk.language import wordings
from kimi_mini.worlds.desk.language.words import names

Need = tuple[str, str]  # kind and `what` of a tool


@dataclass
class Draft:
    """A task in the making. Tools it takes in the order of need; reads and writes: (kind, what, name, number)."""

    records: dict[str, dict]
    needs: list[Need]
    slots: dict[str, object]
    steps: dict[str, object]  # what the expert goes by
    reads: list[tuple] = field(default_factory=list)
    writes: list[tuple] = field(default_factory=list)
    answer: list[object] | None = None  # names or numbers, in order; None: any word that denies nothing
    asked: list[str] = field(default_factory=list)  # names that the request tells


@dataclass(frozen=True)
class Words:
    """How the request is put: which pools are the held-out ones, how much of the trained ones is open, and whether it
    is said plainly: in the words that people type first, of common things, with quotes or without."""

    names: bool = False
    wordings: bool = False
    breadth: float = 1.0
    plainly: bool = False


def records(rng: random.Random, domain: Domain, count: int, words: Words) -> dict[str, dict]:
    """So many things with all their numbers (different ones for each word) and no links."""
    if domain.catalogue:
        called = rng.sample(domain.catalogue, count)
    else:
        called = names(rng, count, words.names, words.plainly)
    columns = {word: rng.sample(range(1, 100), count) for word in domain.numbers}
    return {
        name: {word: column[i] for word, column in columns.items()} | dict.fromkeys(domain.links)
        for i, name in enumerate(called)
    }


def quoted(rng: random.Random, plainly: bool = False) -> Callable[[str], str]:
    """How names are marked in this request; plainly: one in three times not at all, but for an article now and then."""
    if plainly and rng.random() < 1 / 3:
        return rng.choice(("{}", "{}", "the {}")).format
    mark = rng.choice('"""\'')
    return lambda name: f"{mark}{name}{mark}"


def _word(rng: random.Random, domain: Domain, word: str) -> str:
    """The word that the user takes: the domain's own, or another one for it."""
    others = domain.numbers.get(word, ())
    return rng.choice(others) if others and rng.random() < 0.12 else word


def _count(rng: random.Random, number: int) -> object:
    return wordings.NUMBERS[number] if number < 10 and rng.random() < 0.15 else number


def _ask(rng: random.Random, domain: Domain, size: int, words: Words, link: str = " and the {} of ") -> Draft:
    table, word = records(rng, domain, size + 2, words), rng.choice(list(domain.numbers))
    asked, mark = list(table)[:size], quoted(rng, words.plainly)
    links = (" or ", ", or ", " & ", link.format(word)) if words.plainly else ()
    slots = {"list": wordings.listed(rng, list(map(mark, asked)), words.wordings, links), "word": word}
    reads = [("read", word, name, None) for name in asked]
    answer = [table[name][word] for name in asked]
    return Draft(table, [("read", word)], slots, {"names": asked, "word": word}, reads, [], answer, asked)


def _chain(rng: random.Random, domain: Domain, size: int, words: Words) -> tuple[dict, str, list[str]]:
    """Records of which the first `size` are linked, in order; the others lead among themselves into the chain."""
    table, link = records(rng, domain, size + 2, words), rng.choice(domain.links)
    if words.plainly:  # a name that only a result tells may begin with an article, which is part of it
        told = [name if i == 0 or rng.random() < 0.8 else f"the {name}" for i, name in enumerate(table)]
        table = dict(zip(told, table.values()))
    path = list(table)[:size]
    for name, after in itertools.pairwise(path):
        table[name][link] = after
    for name in list(table)[size:]:
        table[name][link] = rng.choice(path)
    return table, link, path


def _trace(rng: random.Random, domain: Domain, size: int, words: Words) -> Draft:
    table, link, path = _chain(rng, domain, size, words)
    slots = {"a": quoted(rng, words.plainly)(path[0]), "word": link}
    reads = [("link", link, name, None) for name in path]
    return Draft(
        table, [("link", link)], slots, {"start": path[0], "word": link}, reads, [], path[-1:], path[:1]
    )


def _entry(
    rng: random.Random, deed: Deed, mark: Callable[[str], str], name: str, number: int
) -> tuple[str, str]:
    """Name and number as the request says them, and as a thought repeats them."""
    count = _count(rng, number)
    return deed.words(mark(name), count), deed.words(f'"{name}"', count)


def _branch(rng: random.Random, domain: Domain, size: int, words: Words) -> Draft:
    table, word, mark = (
        records(rng, domain, 3 + size, words),
        rng.choice(list(domain.numbers)),
        quoted(rng, words.plainly),
    )
    asked, low, high = list(table)[:3]
    limit, deed = rng.randrange(2, 10 if size == 1 else 99), rng.choice(domain.deeds)
    table[asked][word] = rng.randrange(1, 10 if size == 1 else 99)
    few, many = rng.sample(range(1, 10), 2)
    chosen = (low, few) if table[asked][word] < limit else (high, many)
    (then, said), (other, said_other) = (_entry(rng, deed, mark, *one) for one in ((low, few), (high, many)))
    slots = {
        "a": mark(asked),
        "word": word,
        "limit": limit,
        "then": f"{deed.verb} {then}",
        "other": f"{deed.verb} {other}",
    }
    steps = {
        "asked": asked,
        "word": word,
        "limit": limit,
        "verb": deed.verb,
        "choices": [[low, few, said], [high, many, said_other]],
    }
    needs = [("read", word), ("deed", deed.verb)]
    reads, writes = [("read", word, asked, None)], [("deed", deed.verb, *chosen)]
    return Draft(table, needs, slots, steps, reads, writes, None, [asked, low, high])


def _least(rng: random.Random, domain: Domain, size: int, words: Words) -> Draft:
    draft = _ask(rng, domain, size, words, link=" or ")
    asked, word = draft.steps["names"], draft.steps["word"]
    draft.answer = [min(asked, key=lambda name: draft.records[name][word])]
    return draft


def _orders(rng: random.Random, domain: Domain, size: int, words: Words) -> Draft:
    table, deed, mark = (
        records(rng, domain, size + 2, words),
        rng.choice(domain.deeds),
        quoted(rng, words.plainly),
    )
    asked = [[name, rng.randrange(1, 10)] for name in list(table)[:size]]
    entries = [_entry(rng, deed, mark, *one) for one in asked]
    slots = {"list": wordings.listed(rng, [entry for entry, _ in entries], words.wordings), "verb": deed.verb}
    writes = [("deed", deed.verb, name, number) for name, number in asked]
    orders = [[*one, said] for one, (_, said) in zip(asked, entries)]
    steps = {"orders": orders, "verb": deed.verb}
    return Draft(table, [("deed", deed.verb)], slots, steps, [], writes, None, [name for name, _ in asked])


def _search(rng: random.Random, domain: Domain, size: int, words: Words) -> Draft:
    table, (key, word) = records(rng, domain, size + 3, words), rng.sample(list(domain.numbers), 2)
    found, n = list(table)[:size], rng.randrange(1, 100)
    for name, record in table.items():
        record[key] = n if name in found else (n + rng.randrange(1, 98)) % 100
    order = list(table.items())
    rng.shuffle(order)
    table = dict(order)
    hits = [name for name in table if name in found]
    slots = {"key": key, "n": n, "word": word}
    reads = [("find", key, None, n), *(("read", word, name, None) for name in hits)]
    answer = [min(hits, key=lambda name: table[name][word])]
    steps = {"key": key, "n": n, "word": word}
    return Draft(table, [("find", key), ("read", word)], slots, steps, reads, [], answer)


def _copy(rng: random.Random, domain: Domain, size: int, words: Words) -> Draft:
    table, word, mark = (
        records(rng, domain, 2 + size, words),
        rng.choice(list(domain.numbers)),
        quoted(rng, words.plainly),
    )
    a, b = list(table)[:2]
    value = table[a][word]
    slots = {"a": mark(a), "b": mark(b), "word": word}
    reads, writes = [("read", word, a, None)], [("set", word, b, value)]
    steps = {"a": a, "b": b, "word": word}
    return Draft(table, [("read", word), ("set", word)], slots, steps, reads, writes, None, [a, b])


def _create(rng: random.Random, domain: Domain, size: int, words: Words) -> Draft:
    table, word = records(rng, domain, 2 + size, words), next(iter(domain.numbers))
    (a, value), mark = (next(iter(table)), rng.randrange(1, 100)), quoted(rng, words.plainly)
    del table[a]
    slots = {"a": mark(a), "n": value, "word": word}
    needs = [("create", word), ("read", word)]
    reads, writes = [("read", word, a, None)], [("create", word, a, value)]
    return Draft(table, needs, slots, {"a": a, "n": value, "word": word}, reads, writes, [value], [a])


PATTERNS: dict[str, Callable[[random.Random, Domain, int, Words], Draft]] = {
    "ask": _ask,
    "trace": _trace,
    "branch": _branch,
    "least": _least,
    "orders": _orders,
    "search": _search,
    "copy": _copy,
    "create": _create,
}
SIZES = {
    "ask": range(1, 4),
    "trace": range(1, 6),
    "branch": range(1, 3),
    "least": range(2, 6),
    "orders": range(1, 5),
    "search": range(1, 5),
    "copy": range(1, 3),
    "create": range(1, 3),
}


def draft(rng: random.Random, pattern: str, domain: Domain, size: int, words: Words) -> tuple[Draft, str]:
    """A task of a pattern, and its request."""
    made = PATTERNS[pattern](rng, domain, size, words)
    slots = {"thing": domain.thing, "things": domain.plural, **made.slots}
    if not words.wordings:
        slots |= {key: _word(rng, domain, slots[key]) for key in ("word", "key") if key in slots}
    return made, wordings.said(rng, pattern, words.wordings, words.breadth, words.plainly, **slots)
