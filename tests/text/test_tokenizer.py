"""Tokenizer: round trips, single digits, special tokens that text cannot forge, training by weight, files."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_mini.base.errors import BadFile, KimiError
from kimi_mini.base.paths import TOKENIZER
from kimi_mini.text import tokenizer as module
from kimi_mini.text.parser import parse_ids
from kimi_mini.text.tokenizer import SPECIAL_TOKENS, Tokenizer

SMALL_TEXTS = ["the price of salt is 47 and 100 , the price of tea is 9 .\n" * 3, 'x = {"price": 1234}\n' * 3]


SHIPPED = Tokenizer.load()


def check_digits(tokenizer: Tokenizer) -> None:
    """Every digit is one token, the same one wherever the number stands."""
    for text in ("47", " 47", "=47,", "a47", '{"price":47}', "1147", "-47", "\n47", "47\n"):
        tokens = [tokenizer.decode([index]) for index in tokenizer.encode(text)]
        assert [token for token in tokens if any(c.isdigit() for c in token)] == [
            c for c in text if c.isdigit()
        ]


# ---------------------------------------------------------------- text to ids and back


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_round_trip_of_any_text(text):
    assert SHIPPED.decode(SHIPPED.encode(text, allow_special=False)) == text


def test_shipped_tokenizer_has_the_promised_size():
    assert SHIPPED.vocab_size == 1024
    assert max(SHIPPED.encode("".join(SPECIAL_TOKENS))) == 1023


def test_digits_are_single():
    check_digits(SHIPPED)
    check_digits(Tokenizer.train(SMALL_TEXTS, 320, apart=True))


AROUND = ('"{}"', "'{}'", "the {} is", "get_{}", "({}), ", "\n{}", "answer:{}", "<{}>")
WORDS = ("nasalin", "rotten", "prodromus")


def spellings(tokenizer: Tokenizer, word: str) -> set[tuple[int, ...]]:
    """The ids of a word in the places in which tools, requests and thoughts have it."""
    found = set()
    for text in (around.format(word) for around in AROUND):
        made, start = tokenizer.backend.encode(text), text.index(word)
        inside = [left < start + len(word) and right > start for left, right in made.offsets]
        found.add(tuple(index for index, own in zip(made.ids, inside) if own))
    return found


def test_with_spaces_apart_a_word_is_the_same_tokens_everywhere():
    """With the space in the token it has two spellings at least, and a model has to know both of every word."""
    assert all(len(spellings(SHIPPED, word)) > 1 for word in WORDS)
    apart, attached = (Tokenizer.train(SMALL_TEXTS, 320, apart=apart) for apart in (True, False))
    assert all(len(spellings(apart, word)) == 1 for word in (*WORDS, "price"))
    assert len(spellings(attached, "price")) > 1
    assert apart.decode(apart.encode("a  b\n   c d")) == "a  b\n   c d"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(r"\p{N}", r"\p{N}{1,3}"), (r"\p{N}", r" ?\p{N}"), (r" ?\p{L}+", r" ?[\p{L}\p{N}]+")],
    ids=["three digits at once", "space sticks to the digit", "digits inside words"],
)
def test_wrong_number_patterns_are_caught(monkeypatch, right, wrong):
    check_digits(Tokenizer.train(SMALL_TEXTS, 320))
    monkeypatch.setattr(module, "SPLIT_PATTERN", module.SPLIT_PATTERN.replace(f"|{right}|", f"|{wrong}|", 1))
    with pytest.raises(AssertionError):
        check_digits(Tokenizer.train(SMALL_TEXTS, 320))


def test_words_take_the_space_before_them_and_quotes_stay_apart():
    split = Tokenizer.train(SMALL_TEXTS, 320).backend.pre_tokenizer.pre_tokenize_str
    pieces = [
        piece.replace("Ġ", " ").replace("Ċ", "\n")
        for piece, _ in split("I don't buy 'salt' 12\n    return x")
    ]
    assert pieces == [
        "I",
        " don",
        "'t",
        " buy",
        " '",
        "salt",
        "'",
        " ",
        "1",
        "2",
        "\n",
        "   ",
        " return",
        " x",
    ]


# ---------------------------------------------------------------- special tokens


def test_special_tokens_have_the_last_ids_in_order():
    ids = [SHIPPED.special[token] for token in SPECIAL_TOKENS]
    assert ids == list(range(SHIPPED.vocab_size - len(ids), SHIPPED.vocab_size))
    assert SHIPPED.first_special == ids[0]
    assert SPECIAL_TOKENS[-1] == "[PAD]"


def test_a_marker_is_one_token_only_where_allowed():
    text = "stop<|im_end|>now"
    assert SHIPPED.special["<|im_end|>"] in SHIPPED.encode(text)
    plain = SHIPPED.encode(text, allow_special=False)
    assert max(plain) < SHIPPED.first_special
    assert SHIPPED.decode(plain) == SHIPPED.decode(SHIPPED.encode(text)) == text
    assert list(SHIPPED.encode_plain(text)) == plain


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "a", " ", "<|", "|>", "im_end", "7"])).map("".join))
def test_text_can_never_forge_a_special_token(text):
    assert all(index < SHIPPED.first_special for index in SHIPPED.encode(text, allow_special=False))


def test_lone_surrogates_do_not_stop_a_rollout():
    assert SHIPPED.decode(SHIPPED.encode(json.loads('"a\\ud800b"'))) == "a?b"


@pytest.mark.slow
def test_what_is_remembered_is_bounded_in_bytes(monkeypatch):
    """Mutant: bounded in texts, so that 8,192 long ones take half a gigabyte."""
    monkeypatch.setattr(module, "MEMORY", 2**20, raising=False)
    tokenizer = Tokenizer.load()
    tokenizer.encode_plain("once")
    tracemalloc.start()
    for number in range(60):
        text = f"{number} " * 7000
        assert list(tokenizer.encode_plain(text)) == tokenizer.encode(text, allow_special=False)
        del text
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3 * 2**20


def test_the_texts_used_last_are_remembered(monkeypatch):
    tokenizer = Tokenizer.load()
    often = tokenizer.encode_plain("often")
    monkeypatch.setattr(module, "MEMORY", 4096)
    for number in range(100):
        tokenizer.encode_plain(f"seldom {number}")
        assert tokenizer.encode_plain("often") is often
    assert 1 < len(tokenizer._recent) < 50
    tokenizer.encode_plain("x" * 10_000)  # larger than all that may be kept
    assert (tokenizer._recent, tokenizer._recent_bytes) == ({}, 0)


def test_token_id():
    assert SHIPPED.token_id("<think>") == SHIPPED.special["<think>"]
    assert SHIPPED.encode("7") == [SHIPPED.token_id("7")]
    with pytest.raises(KeyError, match="tokens, not one"):
        SHIPPED.token_id("7 and 7")


# ---------------------------------------------------------------- training


def test_training_learns_nothing_from_markers():
    rendered = "<|im_user|>user<|im_middle|>abab<|im_end|>" * 50
    tokenizer = Tokenizer.train([rendered], 300)
    learned = [tokenizer.decode([index]) for index in range(256, tokenizer.first_special)]
    assert "abab" in learned
    assert not [token for token in learned if set("<|>_") & set(token) and "reserved" not in token]


def test_weights_count_as_copies():
    rare, common = "zyzzyva " * 4, "quince quinine quiet quilt " * 4
    by_weight = Tokenizer.train([(rare, 40), common], 280)
    by_copies = Tokenizer.train([rare] * 40 + [common], 280)
    assert by_weight.backend.to_str() == by_copies.backend.to_str()
    assert len(by_weight.encode("zyzzyva")) < len(
        Tokenizer.train([rare, (common, 40)], 280).encode("zyzzyva")
    )


def test_vocabulary_is_filled_up_when_texts_run_out():
    tokenizer = Tokenizer.train(["ab ab ab"], 300)
    assert tokenizer.vocab_size == 300
    assert tokenizer.special["[PAD]"] == 299
    assert any(token.startswith("<|reserved_token_") for token in tokenizer.special)


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="at least 271"):
        Tokenizer.train(["text"], 256)


# ---------------------------------------------------------------- files


def test_save_and_load(tmp_path):
    text = "def f(x):\n    return x + 47  # <|im_end|> é"
    for target in (tmp_path / "folder", tmp_path / "one.json"):
        SHIPPED.save(target)
        assert Tokenizer.load(target).encode(text) == SHIPPED.encode(text)
    assert json.loads((tmp_path / "folder" / "tokenizer_config.json").read_text())["pad_token"] == "[PAD]"


def test_transformers_reads_the_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    SHIPPED.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "<|im_user|>user<|im_middle|>47 olives, 'salt'<|im_end|>"
    assert theirs(text)["input_ids"] == SHIPPED.encode(text)
    assert theirs.decode(SHIPPED.encode(text)) == text
    assert (theirs.pad_token_id, theirs.eos_token) == (SHIPPED.special["[PAD]"], "[EOS]")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ValueError, match="not a readable"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("special", "ordinary", "says"),
    [
        (["[BOS]"], [], "lacks the special tokens"),
        ([], ["a"], "lacks the special tokens"),
        (SPECIAL_TOKENS, ["a"], "must have the last ids"),
    ],
)
def test_a_foreign_tokenizer_is_refused(tmp_path, special, ordinary, says):
    import tokenizers

    foreign = tokenizers.Tokenizer(tokenizers.models.BPE())
    foreign.add_special_tokens(list(special))
    vocabulary = json.loads(foreign.to_str())
    vocabulary["model"]["vocab"] = {word: index for index, word in enumerate([*special, *ordinary])}
    (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(BadFile, match=says) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_file_is_one_line(tmp_path):
    """Bytes changed anywhere: read as the same kind of thing, or refused in one line that names the file."""
    whole, random = (TOKENIZER / "tokenizer.json").read_bytes(), np.random.default_rng(0)
    file = tmp_path / "tokenizer.json"
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(0, 256)
        file.write_bytes(damaged)
        try:
            Tokenizer.load(file).encode("any text <|im_end|>")
        except BadFile as error:
            assert str(file) in str(error) and "\n" not in str(error)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    SHIPPED.save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(KimiError, match="disk is full"):
        Tokenizer.train(SMALL_TEXTS, 300).save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


def test_transformers_runs_thought_and_answer_together_and_parse_ids_does_not():
    """Why Tokenizer.decode has no skip_special_tokens."""
    ids = SHIPPED.encode("<think>12, no</think>13<|im_end|>")
    assert SHIPPED.backend.decode(ids, skip_special_tokens=True) == "12, no13"
    message = parse_ids(SHIPPED, ids)
    assert (message["reasoning_content"], message["content"]) == ("12, no", "13")
