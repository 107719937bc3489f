"""Recall and copy drills: what an agent does all day, before it has anything to say.

Real text alone teaches a tiny model little about looking things up in its context. The drills do: key-value pairs and
spans to repeat, over random tokens. Their loss stays high for some hundred thousand tokens and then falls within a few
more, when the attention has found the rule "look for the last place where this token stood, and say what came next"
(an induction head). Every answer is determined by its sequence, so the loss can go to zero; train until it is below
about 0.3, not for a fixed time.

Sources: associative recall after Zoology (Arora et al. 2023); induction heads after Olsson et al. 2022.
"""

from collections.abc import Callable, Iterable

import numpy as np

Drill = tuple[np.ndarray, np.ndarray]


def recall(rng: np.random.Generator, symbols: np.ndarray) -> Drill:
    """Pairs `k1 v1 k2 v2 ...`, then every key twice in random order; its value is to be learned each time."""
    count = int(rng.integers(2, len(symbols) // 2 + 1))
    pairs = np.stack([symbols[:count], symbols[count : 2 * count]], 1)  # (count, 2)
    asked = pairs[np.concatenate([rng.permutation(count), rng.permutation(count)])]  # (2 count, 2)
    ids = np.concatenate([pairs, asked]).ravel()
    mask = np.zeros(len(ids), bool)
    mask[2 * count + 1 :: 2] = True
    return ids, mask


def copying(rng: np.random.Generator, symbols: np.ndarray) -> Drill:
    """A span, then the span again; its second half is to be learned from the second token on."""
    span = symbols[: int(rng.integers(4, len(symbols) + 1))]
    ids = np.concatenate([span, span])
    return ids, np.arange(len(ids)) > len(span)


def cards(rng: np.random.Generator, symbols: np.ndarray) -> Drill:
    """Cards `a x b sign name end`, of which each bears two of six marks, a of three and b of three others, and a name
    of one to three symbols; then every card twice in random order, asked by its marks: `a b sign name end`.

    No mark alone tells a card. That is how a tool is found: by what it does and what it does it to, among others that
    share one of the two.
    """
    marks, others, (sign, end), rest = symbols[:3], symbols[3:6], symbols[6:8], symbols[8:]
    pairs = rng.permutation([(a, b) for a in marks for b in others])[: int(rng.integers(3, 8))]
    names = np.split(rest[: 3 * len(pairs)], len(pairs))
    shown = [(a, b, name[: int(rng.integers(1, 4))]) for (a, b), name in zip(pairs, names)]
    idle = rest[3 * len(pairs) :]
    ids = [t for a, b, name in shown for t in (a, *idle[: rng.integers(0, 3)], b, sign, *name, end)]
    mask = [False] * len(ids)
    for place in np.concatenate([rng.permutation(len(shown)), rng.permutation(len(shown))]):
        a, b, name = shown[place]
        ids += [a, b, sign, *name, end]
        mask += [False] * 3 + [True] * (len(name) + 1)
    return np.array(ids, np.int32), np.array(mask)


KINDS = {recall: 16, copying: 16, cards: 32}  # and of how many symbols each is made
FIRST = (recall, copying)


def drills(
    rng: np.random.Generator, n_tokens: int, alphabet: np.ndarray, kinds: Iterable[Callable] = FIRST
) -> list[Drill]:
    """Drills of about `n_tokens` tokens together, as many of each kind: pairs (ids int32, mask bool), (T,).

    Each is made of some random members of `alphabet` without repeats: where a symbol stands twice with other
    successors, looking for its last place does not answer.
    """
    kinds, made, size = tuple(kinds), [], 0
    most = max(KINDS[kind] for kind in kinds)
    while size < n_tokens:
        chosen = rng.choice(alphabet, most, replace=False).astype(np.int32)
        kind = kinds[int(rng.random() * len(kinds))]
        made.append(kind(rng, chosen[: KINDS[kind]]))
        size += len(made[-1][0])
    return made
