"""World `search`: a question whose answer lies several documents away; tools search a library and open documents.

Family
    hops    follow a chain of facts, each in a document of its own (level: hops)

Names are invented anew for each task, so nothing can be known beforehand. Other documents name the same things and have
facts of the same kind. What counts is the answer, and that every document it rests on was opened: no lucky guess.
"""

from __future__ import annotations

import random
import re

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
    plain,
    turn,
)
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.rows import Row
from kimi_mini.worlds.search.adversary import KINDS, SHORTCUTS, needed
from kimi_mini.worlds.search.library import Library
from kimi_mini.worlds.tools import Toolbox

RELATIONS = ("town", "land", "chief", "friend", "owner", "maker", "river", "guest")
QUESTIONS = ("What is {}?", "Find {}.", "I want to know {}.")
OTHERS = 6  # documents beside those that are needed, at least; as many again at random

# -- tasks ---------------------------------------------------------------------------------------------


def generate(rng: random.Random, family: str, level: int) -> Task:
    """A chain of `level` facts, in a library with other documents that name the same things."""
    path = rng.choices(RELATIONS, k=level)
    others = OTHERS + rng.randrange(OTHERS)
    names = invented(rng, level + 1 + others)
    chain, strangers = names[: level + 1], names[level + 1 :]
    library = [_about(rng, name, names, {path[i]: chain[i + 1]}) for i, name in enumerate(chain[:-1])]
    library += [_about(rng, name, names, {}) for name in strangers]
    rng.shuffle(library)
    numbers = rng.sample(range(10, 100), len(library))
    documents = {str(number): list(document) for number, document in zip(numbers, library)}
    asked = "".join(f"the {relation} of " for relation in reversed(path)) + chain[0]
    prompt = rng.choice(QUESTIONS).format(asked)
    return Task("search", family, level, prompt, {"path": path, "chain": chain, "documents": documents})


def _about(rng: random.Random, subject: str, names: list[str], fixed: dict[str, str]) -> tuple[str, list]:
    """A document with three facts about a name, those that are `fixed` among them."""
    more = rng.sample([relation for relation in RELATIONS if relation not in fixed], 3 - len(fixed))
    others = [name for name in names if name != subject and name not in fixed.values()]
    facts = fixed | dict(zip(more, rng.sample(others, len(more))))
    return subject, [[relation, facts[relation]] for relation in rng.sample(sorted(facts), len(facts))]


def open_environment(task: Task) -> Environment:
    """The library as the task has it, and the tools over it."""
    documents = {number: (subject, facts) for number, (subject, facts) in task.data["documents"].items()}
    library = Library(documents)
    return Environment(Toolbox(library.tools()), library)


# -- the expert ----------------------------------------------------------------------------------------


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """Goes from fact to fact, by what comes back. `mistake="slip"` takes another fact of a document, or opens the
    document of another name; `mistake="lazy"` answers with what it read first."""
    path, name = task.data["path"], task.data["chain"][0]
    slip = rng.randrange(task.level) if mistake == "slip" else None
    for step, relation in enumerate(path):
        found = yield turn(f"{relation} of {name}, search {name}", call=("search", {"query": name}))
        hits = {hit.split()[-1]: hit.split()[0] for hit in found.split(", ")}  # subject -> number
        about, wrong = name, [subject for subject in hits if subject != name]
        if name not in hits:  # only behind a mistake
            break
        if step == slip and wrong and rng.random() < 0.5:
            about = rng.choice(wrong)
        read = yield turn(f"{about} is {hits[about]}", call=("open", {"number": hits[about]}))
        facts = dict(re.findall(r"The (\w+) of \w+ is (\w+)\.", read))
        if (step == slip and about == name) or relation not in facts:
            relation = rng.choice([other for other in facts if other != relation])
        name = facts[relation]
        if mistake == "lazy":
            break
    yield turn(f"{relation} is {name}, end", content=name)


# -- the verifier --------------------------------------------------------------------------------------


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """The name at the end of the chain, from an assistant that had opened every document of it before it answered,
    and not simply all that there are."""
    answer, right = final_answer(messages), task.data["chain"][-1]
    if not answer or answers_early(messages):
        return Verdict(False, "no answer, or it went on behind it")
    if plain(answer).lower() != right:
        return Verdict(False, f"answered {answer[:20]!r}, right is {right}")
    calls, most = sum(message.get("role") == "tool" for message in messages), most_calls(2 * task.level)
    if calls > most:
        return Verdict(False, f"{calls} calls, where {most} are plenty")
    opened = [number for what, number in environment.state.done if what == "open"]
    if unread := [number for number in needed(task) if number not in opened]:
        return Verdict(False, f"document {unread[0]} was never opened")
    if len(set(opened)) > most // 2:
        return Verdict(False, f"{len(set(opened))} documents were opened, where {task.level} say it all")
    return Verdict(True, f"{right}, by documents {', '.join(needed(task))}")


# -- what the others have to know ----------------------------------------------------------------------

HOUSE = {
    "21": ["tavo", [["town", "mira"], ["friend", "keli"], ["owner", "boru"]]],
    "57": ["mira", [["river", "sodu"], ["land", "boru"], ["chief", "nilo"]]],
    "34": ["boru", [["chief", "keli"], ["guest", "tavo"], ["town", "sodu"]]],
    "88": ["keli", [["friend", "nilo"], ["maker", "boru"], ["river", "mira"]]],
    "46": ["nilo", [["land", "mira"], ["town", "sodu"], ["guest", "tavo"]]],
}


def own_task(said: str) -> Task | None:
    """A question about the demo's library: a chain of its relations that ends in one of its names."""
    found = re.search(rf"((?:the (?:{'|'.join(RELATIONS)}) of )+)(\w+)", said)
    numbers = {subject: number for number, (subject, _) in HOUSE.items()}
    if not found or found[2] not in numbers:
        return None
    path, chain = re.findall(r"the (\w+) of", found[1])[::-1], [found[2]]
    for relation in path:
        facts = dict(HOUSE[numbers[chain[-1]]][1]) if chain[-1] in numbers else {}
        if relation not in facts:
            return None
        chain.append(facts[relation])
    return Task("search", "hops", len(path), said, {"path": path, "chain": chain, "documents": HOUSE})


DEMO = Demo(
    own_task,
    examples=("What is the land of the town of tavo?", "Find the chief of the land of the town of tavo."),
    place="\n".join(
        f"{number} {', '.join(f'{r} of {s} {v}' for r, v in facts)}" for number, (s, facts) in HOUSE.items()
    ),
    left=lambda task, environment: "; ".join(f"{what} {word}" for what, word in environment.state.done),
)

FAMILIES = {"hops": Family(range(2, 5), {}, length=420)}
ROWS = (Row("search/hops", "hops", says="answer a question over two to four documents"),)

register(
    World(
        "search",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        bare=True,
        colour="#999933",
        shortcuts=SHORTCUTS,
        demo=DEMO,
    )
)
