"""Six tasks that no training stream contains, put together from skills that are trained: is it reading, or recall?"""

from __future__ import annotations

import random
from collections.abc import Callable

from kimi_mini.worlds.desk.domains import Domain
from kimi_mini.worlds.desk.language import wordings
from kimi_mini.worlds.desk.tasks import Draft, Words, _ask, _branch, _chain, _entry, _least, _trace, quoted

Made = tuple[Draft, str]


def second_lowest(rng: random.Random, domain: Domain) -> Made:
    """Not the lowest, the one after it."""
    made = _least(rng, domain, 3, Words())
    word = made.steps["word"]
    made.answer = [sorted(made.steps["names"], key=lambda name: made.records[name][word])[1]]
    return made, "Which has the second lowest {word}: {list}?".format(**made.slots)


def highest(rng: random.Random, domain: Domain) -> Made:
    """The other end of the list."""
    made = _least(rng, domain, 3, Words())
    word = made.steps["word"]
    made.answer = [max(made.steps["names"], key=lambda name: made.records[name][word])]
    return made, "Which has the highest {word}: {list}?".format(**made.slots)


def do_to_the_lower(rng: random.Random, domain: Domain) -> Made:
    """Compare two, then act on one of them."""
    made, deed, number = _least(rng, domain, 2, Words()), rng.choice(domain.deeds), rng.randrange(1, 10)
    made.needs.append(("deed", deed.verb))
    made.writes, made.answer = [("deed", deed.verb, made.answer[0], number)], None
    said = f"{deed.verb} {_entry(rng, deed, str, 'the one with the lower {word}', number)[0]}"
    return made, f"{said}: {{list}}.".format(**made.slots)


def last_but_one(rng: random.Random, domain: Domain) -> Made:
    """Follow a link to its end, and name the one before."""
    made = _trace(rng, domain, rng.randint(2, 4), Words())
    path = [name for _, _, name, _ in made.reads]
    made.answer = [path[-2]]
    return made, "Follow the {word} from {a} until there is none. Which is the last but one?".format(
        **made.slots
    )


def total(rng: random.Random, domain: Domain) -> Made:
    """Read two numbers and add them."""
    made = _ask(rng, domain, 2, Words())
    made.answer = [sum(made.answer)]
    return made, "What is the {word} of {list} together?".format(**made.slots)


def branch_behind_a_link(rng: random.Random, domain: Domain) -> Made:
    """Follow a link once, then decide by the number of what one finds there."""
    made = _branch(rng, domain, 2, Words())
    table, link, path = _chain(rng, domain, 2, Words())
    asked, word = made.steps["asked"], made.steps["word"]
    start = path[0]
    if start in made.records:
        return branch_behind_a_link(rng, domain)
    made.records[start] = table[start] | {link: asked}
    made.needs.insert(0, ("link", link))
    made.reads.insert(0, ("link", link, start, None))
    slots = made.slots | {"a": quoted(rng)(start), "link": link, "word": word}
    return made, "If the {word} of the {link} of {a} is below {limit}, {then}, else {other}.".format(**slots)


COMPOSED: dict[str, Callable[[random.Random, Domain], Made]] = {
    "second lowest": second_lowest,
    "highest": highest,
    "do to the lower": do_to_the_lower,
    "last but one": last_but_one,
    "total": total,
    "branch behind a link": branch_behind_a_link,
}


def composed(rng: random.Random, number: int, domain: Domain) -> Made:
    """The task of that number, from 1, and its request."""
    made, text = list(COMPOSED.values())[number - 1](rng, domain)
    return made, wordings.capital(text)
