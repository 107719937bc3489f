"""Byte-level BPE with Kimi K2's special tokens.

K2 cuts text into small pieces with a regular expression (words, digits, punctuation, white space), then
merges frequent byte pairs inside each piece. We do the same with 1024 tokens in place of 163840. Three choices
matter for a small model that reads JSON and does sums:

- every digit is a token of its own, and a space never sticks to it: 47 is always [4][7], wherever it stands;
- a space belongs to the word after it (" olive"), as in K2 and GPT-4;
- the special tokens have the last ids, and text of users and tools never produces one (`allow_special=False`).

Sources: special tokens of moonshotai/Kimi-K2-Thinking (tokenizer_config); pre-tokenisation after cl100k_base.
"""

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from kimi_mini.base.errors import BadFile, MissingFile
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
        self.first_special = min(self.special.values())
        missing = [token for token in SPECIAL_TOKENS if token not in self.special]
        if missing:
            raise BadFile(f"not a kimi_mini tokenizer: it lacks the special tokens {', '.join(missing)}")
        self.encode_plain = functools.lru_cache(maxsize=8192)(self._encode_plain)

    @classmethod
    def train(cls, texts: Iterable[str | tuple[str, int]], vocab_size: int = 1024) -> "Tokenizer":
        """Learn the merges from `texts`: strings, or (string, weight) pairs that count as `weight` copies.

        Markers in the texts (of rendered chats) only separate: nothing is learned from them or across them.
        If the texts run out of merges, `<|reserved_token_N|>` fill up, so that `vocab_size` is always met.

        Raises:
            ValueError: `vocab_size` leaves no room for the 256 bytes and the special tokens.
        """
        n_ordinary = vocab_size - len(SPECIAL_TOKENS)
        if n_ordinary < 256:
            raise ValueError(f"vocab_size must be at least {256 + len(SPECIAL_TOKENS)}, not {vocab_size}")
        backend = tokenizers.Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated")
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
            MissingFile, BadFile: no such file, or one that is not a tokenizer of ours.
        """
        file = _json_file(path)
        if not file.is_file():
            raise MissingFile(
                f"no tokenizer at {file}; "
                + in_clone("python -m kimi_mini.experiments.vocabulary makes the shipped one again")
            )
        try:
            backend = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # noqa: BLE001 - the Rust side raises bare Exception
            raise BadFile(f"{file} is not a readable tokenizer.json: {error}") from None
        return cls(backend)

    def save(self, path: str | Path) -> Path:
        """Write tokenizer.json (and into a folder also tokenizer_config.json, which transformers reads)."""
        file = _json_file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.backend.to_str(pretty=False) + "\n", encoding="utf-8")
        if file != Path(path):
            config = {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "[BOS]",
                "eos_token": "[EOS]",  # of documents; a chat turn stops on <|im_end|>
                "pad_token": "[PAD]",
                "clean_up_tokenization_spaces": False,
            }
            (file.parent / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
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

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        """`encode(text, allow_special=False)`; as `encode_plain` it remembers the last 8192 texts."""
        return tuple(self.encode(text, allow_special=False))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, markers included. Bytes that are not UTF-8 become U+FFFD."""
        return self.backend.decode([int(index) for index in ids], skip_special_tokens=False)

    def token_id(self, token: str) -> int:
        """Id of a special token by its name, or of an ordinary one by its text. Raises KeyError otherwise."""
        if token in self.special:
            return self.special[token]
        ids = self.encode(token, allow_special=False)
        if len(ids) != 1:
            raise KeyError(f"{token!r} is {len(ids)} tokens, not one")
        return ids[0]


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
