"""World `search`: the index finds, documents are read whole, and an answer counts only if it was found."""

import random
import re

import pytest

from kimi_mini import worlds
from kimi_mini.agent.conversation import opening
from kimi_mini.evaluation.adversary import perform
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.search import library as shelves
from kimi_mini.worlds.search import world
from kimi_mini.worlds.search.adversary import needed
from kimi_mini.worlds.search.library import Library, text, words
from kimi_mini.worlds.tools import ToolError


def library():
    return Library(
        {
            "11": ("tavo", [("town", "mira"), ("friend", "keli")]),
            "22": ("mira", [("land", "boru"), ("guest", "tavo")]),
            "33": ("keli", [("town", "sodu"), ("friend", "nilo")]),
        }
    )


def test_a_search_says_where_and_not_what():
    found = library().search("tavo")
    assert found == "11 tavo, 22 mira", "its own document first, then who names it"
    assert library().search("What is the TOWN of keli?") == "33 keli, 11 tavo, 22 mira"
    assert library().search("nobody") == library().search("") == library().search("?!") == "nothing found"


def test_rare_words_count_for_more():
    assert library().search("friend nilo").startswith("33"), "two have a friend, one names nilo"


def test_at_most_four_are_returned():
    many = Library({str(n): (f"n{n}", [("town", "mira")]) for n in range(10, 30)})
    assert many.search("mira").count(",") == 3


def test_what_is_found_first_does_not_hang_on_the_hashes_of_words(monkeypatch):
    """Two documents of equal worth, whose sums may differ in the last bit when they are added in another order."""
    rarity = {"a": 3, "b": 4, "c": 5, "d": 3, "e": 4, "f": 5}  # word -> documents that have it
    documents = {"11": ("x", [("a", "b"), ("c", "z")]), "22": ("y", [("d", "e"), ("f", "z")])}
    fillers = [word for word, count in rarity.items() for _ in range(count - 1)]
    documents |= {str(number): ("w", [(word, "z")]) for number, word in enumerate(fillers, start=30)}
    found, rng = set(), random.Random(0)
    for _ in range(60):
        order = rng.sample(sorted(rarity), len(rarity))
        word = type(
            "Word", (str,), {"__hash__": lambda self, order=order: order.index(self) if self in order else 9}
        )
        monkeypatch.setattr(shelves, "words", lambda of, word=word: [word(one) for one in words(of)])
        found.add(Library(documents).search("a b c d e f"))
    assert len(found) == 1 and found.pop().startswith(("11 x, 22 y", "22 y, 11 x"))


def test_a_document_is_opened_by_its_number_alone():
    shelf = library()
    assert shelf.open("11") == "The town of tavo is mira. The friend of tavo is keli."
    for number in ("", "12", "tavo", "11 "):
        with pytest.raises(ToolError):
            shelf.open(number)
    assert shelf.done == [("open", "11")]


def test_words_are_those_of_a_reader():
    assert words("The town, of TAVO: 7.") == ["the", "town", "of", "tavo", "7"]


@pytest.mark.parametrize("level", [2, 3, 4])
def test_the_question_is_answered_by_its_chain_and_nothing_else(level):
    rng = random.Random(level)
    for _ in range(40):
        task = worlds.generate(rng, "hops", level)
        documents = task.data["documents"]
        facts = {(subject, relation): value for subject, own in documents.values() for relation, value in own}
        asked = re.findall(r"the (\w+) of", task.prompt)[::-1]
        name = re.search(r"(\w+)[.?]$", task.prompt)[1]
        for number, relation in zip(needed(task), asked, strict=True):
            assert f"The {relation} of {name} is" in text(*documents[number])
            name = facts[name, relation]
        assert name == task.data["chain"][-1] and len(set(needed(task))) == level
        assert all(len({value for _, value in own}) == len(own) for _, own in documents.values())
        assert len(documents) >= level + world.OTHERS


def test_the_answer_stands_in_other_documents_too():
    """Who counts names learns nothing: what is asked for is not told apart by how often it is named."""
    rng, often = random.Random(0), []
    for _ in range(60):
        task = worlds.generate(rng, "hops", 3)
        values = [value for _, own in task.data["documents"].values() for _, value in own]
        often.append(values.count(task.data["chain"][-1]))
    assert min(often) == 1 and max(often) > 2


def test_a_name_from_an_open_document_is_no_answer_without_the_others():
    task = worlds.generate(random.Random(1), "hops", 3)
    talk = perform(WORLDS["search"].kinds[0], task, random.Random(0))
    assert talk.verdict().passed and talk.environment.state.done[0][0] == "search"
    talk.environment.state.done = talk.environment.state.done[2:]
    assert "never opened" in talk.verdict().evidence


def test_the_demo_answers_questions_about_its_own_library():
    for example in world.DEMO.examples:
        task = world.own_task(example)
        assert task.level >= 2 and perform(WORLDS["search"].kinds[0], task, random.Random(0)).verdict().passed
    assert world.own_task("What is the river of tavo?") is None
    assert world.own_task("What is the town of nobody?") is None
    assert "21 tavo" in opening(task).environment.toolbox.call("search", '{"query":"tavo"}').content
