"""What a model reads and is asked about people who do not exist: pages, questions and recitals as training examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kimi_mini.text import rephrase
from kimi_mini.text.rephrase import Person
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example

GROUP = 3  # people on a page


def vocabulary() -> Tokenizer:
    """A tokenizer in which every word of the pages is one token, a year four."""
    rng = np.random.default_rng(0)
    some = rephrase.people(1000, rng)
    texts = [rephrase.rewrite(rephrase.page([person]), rng)[0] for person in some]
    texts += [rephrase.page([person]) for person in some]
    texts += [form.format(x=person.name) for person in some for form in rephrase.QUESTIONS.values()]
    return Tokenizer.train(texts, 2048)


def text_example(tokenizer: Tokenizer, text: str) -> Example:
    """A page; every token is learned."""
    ids = [*tokenizer.encode(text), tokenizer.special["[EOS]"]]
    return Example(np.array(ids, np.int32), np.ones(len(ids), bool))


def question(tokenizer: Tokenizer, person: Person, attribute: str) -> Example:
    """A question; its answer is learned, up to the end mark."""
    asked = tokenizer.encode(rephrase.QUESTIONS[attribute].format(x=person.name))
    answer = [*tokenizer.encode(" " + person.values[attribute]), tokenizer.special["[EOS]"]]
    return Example(np.array(asked + answer, np.int32), np.arange(len(asked + answer)) >= len(asked))


def recital(tokenizer: Tokenizer, person: Person, attribute: str) -> Example:
    """The raw sentences about a person, up to a value; that value counts. Knowing it by heart is enough here."""
    text = rephrase.page([person])
    value = tokenizer.encode(" " + person.values[attribute])
    ids = tokenizer.encode(text[: text.index(person.values[attribute]) - 1]) + value
    return Example(np.array(ids, np.int32), np.arange(len(ids)) >= len(ids) - len(value))


def questions(tokenizer: Tokenizer, group: Sequence[Person]) -> list[Example]:
    """Everything one can ask about a group."""
    return [question(tokenizer, person, attribute) for person in group for attribute in rephrase.QUESTIONS]


def pages(group: Sequence[Person]) -> list[str]:
    """Raw pages, GROUP people each."""
    return [rephrase.page(group[i : i + GROUP]) for i in range(0, len(group), GROUP)]
