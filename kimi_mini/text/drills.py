"""Recall and copy drills: what an agent does all day, before it has anything to say.

Real text alone teaches a tiny model little about looking things up in its context. The drills do: key-value pairs and
spans to repeat, over random tokens. Their loss stays high for some hundred thousand tokens and then falls within a few
more, when the attention has found the rule "look for the last place where this token stood, and say what came next"
(an induction head). Every answer is determined by its sequence, so the loss can go to zero; train until it is below
about 0.3, not for a fixed time.

Sources: associative recall after Zoology (Arora et al. 2023); induction heads after Olsson et al. 2022.
"""

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


def drills(rng: np.random.Generator, n_tokens: int, alphabet: np.ndarray, symbols: int = 16) -> list[Drill]:
    """Drills of about `n_tokens` tokens together, half recall and half copying: pairs (ids int32, mask bool), (T,).

    Each is made of `symbols` random members of `alphabet` without repeats: where a symbol stands twice with other
    successors, looking for its last place does not answer.
    """
    made, size = [], 0
    while size < n_tokens:
        chosen = rng.choice(alphabet, symbols, replace=False).astype(np.int32)
        kind = recall if rng.random() < 0.5 else copying
        made.append(kind(rng, chosen))
        size += len(made[-1][0])
    return made
