"""Readers of results and arrays: what is not as it was written ends in one line that names the file."""

import json

import numpy as np
import pytest

from kimi_mini.base import files
from kimi_mini.base.errors import BadFile, KimiError


def one_line(error: BaseException, file) -> bool:
    """One line that names the file and says what to do."""
    return "\n" not in str(error) and str(file) in str(error) and files.AGAIN in str(error)


# --------------------------------------------------------------------------------------------------- arrays
@pytest.fixture
def arrays(tmp_path):
    """A file as `make run` keeps its training examples in."""
    file = tmp_path / "training.npz"
    random = np.random.default_rng(0)
    lengths = random.integers(1, 40, 20).astype(np.int32)
    ids = random.integers(0, 1024, lengths.sum()).astype(np.uint16)
    files.save_arrays(file, ids=ids, mask=ids > 500, lengths=lengths, about=np.array('{"rest": [1, "é"]}'))
    return file


def test_arrays_come_back_as_they_were(tmp_path):
    sent = {"a": np.arange(6.0).reshape(2, 3), "none": np.zeros((0, 4), bool), "text": np.array("é")}
    files.save_arrays(tmp_path / "a.npz", **sent)
    read = files.read_arrays(tmp_path / "a.npz")
    assert list(read) == list(sent)
    assert all(
        np.array_equal(read[name], sent[name]) and read[name].dtype == sent[name].dtype for name in sent
    )


def test_a_wrong_byte_anywhere_is_one_line(arrays):
    """600 files with one byte changed: none gives a traceback, none gives other numbers."""
    whole, random = arrays.read_bytes(), np.random.default_rng(1)
    right, refused = files.read_arrays(arrays), 0
    for place in random.permutation(len(whole))[:600]:
        damaged = bytearray(whole)
        damaged[place] ^= int(random.integers(1, 256))
        arrays.write_bytes(damaged)
        try:
            read = files.read_arrays(arrays)
        except BadFile as error:
            assert one_line(error, arrays)
            refused += 1
        else:  # a date, a permission: nothing that is read
            assert read.keys() == right.keys() and all(
                np.array_equal(read[name], right[name]) for name in right
            )
    assert refused > 300


@pytest.mark.parametrize(
    "edit",
    [
        lambda arrays: {**arrays, "ids": arrays["ids"][::-1]},
        lambda arrays: {**arrays, "ids": arrays["ids"][None]},
        lambda arrays: {**arrays, "ids": arrays["ids"].view(np.int16)},
        lambda arrays: {"idt" if name == "ids" else name: array for name, array in arrays.items()},
        lambda arrays: {name: array for name, array in arrays.items() if name != "mask"},
        lambda arrays: {"more": arrays["ids"], **arrays},
    ],
    ids=["numbers", "shape", "type", "names", "one less", "one more"],
)
def test_what_the_zip_does_not_guard_is_guarded(arrays, edit):
    """Mutant: trust the zip. Written again with one thing changed, it is whole for itself."""
    with np.load(arrays) as stored:
        np.savez_compressed(arrays, **edit(dict(stored)))
    with pytest.raises(BadFile, match="checksum") as caught:
        files.read_arrays(arrays)
    assert one_line(caught.value, arrays)


@pytest.mark.parametrize("kept", [0, 40, 300])
def test_an_array_file_that_is_cut_short_or_missing_is_one_line(arrays, kept):
    arrays.write_bytes(arrays.read_bytes()[:kept])
    for file in (arrays, arrays.with_name("none.npz")):
        with pytest.raises(KimiError) as caught:
            files.read_arrays(file)
        assert one_line(caught.value, file)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: np.savez_compressed(file, ids=np.arange(3)),  # no checksum
        lambda file: np.save(file.open("wb"), np.arange(3)),  # no npz
        lambda file: file.write_text("{}"),
        lambda file: np.savez(file.open("wb"), ids=np.array([{}], object), checksum=np.zeros(32, np.uint8)),
    ],
)
def test_a_file_that_save_arrays_did_not_write_is_one_line(tmp_path, write):
    file = tmp_path / "text.npz"
    write(file)
    with pytest.raises(BadFile) as caught:
        files.read_arrays(file)
    assert one_line(caught.value, file)


def test_an_array_that_is_not_there_is_one_line(arrays):
    with pytest.raises(BadFile, match="holds no 'validation'") as caught:
        files.read_arrays(arrays)["validation"]
    assert one_line(caught.value, arrays)


# ----------------------------------------------------------------------------------------------------- json
def test_reading_what_is_missing_or_cut_short(tmp_path):
    with pytest.raises(KimiError, match="does not exist"):
        files.read_json(tmp_path / "none.json")
    for text in ('{"rows": [', "", "\0", "[" * 200_000, "\udcff"):
        (tmp_path / "cut.json").write_text(text, errors="surrogateescape")
        with pytest.raises(KimiError) as caught:
            files.read_json(tmp_path / "cut.json")
        assert one_line(caught.value, tmp_path / "cut.json")


@pytest.mark.parametrize(
    ("held", "kind"), [([], dict), (None, dict), ("text", dict), (3, dict), ({}, list), (None, list)]
)
def test_another_kind_of_thing_is_one_line(tmp_path, held, kind):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(held))
    with pytest.raises(
        BadFile, match=f"holds a {type(held).__name__} where a {kind.__name__} belongs"
    ) as caught:
        files.read_json(file, kind)
    assert one_line(caught.value, file)


def test_an_entry_that_is_not_there_is_one_line(tmp_path):
    file = tmp_path / "evaluate.json"
    files.write_json(file, {"seconds": 3})
    note = files.read_json(file)
    assert (note["seconds"], note.get("scoreboard"), note == {"seconds": 3}) == (3, None, True)
    with pytest.raises(BadFile, match="holds no 'scoreboard'") as caught:
        note["scoreboard"]
    assert one_line(caught.value, file)
