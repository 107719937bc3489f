"""Corpus: documents that never leak into validation, packing that loses nothing."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from kimi_mini.base.errors import KimiError
from kimi_mini.text import corpus
from kimi_mini.text.corpus import Document
from kimi_mini.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load()
EOS = TOKENIZER.special["[EOS]"]
DOCUMENTS = corpus.default_documents(max_stdlib_bytes=400_000)


# ---------------------------------------------------------------- documents


def test_the_book_is_whole():
    chapters = corpus.book_documents()
    assert len(chapters) == 136
    assert chapters[0].text.startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.")
    assert chapters[-1].text.endswith("only found another orphan.")
    assert sum(len(chapter.text) for chapter in chapters) > 1_100_000
    with pytest.raises(FileNotFoundError, match=r"data/text/README.md"):
        corpus.book_documents("nowhere.txt")


def test_the_library_comes_in_a_fixed_order_and_under_its_cap():
    some = corpus.stdlib_documents(max_bytes=400_000)
    assert some == corpus.stdlib_documents(max_bytes=400_000)
    assert 200_000 < sum(len(document.text.encode()) for document in some) <= 400_000
    names = [document.name for document in some]
    assert names != sorted(names)  # a cap must not mean "a to c"
    more = corpus.stdlib_documents(max_bytes=800_000)
    assert more[: len(some)] == some


def test_the_library_leaves_out_tests_packages_and_tables(tmp_path):
    kept = {"json/decoder.py", "abc.py"}
    skipped = {
        "test/test_abc.py",
        "unittest/test/case.py",
        "site-packages/torch.py",
        "idlelib/a.py",
        "encodings/cp037.py",
        "_sysconfigdata__linux.py",
        "config-3.11-x86/python-config.py",
        "html/entities.py",
        "readme.txt",
    }
    for name in kept | skipped | {"empty.py"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("" if name == "empty.py" else f"# {name}\n")
    found = corpus.stdlib_documents(folder=tmp_path)
    assert {document.name for document in found} == {f"stdlib/{name}" for name in kept}


# ---------------------------------------------------------------- the split


def check_no_leak(split_tokens) -> None:
    """No document puts tokens on both sides, copies of it under other names included.

    Like real ones these documents repeat phrases of their own, so a document cut in two shows.
    """
    rng = np.random.default_rng(0)
    texts = [(" ".join(map(str, rng.integers(0, 10**6, 5))) + "\n") * 12 for _ in range(60)]
    documents = [Document(f"document {n}", text) for n, text in enumerate(texts)]
    documents += [Document(f"copy of {n}", text) for n, text in enumerate(texts)]
    training, validation = split_tokens(documents)
    assert len(validation) > 0
    assert len(training) > 3 * len(validation)
    grams = [
        {tuple(side[i : i + 12].tolist()) for i in range(len(side) - 12)} for side in (training, validation)
    ]
    assert not grams[0] & grams[1]


def our_split(documents):
    sides = corpus.split(corpus.without_copies(documents), 0.1)
    return [corpus.token_stream(TOKENIZER, side) for side in sides]


def split_by_position(documents):
    """Wrong: the first seventh of the tokens."""
    stream = corpus.token_stream(TOKENIZER, corpus.without_copies(documents))
    cut = len(stream) // 7
    return stream[cut:], stream[:cut]


def split_by_window(documents):
    """Wrong: every tenth window."""
    windows = corpus.pack(corpus.token_stream(TOKENIZER, corpus.without_copies(documents)), 64)
    held_out = np.arange(len(windows)) % 10 == 0
    return windows[~held_out].reshape(-1), windows[held_out].reshape(-1)


def split_with_copies(documents):
    """Wrong: copies under other names fall on both sides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "refuse_leak", lambda training, validation: None)
        return [corpus.token_stream(TOKENIZER, side) for side in corpus.split(documents, 0.1)]


def test_no_validation_document_leaks():
    check_no_leak(our_split)


@pytest.mark.parametrize("mutant", [split_by_position, split_by_window, split_with_copies])
def test_leaking_splits_are_caught(mutant):
    with pytest.raises(AssertionError):
        check_no_leak(mutant)


def test_the_real_split():
    training, validation = corpus.split(DOCUMENTS)
    assert len(training) + len(validation) == len(DOCUMENTS)
    assert not {d.name for d in training} & {d.name for d in validation}
    assert not {d.text for d in training} & {d.text for d in validation}
    assert {d.name.split("/")[0] for d in validation} == {"stdlib", "moby-dick"}


def test_a_document_keeps_its_side_whatever_else_is_there():
    _, validation = corpus.split(DOCUMENTS)
    _, of_fewer = corpus.split(DOCUMENTS[::2])
    assert {d.name for d in of_fewer} == {d.name for d in validation} & {d.name for d in DOCUMENTS[::2]}
    _, of_more = corpus.split(DOCUMENTS, 0.2)
    assert {d.name for d in validation} < {d.name for d in of_more}
    with pytest.raises(ValueError, match="validation_share"):
        corpus.split(DOCUMENTS, 1.0)


def test_a_held_out_document_that_is_trained_on_is_refused():
    """Under its own name, and as a copy with other spaces under another name."""
    training, validation = corpus.split(DOCUMENTS)
    corpus.refuse_leak(training, validation)
    with pytest.raises(KimiError, match=validation[0].name):
        corpus.refuse_leak([*training, validation[0]], validation)
    copy = Document("a fork/of it.py", validation[-1].text.replace("\n", "\r\n") + "\n")
    with pytest.raises(KimiError, match="a fork/of it.py"):
        corpus.refuse_leak([copy, *training], validation)
    with pytest.raises(KimiError, match="a fork/of it.py"):  # so every split refuses, whoever asks for it
        corpus.split(
            [*DOCUMENTS, copy, Document(copy.name, training[0].text)]
        )  # the name decides which of them leaks


def test_a_copy_with_other_spaces_is_left_out_and_the_rest_can_be_split():
    """Where the copy would fall on the other side of the split, as one of twenty names does."""
    _, (held_out, *_) = corpus.split(DOCUMENTS)
    copies = [Document(f"a fork/{n}.py", held_out.text.replace("\n", "\r\n")) for n in range(20)]
    kept = corpus.without_copies([*DOCUMENTS, *copies])
    assert kept == DOCUMENTS and held_out in corpus.split(kept)[1]


# ---------------------------------------------------------------- datasets


def test_import_is_light():
    code = (
        "import sys, kimi_mini.text.corpus; sys.exit(any(m in sys.modules for m in ('datasets', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_as_dataset():
    pytest.importorskip("datasets")
    dataset = corpus.as_dataset(DOCUMENTS[:3])
    assert dataset.column_names == ["name", "text"]
    assert dataset[2]["text"] == DOCUMENTS[2].text


def test_hub_without_a_network(monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr(corpus, "_answers", lambda address: False)
    with pytest.raises(
        ConnectionError, match=r"cannot load 'roneneldan/TinyStories': no answer .* no network"
    ):
        corpus.load_hub("roneneldan/TinyStories")


def test_nobody_answers_at_a_closed_port():
    assert not corpus._answers("http://127.0.0.1:9", timeout=1.0)


def test_hub_loader_on_local_files(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')
    files = {"data_files": str(tmp_path / "a.jsonl")}
    documents = corpus.load_hub("json", max_documents=2, **files)
    assert documents == [Document("json/train/0", "one"), Document("json/train/1", "two")]
    assert (
        corpus.load_hub("json", max_characters=6, **files) == documents
    )  # enough text: nothing more is taken
    with pytest.raises(corpus.HubError, match="no column 'body', only text"):
        corpus.load_hub("json", text_column="body", **files)
    with pytest.raises(ConnectionError, match="cannot load 'json'"):
        corpus.load_hub("json", data_files=str(tmp_path / "missing.jsonl"))


def test_a_connection_that_is_lost_underway_is_said_as_one_that_never_was(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def lost(path, **options):
        yield {"text": "one"}
        raise TimeoutError("The read operation timed out")

    monkeypatch.setattr(corpus, "_answers", lambda address: True)
    monkeypatch.setattr(datasets, "load_dataset", lost)
    assert corpus.load_hub("some/text", max_documents=1) == [Document("some/text/train/0", "one")]
    with pytest.raises(
        corpus.HubError, match=r"cannot load 'some/text' .*: The read operation .* no network"
    ):
        corpus.load_hub("some/text", name="en")


# ---------------------------------------------------------------- tokens


def test_stream_and_windows_lose_nothing():
    documents = [Document("a", "one [EOS] 1"), Document("b", "two<|im_end|>"), Document("c", "three")]
    stream = corpus.token_stream(TOKENIZER, documents)
    assert stream.dtype == np.int32
    assert (stream == EOS).sum() == 3  # a written "[EOS]" ends nothing
    assert TOKENIZER.decode(stream) == "one [EOS] 1[EOS]two<|im_end|>[EOS]three[EOS]"
    windows = corpus.pack(stream, 4)
    assert windows.shape == (len(stream) // 4, 4)
    assert windows.reshape(-1).tolist() == stream[: windows.size].tolist()
    assert corpus.pack(stream, len(stream) + 1).shape == (0, len(stream) + 1)
    assert len(corpus.token_stream(TOKENIZER, [])) == 0


def test_packing_copies_nothing():
    stream = np.zeros(4_000_000, dtype=np.uint16)
    tracemalloc.start()
    corpus.pack(stream, 256)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
