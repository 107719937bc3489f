"""An adapter on disk: the folder of the `peft` library, adapter_config.json and adapter_model.safetensors.

Names are those of DeepseekV3ForCausalLM behind "base_model.model.". Of attention every projection has its own keys. The
routed experts come in two spellings, and peft 0.21 with transformers 5 reads both:

    per expert   ...mlp.experts.3.up_proj.lora_A.weight (r, in), lora_B (out, r), target_modules up_proj ...
                 The hub's own names, which engines know, too; peft stacks them as it loads. This is what is written.
    stacked      ...mlp.experts.lora_A.weight (E r, in), lora_B (out, r E), target_parameters mlp.experts.down_proj
                 What peft itself writes. Gate and up are one matrix there, `base_layer` of the other: one A for both.

Only files of numbers are read, never a pickle. What would be dropped (DoRA, biases, other modules) is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kimi_mini.base.errors import BadFile, MissingFile
from kimi_mini.base.files import replacing
from kimi_mini.model.config import KimiConfig

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX, SIDES = "base_model.model.", ("A", "B")
PROJECTIONS = ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
EXPERTS = ("gate_proj", "up_proj", "down_proj")
ATTENTION = re.compile(r"(model\.layers\.[0-9]{1,9}\.self_attn\.(?:" + "|".join(PROJECTIONS) + r"))\.weight")
STACKED = re.compile(r"(model\.layers\.[0-9]{1,9}\.mlp\.experts)\.(gate_proj|up_proj|down_proj)")
KEY = re.compile(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight")
ONE_EXPERT = re.compile(
    r"(model\.layers\.[0-9]{1,9}\.mlp\.experts)\.([0-9]{1,9})\.(gate_proj|up_proj|down_proj)"
)
ALL_EXPERTS = re.compile(r"(model\.layers\.[0-9]{1,9}\.mlp\.experts)(\.base_layer)?")
REFUSED = {  # what changes the function in another way than W + alpha / r * B A, and its value where it does not
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "use_qalora": (False, None),
    "bias": ("none", None),
    "modules_to_save": ([], None),
    "layer_replication": ([], None),
    "trainable_token_indices": ([], None),
}

Matrices = dict[str, tuple[Tensor, Tensor]]  # parameter -> A (..., r, in), B (..., out, r)


class Folder(NamedTuple):
    """What a folder holds: A and B by the model's parameters, all of one rank, the alpha of that rank, and the mark of
    the base that it was trained on, if it has one."""

    matrices: Matrices
    alpha: float
    base: str | None


# ---- writing -----------------------------------------------------------------------------------------------


def write(folder: str | Path, held: Folder, base_name: str = "") -> None:
    """Write the folder; each file appears whole or not at all. base_name: of the base model, for peft's config."""
    folder = Path(folder)
    disk = {f"{PREFIX}{name}.weight": value for name, value in _spelt(held.matrices).items()}
    rank = next(iter(held.matrices.values()))[0].shape[-2]
    names = {name.removesuffix(".weight").rpartition(".")[2] for name in held.matrices}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": held.alpha,
        "target_modules": sorted(names),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    with replacing(folder / WEIGHTS) as part:
        save_file(disk, part, metadata={"format": "pt", **({"base": held.base} if held.base else {})})
    with replacing(folder / CONFIG) as part:
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _spelt(matrices: Matrices) -> dict[str, Tensor]:
    """Every A and B by the name of its module on the hub."""
    disk = {}
    for name, pair in matrices.items():
        stacked = STACKED.fullmatch(name)
        for side, value in zip(SIDES, pair):
            value = value.detach().cpu()
            if stacked:
                for j, one in enumerate(value):
                    disk[f"{stacked[1]}.{j}.{stacked[2]}.lora_{side}"] = one.clone()
            else:
                disk[f"{name.removesuffix('.weight')}.lora_{side}"] = value.clone()
    return disk


# ---- reading -----------------------------------------------------------------------------------------------


def read(folder: str | Path, config: KimiConfig) -> Folder:
    """What `write` or peft wrote, for a model of this config. MissingFile and BadFile: one line, with the folder."""
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            if name == WEIGHTS and (folder / PICKLE).is_file():
                raise BadFile(f"{folder / PICKLE} is a pickle, which may run code: save it as {WEIGHTS}")
            raise MissingFile(f"no adapter in {folder}: it lacks {name}")
    try:
        settings = _settings(folder / CONFIG)
        tensors, base = _tensors(folder / WEIGHTS)
        return _gathered(tensors, settings, config)._replace(base=base)
    except BadFile as error:
        raise BadFile(f"the adapter in {folder} cannot be read: {error}") from None


def _settings(file: Path) -> dict[str, Any]:
    """adapter_config.json, of the kind that is understood here."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{file.name} is no JSON ({error!r:.80})") from None
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise BadFile(f"{file.name} does not say peft_type LORA")
    for name, plain in REFUSED.items():
        if settings.get(name) not in plain:
            raise BadFile(f"{name} is {settings[name]!r:.40}; this reads plain LoRA")
    alpha, rank = settings.get("lora_alpha"), settings.get("r")
    if (
        not isinstance(rank, int)
        or rank < 1
        or not isinstance(alpha, int | float)
        or not math.isfinite(alpha)
    ):
        raise BadFile(f"r is {rank!r:.20} and lora_alpha {alpha!r:.20}; both are numbers, r from 1")
    return settings


def _tensors(file: Path) -> tuple[dict[str, Tensor], str | None]:
    """All tensors by module and side, and the mark of the base."""
    found = {}
    try:
        with safe_open(file, framework="pt") as opened:
            base = (opened.metadata() or {}).get("base")
            for key in opened.keys():  # noqa: SIM118  a handle, not a dict
                if not KEY.fullmatch(key):
                    raise BadFile(f"{key:.120} is no A or B of a LoRA")
                found[key] = opened.get_tensor(key).float()
    except (SafetensorError, OSError) as error:
        raise BadFile(f"{file.name} is damaged ({error}); is it truncated?") from None
    for key, value in found.items():
        if value.ndim != 2 or not value.isfinite().all():
            raise BadFile(f"{key} is no matrix of finite numbers")
        if (
            key.replace(".lora_A.", ".lora_B.") not in found
            or key.replace(".lora_B.", ".lora_A.") not in found
        ):
            raise BadFile(f"{key} has no other half")
    if not found:
        raise BadFile(f"{file.name} is empty")
    return found, base


def _gathered(tensors: dict[str, Tensor], settings: dict[str, Any], config: KimiConfig) -> Folder:
    """A and B of each parameter, filled up to the largest rank; scales that differ go into B."""
    modules = {KEY.fullmatch(key)[1] for key in tensors}
    scaled: dict[str, tuple[Tensor, Tensor, float]] = {}
    experts: dict[str, dict[int, tuple[Tensor, Tensor, float]]] = {}
    for module in sorted(modules):
        a, b = (tensors[f"{PREFIX}{module}.lora_{side}.weight"] for side in SIDES)
        if len(a) != b.shape[1]:
            raise BadFile(f"{module} has A {tuple(a.shape)} and B {tuple(b.shape)}, of two ranks")
        if one := ONE_EXPERT.fullmatch(module):
            part = a, b, _alpha(settings, module) / len(a)
            experts.setdefault(f"{one[1]}.{one[3]}", {})[int(one[2])] = part
        elif every := ALL_EXPERTS.fullmatch(module):
            scaled |= _unstacked(every[1], a, b, settings, config)
        elif ATTENTION.fullmatch(f"{module}.weight"):
            scaled[f"{module}.weight"] = a, b, _alpha(settings, module) / len(a)
        else:
            raise BadFile(f"{module} is adapted; this reads attention and routed experts")
    for name, parts in experts.items():
        if sorted(parts) != list(range(config.n_routed_experts)):
            raise BadFile(f"{name} has {len(parts)} experts where the model has {config.n_routed_experts}")
        if len({(a.shape, b.shape) for a, b, _ in parts.values()}) > 1:
            raise BadFile(f"the experts of {name} are not all of one shape")
        if len({scale for _, _, scale in parts.values()}) > 1:
            raise BadFile(f"the experts of {name} are not all of one alpha")
        a, b = (torch.stack([parts[j][side] for j in sorted(parts)]) for side in (0, 1))
        scaled[name] = a, b, parts[0][2]
    rank = max(a.shape[-2] for a, _, _ in scaled.values())
    scale = settings["lora_alpha"] / settings["r"]
    matrices = {
        name: _filled(a, b * (each / scale if scale else 1), rank) for name, (a, b, each) in scaled.items()
    }
    return Folder(_with_all_three(matrices, config), scale * rank, None)


def _unstacked(
    path: str, a: Tensor, b: Tensor, settings: dict[str, Any], config: KimiConfig
) -> dict[str, tuple[Tensor, Tensor, float]]:
    """peft's stack of one layer's experts, A (E r, in) and B (out, r E), as A (E, r, in) and B (E, out, r) of
    `down_proj` or of `gate_proj` and `up_proj`, whichever has these sizes."""
    count, width = config.n_routed_experts, config.moe_intermediate_size
    if len(a) % count:
        raise BadFile(f"{path} has A {tuple(a.shape)} and B {tuple(b.shape)} for {count} experts")
    rank, sizes = len(a) // count, (a.shape[1], len(b))
    a, b = a.unflatten(0, (count, rank)), b.unflatten(1, (rank, count)).permute(2, 0, 1)
    if sizes == (width, config.hidden_size):
        return {f"{path}.down_proj": (a, b, _alpha(settings, f"{path}.down_proj") / rank)}
    if sizes != (config.hidden_size, 2 * width):
        raise BadFile(f"{path} has A and B of {sizes[1]} x {sizes[0]}, no matrix of this model")
    scale = _alpha(settings, f"{path}.gate_up_proj") / rank
    return {f"{path}.{name}": (a, half, scale) for name, half in zip(EXPERTS, b.split(width, 1))}


def _alpha(settings: dict[str, Any], module: str) -> float:
    """The alpha of a module: the default, or that of the pattern whose end its name has."""
    patterns = settings.get("alpha_pattern") or {}
    for pattern, alpha in patterns.items() if isinstance(patterns, Mapping) else ():
        end = pattern.removeprefix(r".*\.").removeprefix("^").removesuffix("$").replace(r"\.", ".")
        if not re.fullmatch(r"[\w.]+", end) or not isinstance(alpha, int | float):
            raise BadFile(f"alpha_pattern {pattern!r:.60} is no name and a number")
        if f".{module}".endswith(f".{end}"):
            return alpha
    return settings["lora_alpha"]


def _filled(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A and B with zeros up to this rank."""
    more = rank - a.shape[-2]
    return torch.nn.functional.pad(a, (0, 0, 0, more)), torch.nn.functional.pad(b, (0, more))


def _with_all_three(matrices: Matrices, config: KimiConfig) -> Matrices:
    """Experts of which only some matrices are adapted get zeros for the others: what is written has all three."""
    whole, sizes = dict(matrices), (config.moe_intermediate_size, config.hidden_size)
    for name, (a, _) in matrices.items():
        if found := STACKED.fullmatch(name):
            for other in EXPERTS:
                out, into = sizes[::-1] if other == "down_proj" else sizes
                zeros = a.new_zeros(*a.shape[:2], into), a.new_zeros(len(a), out, a.shape[1])
                whole.setdefault(f"{found[1]}.{other}", zeros)
    return whole
