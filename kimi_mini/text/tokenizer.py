"""Byte-level BPE with Kimi K2's special tokens.

K2 cuts text into small pieces with a regular expression (words, digits, punctuation, white space), then
merges frequent byte pairs inside each piece. We do the same with 1024 tokens in place of 163840. Three choices
matter for a small model that reads JSON and does sums:

- every digit is a token of its own, and a space never sticks to it: 47 is always [4][7], wherever it stands;
- a space belongs to the word after it (" olive"), as in K2 and GPT-4;
- the special tokens have the last ids, and text of users and tools never produces one (`allow_special=False`).

Sources: special tokens of moonshotai/Kimi-K2-Thinking (tokenizer_config); pre-tokenisation after cl100k_base.
"""

import json
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from kimi_mini.base.errors import BadFile, MissingFile
from kimi_mini.base.files import write_atomic
from kimi_mini.base.paths import TOKENIZER, in_clone

# K2's names in K2's order. As there, padding is the very last id.
SPECIAL_TOKENS = (
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<think>",
    "</think>",
    "[PAD]",
)

_SPLIT_RULES = (
    r"(?<=\p{L})'(?i:s|t|re|ve|m|ll|d)(?!\p{L})",  # don't -> don 't; but the string 'salt' keeps its s
    r" ?\p{L}+",  # a word, with the space before it
    r"\p{N}",  # one digit, never with a space
    r" ?[^\s\p{L}\p{N}]+",  # a run of punctuation: {" or ":
    r"\s*[\r\n]+",  # line ends
    r"\s+(?!\S)",  # indentation, leaving one space to the word that follows
    r"\s+",
)
SPLIT_PATTERN = "|".join(_SPLIT_RULES)
MEMORY = 32 * 2**20  # bytes that encode_plain may remember
_MARKER = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))


class Tokenizer:
    """Text to ids and back.

    Attributes:
        special: name -> id of the special tokens; all of them lie behind every ordinary id.
        vocab_size: number of ids, special tokens included.
        first_special: ids below this one are ordinary.
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        self.backend = backend
        self.plain = tokenizers.Tokenizer.from_str(backend.to_str())
        self.plain.encode_special_tokens = True  # the same vocabulary, blind to the markers
        self.special = {token.content: index for index, token in backend.get_added_tokens_decoder().items()}
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        missing = [token for token in SPECIAL_TOKENS if token not in self.special]
        if missing:
            raise BadFile(f"not a kimi_mini tokenizer: it lacks the special tokens {', '.join(missing)}")
        self.first_special = min(self.special.values())
        if self.first_special != self.vocab_size - len(self.special):
            raise BadFile("not a kimi_mini tokenizer: special tokens must have the last ids")
        self._recent: dict[str, tuple[int, ...]] = {}  # newest last
        self._recent_bytes, self._lock = 0, threading.Lock()

    @classmethod
    def train(
        cls, texts: Iterable[str | tuple[str, int]], vocab_size: int = 1024, apart: bool = False
    ) -> "Tokenizer":
        """Learn the merges from `texts`: strings, or (string, weight) pairs that count as `weight` copies. `apart`: a
        space is a token of its own.

        Markers in the texts (of rendered chats) only separate: nothing is learned from them or across them.
        If the texts run out of merges, `<|reserved_token_N|>` fill up, so that `vocab_size` is always met.

        Raises:
            ValueError: `vocab_size` leaves no room for the 256 bytes and the special tokens.
        """
        n_ordinary = vocab_size - len(SPECIAL_TOKENS)
        if n_ordinary < 256:
            raise ValueError(f"vocab_size must be at least {256 + len(SPECIAL_TOKENS)}, not {vocab_size}")
        backend = tokenizers.Tokenizer(models.BPE())
        pattern = SPLIT_PATTERN.replace(" ?", "") if apart else SPLIT_PATTERN
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=n_ordinary,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(_repeated(texts), trainer)
        learned = backend.get_vocab_size()
        reserved = [f"<|reserved_token_{index}|>" for index in range(learned, n_ordinary)]
        backend.add_special_tokens([*reserved, *SPECIAL_TOKENS])
        return cls(backend)

    @classmethod
    def load(cls, path: str | Path = TOKENIZER) -> "Tokenizer":
        """Read tokenizer.json, given as the file or as the folder that holds it (default: the shipped one).

        Raises:
            MissingFile, BadFile: no such file, or one that is not a tokenizer of ours; the text names the file.
        """
        file = _json_file(path)
        if not file.is_file():
            raise MissingFile(
                f"no tokenizer at {file}; "
                + in_clone(
                    "python -m kimi_mini.experiments.pretraining.vocabulary makes the shipped one again"
                )
            )
        try:
            return cls(tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8")))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the Rust side raises bare Exception, and BaseException in a panic
            raise BadFile(f"{file} is not a readable tokenizer.json: {error}") from None

    def save(self, path: str | Path) -> Path:
        """Write tokenizer.json (and into a folder also tokenizer_config.json, which transformers reads)."""
        file = _json_file(path)
        write_atomic(file, self.backend.to_str(pretty=False) + "\n")
        if file != Path(path):
            config = {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "[BOS]",
                "eos_token": "[EOS]",  # of documents; a chat turn stops on <|im_end|>
                "pad_token": "[PAD]",
                "clean_up_tokenization_spaces": False,
            }
            write_atomic(file.parent / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
        return file

    def encode(self, text: str, allow_special: bool = True) -> list[int]:
        """Ids of `text`. With `allow_special=False` markers in it are ordinary text, as anything else.

        Lone surrogates, which no UTF-8 text can hold, are read as "?".
        """
        backend = self.backend if allow_special else self.plain
        try:
            return backend.encode(text, add_special_tokens=False).ids
        except TypeError:  # half of a surrogate pair, as JSON's "\\ud800" gives: it has no UTF-8 form
            text = text.encode("utf-8", errors="replace").decode("utf-8")
            return backend.encode(text, add_special_tokens=False).ids

    def encode_plain(self, text: str) -> tuple[int, ...]:
        """`encode(text, allow_special=False)`, which remembers the texts used last, up to MEMORY bytes of them."""
        with self._lock:
            ids = self._recent.pop(text, None)
            if ids is not None:
                self._recent[text] = ids
                return ids
        ids = tuple(self.encode(text, allow_special=False))
        with self._lock:
            self._recent_bytes += _size(text, ids) - _size(text, self._recent.pop(text, None))
            self._recent[text] = ids
            while self._recent_bytes > MEMORY:
                oldest = next(iter(self._recent))
                self._recent_bytes -= _size(oldest, self._recent.pop(oldest))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, markers included. Bytes that are not UTF-8 become U+FFFD.

        Markers are what keeps thought, answer and calls apart, so there is no way to leave them out: `chat.parse_ids`
        reads the parts of a turn. In `transformers`, `decode(..., skip_special_tokens=True)` runs them together.
        """
        return self.backend.decode([int(index) for index in ids], skip_special_tokens=False)

    def token_id(self, token: str) -> int:
        """Id of a special token by its name, or of an ordinary one by its text. Raises KeyError otherwise."""
        if token in self.special:
            return self.special[token]
        ids = self.encode(token, allow_special=False)
        if len(ids) != 1:
            raise KeyError(f"{token!r} is {len(ids)} tokens, not one")
        return ids[0]


def _size(text: str, ids: tuple[int, ...] | None) -> int:
    """Bytes that a remembered text takes: string, tuple, and a Python number an id."""
    return 0 if ids is None else sys.getsizeof(text) + sys.getsizeof(ids) + 32 * len(ids)


def _json_file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / "tokenizer.json"


def _repeated(texts: Iterable[str | tuple[str, int]]) -> Iterable[str]:
    """Cut at markers, and repeat by weight."""
    for item in texts:
        text, weight = (item, 1) if isinstance(item, str) else item
        for part in _MARKER.split(text):
            for _ in range(weight):
                yield part
