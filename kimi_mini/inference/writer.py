"""The one decoding loop: rows join, every step writes one token in each of them, finished rows leave.

`generate` (plain continuation), `write` (thinking budgets) and the agent's local policy stand on it. A row is one turn
being written; a place is one row of the latent cache, which keeps what it holds when a turn is over: the next turn that
joins there feeds only what the place does not hold yet, and rewinds what it holds too much.

A row's dice are its own. So what it writes does not depend on its neighbours, their number or their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kimi_mini.inference.adapters import AdaptedDecoder, Adapters
from kimi_mini.inference.decoder import Decoder
from kimi_mini.inference.sampling import COLDEST, sample
from kimi_mini.text.tokenizer import Tokenizer

PERIOD, SHORTEST = 32, 16  # tokens: the longest stretch whose repetition is seen, and the fewest in all


class Marks(NamedTuple):
    """Ids of the tokens that open and close a thought. A call ends it too, closed or not (as the parser reads it)."""

    think: int
    close: int
    calls: int
    end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Marks:
        names = ("<think>", "</think>", "<|tool_calls_section_begin|>", "<|im_end|>")
        return cls(*(tokenizer.token_id(name) for name in names))


def stops_of(model, tokenizer: Tokenizer | None = None) -> frozenset[int]:
    """Every id that ends a turn: those of the config, and with a tokenizer the ends of a message and of a text.

    A model in training has no ends in its config yet; it must not write on behind one, and be trained on that.
    """
    eos = model.config.eos_token_id
    ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    if tokenizer is not None:
        ids += [tokenizer.special[name] for name in ("<|im_end|>", "[EOS]")]
    return frozenset(ids)


def dice(*seeds: int) -> np.random.Generator:
    """The random numbers of one row, from any whole numbers that name it; -1 and 1 are two of them."""
    named = [seed if seed >= 0 else seed % 2**64 for seed in seeds]  # numpy takes no negative ones
    return np.random.default_rng(np.random.SeedSequence(named))


@dataclass
class Row:
    """One turn while it is written.

    context: the tokens before it. most: how many tokens the model may write. stops: ids that end it. dice: its random
    numbers (None: greedy). budget: most tokens of a thought, with marks to tell one; a hard stop puts </think> in place
    of the next token, which is then ours: not sampled (log-probability 0), not counted, never trained on.
    target: tokens of a thought from which on the model is hurried: </think> gets `nudge` nats more with each further
    token, and is the model's own when it comes. hurried: it came so.
    allowed: asked before every token with the row as it stands; a mask of V bytes, 0 for the tokens that may not come
    next, or None for any. The token is drawn from what is allowed, and so is its log-probability.
    adapter: the name of the adapter that writes it, where the model is an `inference.adapters.Adapters`; None: none.
    temperature, top_p: its own, see `sample`; None: the writer's temperature.
    looks: told the logits of the next token, (V,), before it is drawn and before anything is masked.
    loops: ends the row where it has written the same so many times in a row, see `looping`; 0: it may go on.
    finish: "stop" at an end, "length" when its tokens or its place in the cache are used up, "loops" where it repeats.
    """

    context: list[int]
    most: int
    stops: frozenset[int]
    dice: np.random.Generator | None = None
    budget: int | None = None
    marks: Marks | None = None
    allowed: Callable[[Row], bytes | None] | None = None
    adapter: str | None = None
    temperature: float | None = None
    top_p: float = 1.0
    looks: Callable[[Tensor], None] | None = None
    target: int | None = None
    nudge: float = 0.0
    loops: int = 0
    ids: list[int] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    thought: list[bool] = field(default_factory=list)
    finish: str | None = None
    thinking: bool = False
    stopped: bool = False  # by us
    hurried: bool = False
    written: int = 0
    thought_tokens: int = 0

    def add(self, token: int, own: bool, logprob: float = 0.0) -> None:
        """Append a token; a thought begins behind <think> and ends before </think>, a call or the end."""
        opens = self.marks is not None and token == self.marks.think
        if token in self.stops or (self.marks is not None and token in self.marks[1:]):
            self.thinking = False
        self.ids.append(token)
        self.own.append(own)
        self.logprobs.append(logprob)
        self.thought.append(self.thinking and not opens)
        self.written += own
        self.thought_tokens += self.thought[-1]
        self.thinking |= opens

    @property
    def hurry(self) -> float:
        """Nats that </think> has more than the model gives it, before the next token."""
        late = self.thinking and self.target is not None and self.thought_tokens - self.target + 1
        return self.nudge * max(0, late)

    def take(self, token: int, logprob: float) -> None:
        """The model's next token, unless the budget is spent: then </think>, which is ours."""
        self.hurried |= self.hurry > 0 and token == self.marks.close
        spent = self.thinking and self.budget is not None and self.thought_tokens >= self.budget
        # a thought that just fits is not cut
        if spent and token not in self.marks[1:] and token not in self.stops:
            self.add(self.marks.close, own=False)
            self.stopped = True
        else:
            self.add(token, True, logprob)
        if self.ids[-1] in self.stops:
            self.finish = "stop"
        elif self.written >= self.most:
            self.finish = "length"
        elif self.loops and looping(self.ids, self.loops):
            self.finish = "loops"


def looping(ids: Sequence[int], times: int) -> bool:
    """Whether the last tokens are the same stretch of up to PERIOD of them again and again: so many times or more, and
    SHORTEST tokens in all, so that a row of equal digits is none."""
    for period in range(1, min(PERIOD, len(ids) - 1) + 1):
        span = max(times * period, SHORTEST)
        if span > len(ids):
            return False
        if ids[-1 - period] == ids[-1] and ids[-span:-period] == ids[period - span :]:
            return True
    return False


def inside_thought(ids: Sequence[int], tokenizer: Tokenizer) -> list[bool]:
    """(n,) True between <think> and whatever ends the thought, tags excluded."""
    row = Row([], len(ids), frozenset({tokenizer.special["[EOS]"]}), marks=Marks.of(tokenizer))
    for token in ids:
        row.add(token, own=True)
    return row.thought


class Writer:
    """Writes in up to `places` rows of at most `max_length` tokens each; `temperature`: of rows without their own."""

    def __init__(self, model, places: int, max_length: int, temperature: float = 0.0):
        decoder = AdaptedDecoder if isinstance(model, Adapters) else Decoder
        self.decoder, self.temperature = decoder(model, places, max_length), temperature
        self.max_length = max_length
        self.held: list[list[int]] = [[] for _ in range(places)]  # tokens in each place of the cache
        self.worn: list[str | None] = [None] * places  # whose latents they are
        self.rows: dict[int, Row] = {}  # place -> the turn that is written there
        self.pending: list[list[int]] = [[] for _ in range(places)]

    def join(self, place: int, row: Row) -> None:
        """Begin to write `row` in a place. What the place holds of its beginning is not fed again."""
        wanted = row.context + row.ids
        keep = min(common_prefix(self.held[place], wanted), len(wanted) - 1)
        if row.adapter != self.worn[place]:
            self.decoder.wear(place, row.adapter)
            self.worn[place], keep = row.adapter, 0
        if keep < len(self.held[place]):
            lengths = list(self.decoder.cache.host_lengths)
            lengths[place] = keep
            self.decoder.truncate(lengths)
            del self.held[place][keep:]
        self.rows[place], self.pending[place] = row, wanted[keep:]

    def borrow(self, place: int, row: Row) -> None:
        """Before `row` joins: copy what another place holds of its beginning, if its own holds less."""
        shared = [
            common_prefix(held, row.context) if worn == row.adapter else 0
            for held, worn in zip(self.held, self.worn)
        ]
        source = max(range(len(shared)), key=shared.__getitem__)
        if shared[source] > shared[place]:
            self.decoder.wear(place, row.adapter)
            self.worn[place], self.held[place] = row.adapter, self.held[source][: shared[source]]
            self.decoder.cache.copy(source, place, shared[source])

    def read(self, place: int) -> None:
        """Feed what a row that has joined has to read, up to its last token, while the others wait. Then every step
        feeds one token a row, and no row's sums depend on how long another's prompt is."""
        *prompt, last = self.pending[place]
        if prompt:
            self.decoder.read(place, prompt)
            self.held[place] += prompt
            self.pending[place] = [last]

    def leave(self, place: int) -> None:
        """Give up the turn that is written in a place; what the place holds stays for the next one."""
        del self.rows[place]
        self.pending[place] = []

    @torch.no_grad()
    def step(self) -> list[int]:
        """One token for every row; returns the places whose rows have ended."""
        logits = self.decoder.extend(self.pending)  # (places, V)
        for held, pending in zip(self.held, self.pending):
            held += pending
        self.pending = [[] for _ in self.held]
        live = list(self.rows)
        ids, logprobs = self._sample(logits[live], [self.rows[place] for place in live])
        ended = []
        for place, token, logprob in zip(live, ids, logprobs):
            row = self.rows[place]
            row.take(token, logprob)
            if row.finish is None and len(self.held[place]) == self.max_length:
                row.finish = "length"
            if row.finish is None:
                self.pending[place] = [row.ids[-1]]
            else:
                ended.append(place)
                del self.rows[place]
        return ended

    def _sample(self, logits: Tensor, rows: Sequence[Row]) -> tuple[list[int], list[float]]:
        """logits (N, V) -> a token and its log-probability for each row."""
        for index, row in enumerate(rows):
            if row.looks is not None:
                row.looks(logits[index])
        hurries = logits.new_tensor([row.hurry for row in rows])
        if hurries.any():
            ends = [0 if row.marks is None else row.marks.close for row in rows]
            logits = logits.index_put((torch.arange(len(rows)), torch.tensor(ends)), hurries, accumulate=True)
        masks = [None if row.allowed is None else row.allowed(row) for row in rows]
        if any(mask is not None for mask in masks):
            if (none := bytes(logits.shape[1])) in masks:
                stuck = rows[masks.index(none)]
                raise ValueError(f"no token is allowed behind the {len(stuck.ids)} tokens of a row")
            logits = torch.where(matrix(masks, logits.shape[1]).to(logits.device), logits, float("-inf"))
        alike: dict[tuple[float, float], list[int]] = {}
        for index, row in enumerate(rows):
            temperature = self.temperature if row.temperature is None else row.temperature
            alike.setdefault((temperature, row.top_p), []).append(index)
        drawn: list[tuple[int, float]] = [(0, 0.0)] * len(rows)
        for (temperature, top_p), places in alike.items():
            throws = None
            if temperature >= COLDEST:
                throws = [rows[place].dice.random() for place in places]
                throws = torch.tensor(throws, dtype=torch.float64, device=logits.device)
            found = sample(logits[places], temperature, dice=throws, top_p=top_p)
            for place, *one in zip(places, *(values.tolist() for values in found)):
                drawn[place] = tuple(one)
        ids, logprobs = zip(*drawn)
        return list(ids), list(logprobs)

    def run(self) -> None:
        """Write until every row has ended."""
        while self.rows:
            self.step()

    def select(self, places: Sequence[int]) -> None:
        """Keep these places, in this order, and what is written in them; the others are forgotten."""
        self.decoder.select(places)
        self.held = [self.held[place] for place in places]
        self.worn = [self.worn[place] for place in places]
        self.pending = [self.pending[place] for place in places]
        self.rows = {new: self.rows[old] for new, old in enumerate(places) if old in self.rows}


def matrix(masks: Sequence[bytes | None], size: int) -> Tensor:
    """The masks of a step's rows as one, (N, V) bool: the bytes side by side, and nothing else for each row."""
    free = b"\1" * size
    side_by_side = bytearray().join(free if mask is None else mask for mask in masks)
    return torch.frombuffer(side_by_side, dtype=torch.uint8).view(len(masks), size).bool()


def common_prefix(first: list[int], second: list[int]) -> int:
    """How many tokens two lists have in common at their beginning."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # halving compares slices, which is quicker than token by token
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
