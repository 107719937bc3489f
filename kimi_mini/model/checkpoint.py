"""A checkpoint folder IS a Hugging Face folder: config.json, model.safetensors, tokenizer files.

In memory the routed experts of a layer are 3-D tensors; on disk each expert has its own keys, as on the hub.
Files are written beside their place and then renamed, so that a full disk or a kill leaves the old folder as
it was.

A folder that was downloaded is not trusted: its index may name files of the folder only, nothing is built before
config.json was compared with the headers of the weights, and what would be dropped, cast or NaN is refused. Links are
followed when reading, because a cache of the hub consists of them; saving replaces or removes the link, never what
it points to.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kimi_mini.base.errors import BadFile, KimiError, MissingFile
from kimi_mini.base.files import replacing
from kimi_mini.model.compact import int4
from kimi_mini.model.config import KimiConfig

EXPERT = re.compile(r"(.*\.mlp\.experts)\.([0-9]{1,9})\.(gate_proj|up_proj|down_proj)\.weight")
STACKED = re.compile(r"(.*\.mlp\.experts)\.(gate_proj|up_proj|down_proj)")
LAYER = re.compile(r"model\.layers\.([0-9]{1,9})\.")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
SHARD_NAME = re.compile(r"model-[0-9]+-of-[0-9]+\.safetensors")
DTYPES = ("F32", "BF16", "F16")  # as safetensors spells them
QUANTISED = ("weight_scale", "weight_scale_inv", "weight_packed", "weight_shape")
BIAS = "e_score_correction_bias"  # fp32 in memory, whatever the folder holds


def to_disk_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """3-D experts (E, out, in) -> one `experts.{j}.gate_proj.weight` (out, in) each; the rest unchanged."""
    disk = {}
    for key, value in state.items():
        match = STACKED.fullmatch(key)
        if match:
            for j, expert in enumerate(value):
                disk[f"{match[1]}.{j}.{match[2]}.weight"] = expert.clone()
        else:
            disk[key] = value.contiguous()
    return disk


def to_memory_keys(disk: dict[str, Tensor], config: KimiConfig) -> dict[str, Tensor]:
    """The other way round. Also reads transformers 5's in-memory form (`gate_up_proj`, `down_proj` stacked) and leaves
    out multi-token-prediction layers. BadFile for experts that are missing, too many or of another shape, for a key
    that is there twice, and for layers that config.json does not know."""
    state, experts = {}, {}
    for key, value in disk.items():
        match = EXPERT.fullmatch(key)
        if _left_out(key, disk, config):
            continue
        if match:
            parts = experts.setdefault(f"{match[1]}.{match[3]}", {})
            _put(parts, int(match[2]), value, key)
        elif key.endswith(".mlp.experts.gate_up_proj"):
            prefix, width = key.removesuffix("gate_up_proj"), config.moe_intermediate_size
            _check_shape(key, value, (config.n_routed_experts, 2 * width, config.hidden_size))
            for name, half in zip(("gate_proj", "up_proj"), value.split(width, 1)):
                _put(state, prefix + name, half.contiguous(), key)
        else:
            _put(state, key, value, key)
    for key, parts in experts.items():
        _put(state, key, _stack(key, parts, config), key)
    return state


def _left_out(key: str, keys: Container[str], config: KimiConfig) -> bool:
    """Whether the model has no use for a key: tables of RoPE, and layers of multi-token prediction, which stand behind
    those of config.json. BadFile for a layer there that is not of that kind."""
    layer = LAYER.match(key)
    if not layer or int(layer[1]) < config.num_hidden_layers:
        return key.endswith("rotary_emb.inv_freq")
    announced = int(layer[1]) < config.num_hidden_layers + config.num_nextn_predict_layers
    if not announced and f"model.layers.{layer[1]}.eh_proj.weight" not in keys:
        raise BadFile(
            f"config.json says num_hidden_layers {config.num_hidden_layers}, the weights hold {key}"
        )
    return True


def _stack(key: str, parts: dict[int, Tensor], config: KimiConfig) -> Tensor:
    """The experts of one layer as one tensor (E, out, in)."""
    count, shape = config.n_routed_experts, (config.moe_intermediate_size, config.hidden_size)
    if max(parts) >= count:
        raise BadFile(
            f"config.json says n_routed_experts {count}, the weights hold expert {max(parts)} of {key}"
        )
    if len(parts) < count:
        missing = next(j for j in range(count) if j not in parts)
        raise BadFile(f"checkpoint lacks expert {missing} of {key}")
    for j, part in parts.items():
        _check_shape(f"expert {j} of {key}", part, shape[::-1] if key.endswith("down_proj") else shape)
    return torch.stack([parts[j] for j in range(count)])


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise BadFile(f"{name} has shape {tuple(value.shape)} where config.json says {shape}")


def _put(into: dict, name, value: Tensor, key: str) -> None:
    if name in into:
        raise BadFile(f"{key} is there twice")
    into[name] = value


def save_folder(
    folder: str | Path,
    config: KimiConfig,
    state: dict[str, Tensor],
    tokenizer_files: list[str | Path] = (),
    packed: bool = False,
) -> None:
    """Write the folder. Each file appears whole or not at all; KimiError when the disk refuses. packed: routed experts
    in INT4, see `model.compact.int4`.

    KimiError, and nothing written, for a model with an adapter attached, whose weights are two things, and for NaN.

    Shards that lay there before are removed, or their index would still name them: only files that bear a shard's
    name. BadFile, and nothing written, when that index is damaged or names other places.
    """
    folder = Path(folder)
    old_shards = [folder / name for name in _indexed(folder) if SHARD_NAME.fullmatch(name)]
    state = {k: v.detach().cpu() for k, v in state.items()}
    if strange := [key for key in state if key.startswith("adapter.")]:
        raise KimiError(f"an adapter is attached ({strange[0]}): merge it or detach it, then save the model")
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    disk, more = to_disk_keys(state), {}
    if packed:
        disk, more = int4.to_packed(disk), {"quantization_config": int4.CONFIG}
    if broken := [key for key, value in disk.items() if not value.isfinite().all()]:
        raise KimiError(f"{broken[0]} holds numbers that are NaN or infinite: {folder} is left as it was")
    with replacing(folder / "model.safetensors") as temporary:
        save_file(disk, temporary, metadata={"format": "pt"})
    for stale in (*old_shards, _index(folder)):
        if stale.is_file() or stale.is_symlink():
            stale.unlink()
    with replacing(folder / "config.json") as temporary:
        dtype = str(state["model.embed_tokens.weight"].dtype).removeprefix("torch.")
        text = json.dumps({**config.to_dict(), "torch_dtype": dtype, **more}, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")
    for file in map(Path, tokenizer_files):
        with replacing(folder / file.name) as temporary:
            shutil.copyfile(file, temporary)


def load_folder(folder: str | Path, dtype: torch.dtype | None = None) -> tuple[KimiConfig, dict[str, Tensor]]:
    """Config and state dict (in-memory keys) of a folder, sharded or not; dtype None keeps what is stored.

    MissingFile when config.json or weights are missing; BadFile when a file is damaged, quantised in another way
    than `compact.int4`, holds NaN, or does not fit the config: one line that names the file or the folder. The router
    bias is always fp32.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFile(f"no checkpoint folder at {folder}")
    config, files, disk = KimiConfig.load(folder), weight_files(folder), {}
    try:
        _check_headers(files, config, dtype)
        for file in files:
            for key, value in read_file(file).items():
                _put(disk, key, value, key)
        state = to_memory_keys(int4.from_packed(disk, dtype or torch.float32), config)
        if config.tie_word_embeddings:
            _tie(state)
    except BadFile as error:
        raise BadFile(f"{folder} cannot be read: {error}") from None
    for key, value in state.items():
        if key.endswith(BIAS):
            state[key] = value.float()
        elif dtype is not None:
            state[key] = value.to(dtype)
    return config, state


def _check_headers(files: list[Path], config: KimiConfig, dtype: torch.dtype | None) -> None:
    """Names, types and sizes, before any tensor is read or built."""
    headers = {key: header for file in files for key, header in read_header(file).items()}
    kinds = {}
    for key, (kind, _) in headers.items():
        if int4.is_packed(key, kind):
            continue
        if key.endswith(QUANTISED):
            raise BadFile(f"{key} is quantised; convert the weights to bf16 or fp32 first")
        if kind not in DTYPES:
            raise BadFile(f"{key} is of type {kind}; this reads {', '.join(DTYPES)}")
        if not key.endswith(BIAS) and not _left_out(key, headers, config):
            kinds[kind] = key
    asked = config.count_parameters().total
    held = sum(int4.weights_in(key) * math.prod(shape) for key, (_, shape) in headers.items())
    if asked > 2 * held:  # where less is missing, it is named later
        raise BadFile(f"config.json asks for {asked:,} parameters, the weights hold {held:,}")
    if len(kinds) > 1 and dtype is None:
        mixed = ", ".join(f"{key} is {kind}" for kind, key in kinds.items())
        raise BadFile(f"the weights are of more than one type ({mixed}); load them with a dtype")


def _tie(state: dict[str, Tensor]) -> None:
    """One tensor for the embedding and the head."""
    embedding = state.get("model.embed_tokens.weight")
    head = state.get("lm_head.weight")
    if embedding is None:
        raise BadFile("model.embed_tokens.weight is missing")
    if head is not None and not torch.equal(head, embedding):
        raise BadFile("config.json says tie_word_embeddings, lm_head.weight differs from the embedding")
    state["lm_head.weight"] = embedding


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or else the shards that model.safetensors.index.json names."""
    names = ["model.safetensors"]
    if not (folder / names[0]).is_file():
        names = _indexed(folder) or names
    for name in names:
        if not (folder / name).is_file():
            raise MissingFile(f"checkpoint folder {folder} lacks {name}")
    return [folder / name for name in names]


def _index(folder: Path) -> Path:
    return folder / "model.safetensors.index.json"


def _indexed(folder: Path) -> list[str]:
    """The files that the index names, all of them in this folder; none without an index."""
    index = _index(folder)
    if not index.is_file():
        return []
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadFile(
            f"{index} cannot be read ({error!r:.80}); is it truncated? Copy it again or delete it"
        ) from None
    for name in names:
        if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
            raise BadFile(
                f"{index} names {name!r:.80}, which is no .safetensors file of this folder; delete it"
            )
    return sorted(set(names))


def read_header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each tensor of a safetensors file, none of which is read."""
    with _opened(path) as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  a handle, not a dict
        return {key: (one.get_dtype(), one.get_shape()) for key, one in slices.items()}


def read_file(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file. BadFile when it is cut short or damaged, and for NaN and infinity."""
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  a handle, not a dict
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise BadFile(f"{key} of {path.name} holds numbers that are NaN or infinite")
    return tensors


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise BadFile(f"{path} is damaged ({error}); is it truncated? Copy or make it again") from None
