"""A checkpoint folder IS a Hugging Face folder: config.json, model.safetensors, tokenizer files.

In memory the routed experts of a layer are 3-D tensors; on disk each expert has its own keys, as on the hub.
Files are written beside their place and then renamed, so that a full disk or a kill leaves the old folder as
it was.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kimi_mini.base.errors import BadFile, MissingFile
from kimi_mini.base.files import replacing
from kimi_mini.model.config import KimiConfig

EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
STACKED = re.compile(r"(.*\.mlp\.experts)\.(gate_proj|up_proj|down_proj)")


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
    """The other way round. Also reads transformers 5's in-memory form (`gate_up_proj`, `down_proj` stacked)
    and leaves out multi-token-prediction layers (`model.layers.{num_hidden_layers}` and beyond)."""
    state, experts = {}, {}
    for key, value in disk.items():
        layer = re.match(r"model\.layers\.(\d+)\.", key)
        if (layer and int(layer[1]) >= config.num_hidden_layers) or key.endswith("rotary_emb.inv_freq"):
            continue
        match = EXPERT.fullmatch(key)
        if match:
            experts.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = value
        elif key.endswith(".experts.gate_up_proj"):
            gate, up = value.chunk(2, 1)
            prefix = key.removesuffix("gate_up_proj")
            state[prefix + "gate_proj"], state[prefix + "up_proj"] = gate.contiguous(), up.contiguous()
        else:
            state[key] = value
    for key, parts in experts.items():
        missing = set(range(config.n_routed_experts)) - set(parts)
        if missing:
            raise BadFile(f"checkpoint lacks expert {min(missing)} of {key}")
        state[key] = torch.stack([parts[j] for j in range(config.n_routed_experts)])
    return state


def save_folder(
    folder: str | Path, config: KimiConfig, state: dict[str, Tensor], tokenizer_files: list[str | Path] = ()
) -> None:
    """Write the folder. Each file appears whole or not at all; OSError when the disk refuses."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu() for k, v in state.items()}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    with replacing(folder / "model.safetensors") as temporary:
        save_file(to_disk_keys(state), temporary, metadata={"format": "pt"})
    # left by an earlier model; nobody would read them beside the new file
    for stale in _shards(folder):
        stale.unlink(missing_ok=True)
    with replacing(folder / "config.json") as temporary:
        dtype = str(state["model.embed_tokens.weight"].dtype).removeprefix("torch.")
        text = json.dumps({**config.to_dict(), "torch_dtype": dtype}, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")
    for file in map(Path, tokenizer_files):
        with replacing(folder / file.name) as temporary:
            shutil.copyfile(file, temporary)


def load_folder(folder: str | Path, dtype: torch.dtype | None = None) -> tuple[KimiConfig, dict[str, Tensor]]:
    """Config and state dict (in-memory keys) of a folder, sharded or not; dtype None keeps what is stored.

    FileNotFoundError when config.json or weights are missing; ValueError when a file is damaged, quantised,
    or does not fit the config. The router bias is always fp32.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFile(f"no checkpoint folder at {folder}")
    config = KimiConfig.load(folder)
    disk = {}
    for file in weight_files(folder):
        disk.update(read_file(file))
    if any(key.endswith(("weight_scale_inv", "weight_packed")) for key in disk):
        raise BadFile(f"{folder} holds quantised weights; convert them to bf16 or fp32 first")
    state = to_memory_keys(disk, config)
    if config.tie_word_embeddings:
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    for key, value in state.items():
        if key.endswith("e_score_correction_bias"):
            state[key] = value.float()
        elif dtype is not None:
            state[key] = value.to(dtype)
    return config, state


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or else the shards that model.safetensors.index.json names."""
    whole = folder / "model.safetensors"
    files = [whole] if whole.exists() else _shards(folder)[:-1] or [whole]
    for file in files:
        if not file.exists():
            raise MissingFile(f"checkpoint folder {folder} lacks {file.name}")
    return files


def _shards(folder: Path) -> list[Path]:
    """The files that model.safetensors.index.json names, and behind them that file itself; nothing without it."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"{index} cannot be read ({error}); is it truncated?") from None
    return [*(folder / name for name in sorted(names)), index]


def read_file(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file; ValueError when it is cut short or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  a handle, not a dict
    except SafetensorError as error:
        raise BadFile(f"{path} cannot be read ({error}); is it truncated? Copy or make it again") from None
