"""Folders on disk: what was saved comes back, hub-shaped folders load, and what is not sound is refused in one line."""

import json
import os
import shutil

import pytest
import torch
from parity import BASE, CONFIGS, difference, ids, ours
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3ForCausalLM

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.base.errors import BadFile, KimiError
from kimi_mini.inference.generation import generate
from kimi_mini.model import checkpoint


def test_a_folder_round_trips_bit_for_bit(tmp_path):
    model = ours(CONFIGS["everything"])
    model.save_pretrained(tmp_path)
    again = KimiMini.from_pretrained(tmp_path)
    assert again.config == model.config
    a, b = model.state_dict(), again.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    again.train()(ids())  # buffers that are not stored exist
    again.update_router_bias(0.01)


def test_the_file_holds_one_key_per_expert(tmp_path):
    ours(BASE).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    for j in range(BASE.n_routed_experts):
        assert stored[f"model.layers.1.mlp.experts.{j}.gate_proj.weight"].shape == (60, 96)
        assert stored[f"model.layers.2.mlp.experts.{j}.down_proj.weight"].shape == (96, 60)
    assert not any(key.endswith("experts.gate_proj") for key in stored)


def test_tokenizer_files_travel_along(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    ours(BASE).save_pretrained(tmp_path / "out", [tmp_path / "tokenizer.json"])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("preset", ["moonlight_16b", "k2"])
def test_hub_shaped_folders_load(preset, tmp_path):
    """The published config.json scaled down, bf16 shards with an index, a bf16 bias, an MTP layer to
    ignore."""
    small = KimiConfig.preset(
        preset,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        n_routed_experts=8,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        q_lora_rank=None if preset == "moonlight_16b" else 16,
    )
    model = ours(small)
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    hub_only = {"ep_size": 1, "auto_map": {"AutoModel": "modeling_deepseek.DeepseekV3Model"}}
    (tmp_path / "config.json").write_text(json.dumps({**values, **hub_only}))
    tensors = {k: v.bfloat16() for k, v in load_file(tmp_path / "model.safetensors").items()}
    tensors["model.layers.3.eh_proj.weight"] = torch.zeros(2, 2)
    (tmp_path / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for shard, keys in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{shard:05d}-of-00002.safetensors"
        save_file({key: tensors[key] for key in keys}, tmp_path / file)
        weight_map.update(dict.fromkeys(keys, file))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    loaded = KimiMini.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert loaded.config.model_type == small.model_type
    prompt = torch.arange(20)[None]
    torch.testing.assert_close(loaded(prompt).logits, model(prompt).logits, atol=0.1, rtol=0)
    kept = KimiMini.from_pretrained(tmp_path)
    assert kept.lm_head.weight.dtype == torch.bfloat16
    assert kept.routers()[0].e_score_correction_bias.dtype == torch.float32


def test_a_tied_model_round_trips(tmp_path):
    model = ours(BASE.replace(tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    again = KimiMini.from_pretrained(tmp_path).eval()
    assert again.lm_head.weight is again.model.embed_tokens.weight
    torch.testing.assert_close(again(ids()).logits, model(ids()).logits)


def test_missing_and_damaged_folders_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        KimiMini.from_pretrained(tmp_path / "nowhere")
    folder = tmp_path / "model"
    ours(BASE).save_pretrained(folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        KimiMini.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        KimiMini.from_pretrained(folder)


def test_a_missing_tensor_or_expert_is_named(tmp_path):
    ours(BASE).save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    lost = {"model.layers.1.mlp.experts.3.up_proj.weight": "expert 3", "model.norm.weight": "norm"}
    for key, pattern in lost.items():
        save_file({k: v for k, v in whole.items() if k != key}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=pattern):
            KimiMini.from_pretrained(tmp_path)


def test_quantised_weights_are_refused(tmp_path):
    ours(BASE).save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    whole["model.layers.0.self_attn.o_proj.weight_scale_inv"] = torch.ones(1)
    save_file(whole, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="quantised"):
        KimiMini.from_pretrained(tmp_path)


def test_a_folder_that_came_in_shards_holds_what_was_saved_last(tmp_path):
    """Mutant: the old index stays, and with it the old weights."""
    theirs = DeepseekV3ForCausalLM(DeepseekV3ForCausalLM.config_class(**BASE.to_dict()))
    theirs.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    KimiMini.from_pretrained(tmp_path)
    new = ours(BASE, seed=3)
    new.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.glob("model*")) == ["model.safetensors"]
    assert difference(KimiMini.from_pretrained(tmp_path).eval(), new) < 1e-6


def test_a_folder_that_does_not_fit_its_config_is_one_line(tmp_path):
    ours(BASE).save_pretrained(tmp_path)
    right = json.loads((tmp_path / "config.json").read_text())
    for wrong in (
        {**right, "hidden_size": 64},
        {**right, "vocab_size": 256},
        {**right, "hidden_size": "96"},
        [],
    ):
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(BadFile) as caught:
            KimiMini.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_kimis_presets_are_read_by_transformers(tmp_path):
    """transformers knows no model_type kimi_k2: with it on disk every routed expert would be random."""
    small = {
        name: getattr(BASE, name)
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "moe_intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "n_routed_experts",
            "kv_lora_rank",
            "qk_nope_head_dim",
            "qk_rope_head_dim",
            "v_head_dim",
            "initializer_range",
            "max_position_embeddings",
        )
    }
    model = ours(KimiConfig.preset("k2", **small, q_lora_rank=32, pad_token_id=0, model_type="kimi_k2"))
    model.save_pretrained(tmp_path)
    assert (
        difference(DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval(), model) < 1e-4
    )


def test_a_failed_save_leaves_the_old_folder(tmp_path, monkeypatch):
    """A full disk: save_file raises half-way."""
    model = ours(BASE)
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full_disk(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kimi_mini.model.checkpoint.save_file", full_disk)
    with pytest.raises(KimiError, match="disk is full"):
        ours(BASE, seed=1).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


# ---- what is not sound ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A sound folder; copy it."""
    folder = tmp_path_factory.mktemp("sound") / "model"
    ours(BASE).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def change(folder, **tensors):
    """Write the weights again with some tensors put in or, where None, left out."""
    whole = load_file(folder / "model.safetensors") | tensors
    save_file({k: v for k, v in whole.items() if v is not None}, folder / "model.safetensors")


def check_refused(folder, says, **options):
    """One line that names the folder."""
    with pytest.raises(BadFile, match=says) as caught:
        KimiMini.from_pretrained(folder, **options)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


INDEX = "model.safetensors.index.json"


def with_index(folder, *names):
    """An index that names these files."""
    weight_map = dict(zip(load_file(folder / "model.safetensors"), names))
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


@pytest.fixture
def precious(tmp_path):
    """A file that is nobody's business, beside the folder."""
    file = tmp_path / "elsewhere" / "precious.safetensors"
    file.parent.mkdir()
    save_file({"a": torch.ones(2)}, file)
    return file


FOREIGN = [
    "{absolute}",
    "../elsewhere/precious.safetensors",
    "../model/../elsewhere/precious.safetensors",
    "sub/model.safetensors",
    "./model.safetensors",
    "..",
    "",
    ".hidden.safetensors",
    "config.json",
    "pytorch_model.bin",
    "model.safetensors\0",
    "model.safetensors\n",
    "..\\elsewhere\\precious.safetensors",
    5,
    None,
    ["model.safetensors"],
]


@pytest.mark.parametrize("name", FOREIGN)
def test_an_index_that_names_another_place_is_refused(folder, precious, name):
    """Loading would read what stands there; saving would delete it."""
    name = str(precious) if name == "{absolute}" else name
    model = ours(BASE, seed=1)
    with_index(folder, "model-00001-of-00002.safetensors", name)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(BadFile, match="no .safetensors file of this folder") as caught:
        model.save_pretrained(folder)
    assert "\n" not in str(caught.value) and str(folder / INDEX) in str(caught.value)
    assert precious.is_file() and before == {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "model.safetensors").unlink()
    check_refused(folder, "no .safetensors file of this folder")


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map"',
        "",
        "[]",
        "null",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": 5}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_damaged_index_is_one_line(folder, text):
    (folder / INDEX).write_text(text, errors="surrogateescape")
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(BadFile, match="cannot be read") as caught:
        ours(BASE, seed=1).save_pretrained(folder)
    assert "\n" not in str(caught.value) and (folder / "model.safetensors").read_bytes() == before
    (folder / "model.safetensors").unlink()
    check_refused(folder, "cannot be read")


def test_saving_removes_shards_and_nothing_else(folder):
    """An adapter that the index names is a file of this folder, and not ours to delete."""
    kept = ["adapter_model.safetensors", "model-extra.safetensors", "notes.txt"]
    shards = ["model-00001-of-00002.safetensors", "model-2-of-61.safetensors"]
    for name in (*kept, *shards):
        (folder / name).write_text(name)
    with_index(folder, *kept[:2], *shards)
    ours(BASE, seed=1).save_pretrained(folder)
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        [*kept, "config.json", "model.safetensors"]
    )


def test_links_are_read_and_what_they_point_to_stays(saved, tmp_path):
    """A cache of the hub: every file of the folder is a link to a blob that other folders share."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir(), folder.mkdir()
    shard = "model-00001-of-00001.safetensors"
    shutil.copy(saved / "model.safetensors", blobs / "a")
    shutil.copy(saved / "config.json", blobs / "b")
    (blobs / "c").write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    for name, blob in ((shard, "a"), ("config.json", "b"), (INDEX, "c")):
        (folder / name).symlink_to(blobs / blob)
    before = {file.name: file.read_bytes() for file in blobs.iterdir()}
    model = KimiMini.from_pretrained(folder)
    model.save_pretrained(folder)
    assert before == {file.name: file.read_bytes() for file in blobs.iterdir()}
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not any(file.is_symlink() for file in folder.iterdir())


def test_what_is_no_file_is_missing(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        KimiMini.from_pretrained(folder)
    (folder / "model.safetensors").rmdir()
    os.mkfifo(folder / "model.safetensors")  # reading it would wait for ever
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        KimiMini.from_pretrained(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    with_index(folder, *names)
    shutil.copy(folder / "model.safetensors", folder / names[0])
    (folder / "model.safetensors").rename(folder / names[1])
    check_refused(folder, "is there twice")


SIZES = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "n_routed_experts",
    "n_shared_experts",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
]


@pytest.mark.parametrize("size", [10**9, 10**15])
@pytest.mark.parametrize("field", SIZES)
def test_a_giant_beside_small_tensors_is_refused_before_it_is_built(folder, field, size, monkeypatch):
    def build(*_):
        raise AssertionError("built before the headers were looked at")

    values = json.loads((folder / "config.json").read_text()) | {field: size}
    values["num_key_value_heads"] = values["num_attention_heads"]
    (folder / "config.json").write_text(json.dumps(values))
    monkeypatch.setattr(KimiMini, "__init__", build)
    monkeypatch.setattr(checkpoint, "read_file", build)
    check_refused(folder, f"asks for .* parameters, the weights hold {BASE.count_parameters().total + 32:,}")


def test_positions_without_end_cost_nothing(folder):
    values = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 10**9}
    (folder / "config.json").write_text(json.dumps(values))
    model = KimiMini.from_pretrained(folder).eval()
    assert generate(model, ids(1, 4), max_new_tokens=3).shape == (1, 7)


def test_experts_without_end_in_a_dense_model_cost_nothing(tmp_path):
    model = ours(BASE.replace(first_k_dense_replace=3))
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"n_routed_experts": 10**9}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert difference(KimiMini.from_pretrained(tmp_path).eval(), model.eval()) == 0
    change(tmp_path, **{f"{EXPERT}.0.up_proj.weight": torch.ones(60, 96)})
    check_refused(tmp_path, "lacks expert 1")


KEYS = [
    "model.norm.weight",
    "model.embed_tokens.weight",
    "model.layers.1.mlp.experts.3.up_proj.weight",
    "model.layers.1.mlp.gate.e_score_correction_bias",
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_written_over_good_ones(tmp_path, value, packed):
    model = ours(BASE)
    model.save_pretrained(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with torch.no_grad():
        model.model.layers[1].mlp.experts.up_proj[0, 0, 0] = value
    with pytest.raises(KimiError, match="NaN or infinite") as error:
        model.save_pretrained(tmp_path, packed=packed)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", KEYS)
def test_weights_that_are_no_numbers_are_refused(folder, key, value):
    """One of them is enough for an agent that writes "!!!!"."""
    tensor = load_file(folder / "model.safetensors")[key].clone()
    tensor.view(-1)[-1] = value
    change(folder, **{key: tensor})
    check_refused(folder, f"{key} .*NaN or infinite")
    change(folder, **{key: tensor.bfloat16()})
    check_refused(folder, f"{key} .*NaN or infinite", dtype=torch.float32)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float8_e4m3fn, torch.int8, torch.int64, torch.bool, torch.complex64]
)
@pytest.mark.parametrize("key", KEYS)
def test_weights_of_another_type_are_refused(folder, key, dtype):
    change(folder, **{key: load_file(folder / "model.safetensors")[key].to(dtype)})
    for options in ({}, {"dtype": torch.float32}):
        check_refused(folder, f"{key} is of type", **options)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("key", KEYS[:3])
def test_one_tensor_of_another_type_is_named_and_a_dtype_settles_it(folder, key, kind):
    change(folder, **{key: load_file(folder / "model.safetensors")[key].to(kind)})
    check_refused(folder, f"{key} is .*16")
    model = KimiMini.from_pretrained(folder, dtype=torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_bias_may_be_of_another_type(folder):
    change(folder, **{KEYS[3]: load_file(folder / "model.safetensors")[KEYS[3]].bfloat16()})
    assert KimiMini.from_pretrained(folder).routers()[0].e_score_correction_bias.dtype == torch.float32


EXPERT = "model.layers.1.mlp.experts"


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (
            {f"{EXPERT}.16.up_proj.weight": torch.ones(60, 96)},
            "n_routed_experts 16, the weights hold expert 16",
        ),
        ({f"{EXPERT}.999999999.up_proj.weight": torch.ones(60, 96)}, "hold expert 999999999"),
        ({f"{EXPERT}.9999999999.up_proj.weight": torch.ones(60, 96)}, "1 unknown"),
        ({f"{EXPERT}.3.up_proj.weight": torch.ones(96, 60)}, r"expert 3 of .*shape \(96, 60\).*\(60, 96\)"),
        ({f"{EXPERT}.3.down_proj.weight": torch.ones(60, 96)}, r"expert 3 of .*shape \(60, 96\).*\(96, 60\)"),
        ({f"{EXPERT}.3.up_proj.weight": torch.ones(())}, "expert 3 of"),
        ({f"{EXPERT}.03.up_proj.weight": torch.ones(60, 96)}, "is there twice"),
        ({f"{EXPERT}.up_proj": torch.ones(16, 60, 96)}, "is there twice"),
        ({f"{EXPERT}.gate_up_proj": torch.ones(16, 120, 96)}, "is there twice"),
        ({f"{EXPERT}.gate_up_proj": torch.ones(16, 121, 96)}, "gate_up_proj has shape"),
        ({f"{EXPERT}.gate_up_proj": torch.ones(5)}, "gate_up_proj has shape"),
        (
            {"model.layers.3.self_attn.o_proj.weight": torch.ones(96, 96)},
            "num_hidden_layers 3, the weights hold",
        ),
        ({"model.layers.0.self_attn.o_proj.weight_scale": torch.ones(1)}, "quantised"),
        ({"model.layers.0.self_attn.o_proj.bias": torch.ones(96)}, "1 unknown"),
        ({"model.norm.weight": torch.ones(95)}, "does not fit"),
        ({"model.norm.weight": None}, "1 tensors missing"),
        ({"model.embed_tokens.weight": None}, "1 tensors missing"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_named(folder, tensors, says):
    change(folder, **tensors)
    check_refused(folder, says)


def test_a_config_that_knows_fewer_layers_drops_none(folder):
    """Mutant: whatever stands behind the last layer counts as multi-token prediction."""
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 2}))
    check_refused(folder, r"num_hidden_layers 2, the weights hold model\.layers\.2\.")
    (folder / "config.json").write_text(
        json.dumps({**values, "num_hidden_layers": 2, "num_nextn_predict_layers": 1})
    )
    assert len(KimiMini.from_pretrained(folder).model.layers) == 2


def test_a_tied_config_beside_another_head_is_refused(folder):
    values = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(values))
    check_refused(folder, "lm_head.weight differs")
    change(folder, **{"model.embed_tokens.weight": None})
    check_refused(folder, "embed_tokens.weight is missing")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_wrong_bytes_are_one_line(folder, saved, name):
    """In the header or the settings: read, or refused by an error that the command line shows as one line."""
    whole = (saved / name).read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little") if name.endswith("safetensors") else len(whole)
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[int(torch.randint(length, (1,), generator=random))] = int(
            torch.randint(256, (1,), generator=random)
        )
        (folder / name).write_bytes(damaged)
        try:
            KimiMini.from_pretrained(folder)
        except KimiError as error:
            assert "\n" not in str(error) and str(folder) in str(error)


# ---- fused experts -------------------------------------------------------------------------------------


def check_fused(folder) -> None:
    """transformers 5 holds gate and up in one tensor, gate first; here its live state dict is the file."""
    theirs = DeepseekV3ForCausalLM(DeepseekV3ForCausalLM.config_class(**BASE.to_dict())).eval()
    state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
    assert f"{EXPERT}.gate_up_proj" in state
    (folder / "config.json").write_text(json.dumps(BASE.to_dict()))
    save_file(state, folder / "model.safetensors")
    assert difference(KimiMini.from_pretrained(folder).eval(), theirs) <= 1e-4


def test_fused_experts_are_read(tmp_path):
    check_fused(tmp_path)


def test_gate_and_up_in_the_wrong_order_are_caught(tmp_path, monkeypatch):
    right = checkpoint.to_memory_keys

    def swapped(disk, config):
        state = right(disk, config)
        for key in [key for key in state if key.endswith("experts.gate_proj")]:
            other = key.replace("gate_proj", "up_proj")
            state[key], state[other] = state[other], state[key]
        return state

    monkeypatch.setattr(checkpoint, "to_memory_keys", swapped)
    with pytest.raises(AssertionError):
        check_fused(tmp_path)
