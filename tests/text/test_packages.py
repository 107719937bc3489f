"""Text of the installed packages: found without a network, each once, tokens as one by one."""

import numpy as np

from kimi_mini.text import corpus, packages
from kimi_mini.text.tokenizer import Tokenizer


def test_the_machines_text_has_no_copies_and_is_cut_at_whole_files(tmp_path):
    for name, words in (("a", "one two"), ("b", "one  two\n"), ("c", "three"), ("d", " "), ("e", "four" * 9)):
        (tmp_path / f"{name}.py").write_text(words)
    files = [(name, tmp_path / f"{name}.py") for name in "abcde"]
    assert [document.name for document in packages.documents(files, 20)] == ["a", "c"]
    assert [document.name for document in packages.documents(files, 99)] == ["a", "c", "e"]


def test_packages_and_the_library_are_found_in_an_order_of_their_own():
    found = packages.files()
    names = [name for name, _ in found]
    assert len(names) > 1000 and {name.split("/")[0] for name in names} == {"stdlib", "packages"}
    assert all(file.suffix in packages.KINDS and "__pycache__" not in file.parts for _, file in found)
    assert len({file for _, file in found}) == len(found)
    assert names == [name for name, _ in packages.files()] != sorted(names)


def test_tokens_are_those_of_the_documents_one_by_one(monkeypatch):
    monkeypatch.setattr(packages, "AT_ONCE", 2)
    texts = [corpus.Document(name, f"def {name}(): pass  # [EOS] <think>") for name in "abc"]
    found = packages.stream(Tokenizer.load(), texts)
    assert found.dtype == np.uint16 and np.array_equal(found, corpus.token_stream(Tokenizer.load(), texts))
