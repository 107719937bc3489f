"""The shape of a model: every number that decides its size, under the names that Hugging Face uses.

A `KimiConfig` reads and writes the `config.json` of a DeepSeek-V3 / Kimi K2 checkpoint. What the model cannot be, or
would be something else than the file says, is refused in one line that names the field.

Sources: Kimi K2 report (arXiv 2507.20534) table 2; DeepSeek-V3 report (2412.19437); Moonlight report
(2502.16982).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from kimi_mini.base.errors import BadFile, KimiError, MissingFile, explain_os_error
from kimi_mini.base.files import write_atomic
from kimi_mini.model.costs import Costs
from kimi_mini.model.presets import HF_DEFAULTS, PRESETS

FROM_ONE = """vocab_size hidden_size intermediate_size moe_intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads n_routed_experts num_experts_per_tok n_group topk_group kv_lora_rank qk_nope_head_dim
    qk_rope_head_dim v_head_dim max_position_embeddings""".split()
FROM_ZERO = "n_shared_experts first_k_dense_replace num_nextn_predict_layers".split()
SWITCHES = "norm_topk_prob seq_aux tie_word_embeddings attention_bias".split()
ABOVE_ZERO = "routed_scaling_factor rope_theta rms_norm_eps".split()
NOT_BELOW_ZERO = "initializer_range aux_loss_alpha attention_dropout".split()
FIXED = dict(  # what this architecture cannot do otherwise
    hidden_act="silu",
    scoring_func="sigmoid",
    topk_method="noaux_tc",
    moe_layer_freq=1,
    attention_bias=False,
    attention_dropout=0,
)
YARN_NUMBERS = "factor attention_factor beta_fast beta_slow mscale mscale_all_dim".split()


@dataclass
class KimiConfig(Costs):
    """Field names are those of the Hugging Face config; the defaults are the `nano` preset.

    q_lora_rank None means a plain `q_proj` (Moonlight). rope_scaling is None or a YaRN dict: factor (None:
    max_position_embeddings over the original ones), and as one likes
    original_max_position_embeddings, beta_fast, beta_slow, mscale, mscale_all_dim, attention_factor, truncate. Raises
    ValueError for values of a wrong kind and for sizes that cannot work together.
    """

    vocab_size: int = 1024
    hidden_size: int = 96
    intermediate_size: int = 240
    moe_intermediate_size: int = 60
    num_hidden_layers: int = 3
    num_attention_heads: int = 3
    num_key_value_heads: int | None = None
    n_shared_experts: int = 1
    n_routed_experts: int = 16
    num_experts_per_tok: int = 3
    routed_scaling_factor: float = 1.727
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    scoring_func: str = "sigmoid"
    topk_method: str = "noaux_tc"
    first_k_dense_replace: int = 1
    moe_layer_freq: int = 1
    q_lora_rank: int | None = None
    kv_lora_rank: int = 48
    qk_nope_head_dim: int = 16
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    hidden_act: str = "silu"
    max_position_embeddings: int = 8192
    rope_theta: float = 50000.0
    rope_scaling: dict | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    aux_loss_alpha: float = 0.001
    seq_aux: bool = True
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    attention_dropout: float = 0.0
    num_nextn_predict_layers: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    model_type: str = "deepseek_v3"

    def __post_init__(self):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if isinstance(self.rope_scaling, dict):  # one spelling, and a copy of our own
            rest = {
                k: v for k, v in self.rope_scaling.items() if k not in ("type", "rope_type", "rope_theta")
            }
            self.rope_scaling = {"type": _rope_type(self.rope_scaling), **rest}
            _settle_factor(self.rope_scaling, self.max_position_embeddings)
        self._check_fields()
        if self.rope_scaling is not None:
            _check_yarn(self.rope_scaling, self.rope_theta)
        self._check_sizes()

    def _check_fields(self):
        """Each field by itself."""
        values = vars(self)
        whole = [*((name, 1) for name in FROM_ONE), *((name, 0) for name in FROM_ZERO)]
        if self.q_lora_rank is not None:
            whole.append(("q_lora_rank", 1))
        for name, least in whole:
            _demand(name, values[name], _is_whole(values[name], least), f"a whole number from {least}")
        for name in SWITCHES:
            _demand(name, values[name], isinstance(values[name], bool), "true or false")
        for name in ABOVE_ZERO:
            _demand(name, values[name], _is_number(values[name]) and values[name] > 0, "a number above 0")
        for name in NOT_BELOW_ZERO:
            _demand(name, values[name], _is_number(values[name]) and values[name] >= 0, "a number from 0")
        for name, only in FIXED.items():
            same = values[name] == only and isinstance(values[name], bool) == isinstance(only, bool)
            _demand(name, values[name], same, repr(only))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids = (
                values[name] if name == "eos_token_id" and isinstance(values[name], list) else [values[name]]
            )
            known = all(one is None or _is_whole(one, 0) for one in ids)
            _demand(name, values[name], known, "a token id or null")

    def _check_sizes(self):
        """The sizes together."""
        group = self.n_routed_experts // self.n_group  # experts a group
        rules = {
            "num_key_value_heads must equal num_attention_heads (MLA keeps no separate key heads)": (
                self.num_key_value_heads == self.num_attention_heads
            ),
            "qk_rope_head_dim must be even": self.qk_rope_head_dim % 2 == 0,
            "num_experts_per_tok must not exceed n_routed_experts": (
                self.num_experts_per_tok <= self.n_routed_experts
            ),
            "n_group must divide n_routed_experts": self.n_routed_experts % self.n_group == 0,
            "topk_group must not exceed n_group": self.topk_group <= self.n_group,
            "n_group > 1 needs at least two experts a group": self.n_group == 1 or group >= 2,
            "the topk_group groups must hold num_experts_per_tok experts": (
                self.topk_group * group >= self.num_experts_per_tok
            ),
        }
        for rule, kept in rules.items():
            if not kept:
                raise ValueError(f"KimiConfig: {rule}")

    @classmethod
    def preset(cls, name: str, **overrides) -> KimiConfig:
        """One of `PRESETS`, with fields replaced. ValueError lists the names for any other.

        Another number of experts wants another routed_scaling_factor: `moe.gate_factor(experts, chosen)`.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; choose one of: {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **overrides})

    def replace(self, **overrides) -> KimiConfig:
        """A copy with some fields replaced (and checked again). num_key_value_heads follows num_attention_heads."""
        return replace(self, **{"num_key_value_heads": None, **overrides})

    @property
    def qk_head_dim(self) -> int:
        """Width of a query or key head: the part without position and the rotated part."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """What one token leaves in the cache of one layer: the latent and the shared rotated key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    def is_moe_layer(self, layer: int) -> bool:
        """The first `first_k_dense_replace` layers are dense, all others route."""
        return layer >= self.first_k_dense_replace

    def to_dict(self) -> dict:
        """The config.json of a Hugging Face DeepSeek-V3 folder. Kimi K2 is one: transformers knows no "kimi_k2"."""
        values = {**asdict(self), "model_type": "deepseek_v3"}
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            **values,
            "rope_interleave": True,
            "use_cache": True,
        }

    @classmethod
    def from_dict(cls, values: dict) -> KimiConfig:
        """From a config.json. Keys we do not know are ignored; fields it leaves out take transformers' defaults for
        DeepSeek-V3 where those differ from ours. Understands transformers 4 (`rope_theta`, `rope_scaling`) and 5
        (`rope_parameters`). ValueError for another model family, for half-split RoPE and for bad values."""
        if values.get("model_type", "deepseek_v3") not in ("deepseek_v3", "kimi_k2"):
            family = values["model_type"]
            raise BadFile(f"config.json is of model_type {family!r:.60}; this reads deepseek_v3 and kimi_k2")
        if values.get("rope_interleave", True) is not True:
            raise BadFile("config.json does not say rope_interleave true; this reads interleaved RoPE only")
        known = {f.name for f in fields(cls)}
        given = {k: v for k, v in values.items() if k in known}
        return cls(**{**HF_DEFAULTS, **given, **_rope_settings(values)})

    def save(self, path: str | Path) -> None:
        """Write config.json (a file, or a folder that gets one), whole or not at all."""
        path = Path(path)
        write_atomic(
            path / "config.json" if path.is_dir() else path, json.dumps(self.to_dict(), indent=2) + "\n"
        )

    @classmethod
    def load(cls, path: str | Path) -> KimiConfig:
        """Read config.json (a file, or the folder that holds it). MissingFile or BadFile, in one line."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise MissingFile(f"no config.json at {path}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise KimiError(explain_os_error(error, path)) from None
        except (ValueError, RecursionError) as error:
            raise BadFile(f"{path} is not valid JSON ({error}); is it truncated?") from None
        if not isinstance(values, dict):
            raise BadFile(f"{path} holds no settings")
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise BadFile(f"{path}: {error}") from None


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    """A finite one: NaN compares as false."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def _demand(name: str, value: Any, right: bool, wanted: str) -> None:
    if not right:
        raise ValueError(f"KimiConfig: {name} must be {wanted}, not {value!r:.60}")


def _settle_factor(rope: dict, positions: Any) -> None:
    """A factor that is null is how many times the original length the positions are, as in transformers."""
    original = rope.get("original_max_position_embeddings")
    if rope.get("factor", 1) is None and _is_whole(original, 1) and _is_whole(positions, 1):
        rope["factor"] = positions / original


def _check_yarn(rope: Any, theta: float) -> None:
    _demand("rope_scaling", rope, isinstance(rope, dict), "null or the settings of YaRN (a dict)")
    _demand("rope_scaling.type", rope["type"], rope["type"] == "yarn", "'yarn'")
    _demand("rope_theta", theta, theta > 1, "above 1 under YaRN")
    for name in YARN_NUMBERS:
        value, least = rope.get(name), 0 if name.startswith("mscale") else sys.float_info.min
        missing = value is None and name != "factor"
        right = missing or (_is_number(value) and value >= least)
        _demand(f"rope_scaling.{name}", value, right, "a number from 0" if least == 0 else "a number above 0")
    length, truncate = rope.get("original_max_position_embeddings"), rope.get("truncate", True)
    right = length is None or _is_whole(length, 1)
    _demand("rope_scaling.original_max_position_embeddings", length, right, "a whole number from 1")
    _demand("rope_scaling.truncate", truncate, isinstance(truncate, bool), "true or false")
    fast, slow = rope.get("beta_fast") or 32, rope.get("beta_slow") or 1
    _demand("rope_scaling.beta_fast", fast, fast >= slow, f"at least beta_slow ({slow})")


def _rope_type(rope: dict) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _rope_settings(values: dict) -> dict:
    """rope_theta and rope_scaling from either spelling of config.json."""
    for name in ("rope_parameters", "rope_scaling"):
        _demand(name, values.get(name), isinstance(values.get(name), dict | None), "null or a dict")
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    theta = rope.get("rope_theta", values.get("rope_theta", HF_DEFAULTS["rope_theta"]))
    part = rope.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    _demand("partial_rotary_factor", part, part in (None, 1), "1")
    if _rope_type(rope) != "default":
        return {"rope_theta": theta, "rope_scaling": rope}
    _demand("rope_scaling.type", "default", rope.get("factor") in (None, 1), "'yarn' where there is a factor")
    return {"rope_theta": theta, "rope_scaling": None}
