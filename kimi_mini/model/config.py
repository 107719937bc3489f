"""The shape of a model: every number that decides its size, under the names that Hugging Face uses.

A `KimiConfig` reads and writes the `config.json` of a DeepSeek-V3 / Kimi K2 checkpoint, and counts what such
a model costs (parameters, FLOPs, KV cache) without building it.

Sources: Kimi K2 report (arXiv 2507.20534) table 2; DeepSeek-V3 report (2412.19437); Moonlight report
(2502.16982).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from kimi_mini.base.errors import BadFile, MissingFile
from kimi_mini.model.presets import HF_DEFAULTS, PRESETS


@dataclass
class KimiConfig:
    """Field names are those of the Hugging Face config; the defaults are the `nano` preset.

    q_lora_rank None means a plain `q_proj` (Moonlight). rope_scaling is None or a YaRN dict with the keys
    factor, original_max_position_embeddings, beta_fast, beta_slow, mscale, mscale_all_dim. Raises ValueError
    for sizes that cannot work together.
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
        if self.rope_scaling is not None:  # one spelling, and a copy of our own
            other = self.rope_scaling.keys() - {"type", "rope_type", "rope_theta"}
            rest = {k: v for k, v in self.rope_scaling.items() if k in other}
            self.rope_scaling = {"type": _rope_type(self.rope_scaling), **rest}
        self._check()

    def _check(self):
        """Refuse what this architecture cannot express, with one line that says what to change."""
        counts = (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "kv_lora_rank",
            "v_head_dim",
            "qk_nope_head_dim",
            "qk_rope_head_dim",
            "intermediate_size",
            "moe_intermediate_size",
            "n_group",
            "n_routed_experts",
            "num_experts_per_tok",
            "max_position_embeddings",
        )
        for name in counts:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(
                    f"KimiConfig: {name} must be a whole number from 1, not {getattr(self, name)!r}"
                )
        for name in ("first_k_dense_replace", "n_shared_experts"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(
                    f"KimiConfig: {name} must be a whole number from 0, not {getattr(self, name)!r}"
                )
        grouped = self.num_key_value_heads != self.num_attention_heads
        unsupported = {
            "num_key_value_heads must equal num_attention_heads (MLA keeps no separate key heads)": grouped,
            "hidden_act must be 'silu'": self.hidden_act != "silu",
            "scoring_func must be 'sigmoid'": self.scoring_func != "sigmoid",
            "topk_method must be 'noaux_tc'": self.topk_method != "noaux_tc",
            "attention_bias must be false": self.attention_bias,
            "attention_dropout must be 0": self.attention_dropout != 0,
            "moe_layer_freq must be 1": self.moe_layer_freq != 1,
            "qk_rope_head_dim must be even": self.qk_rope_head_dim % 2 != 0,
            "num_experts_per_tok must not exceed n_routed_experts": self.num_experts_per_tok
            > self.n_routed_experts,
            "n_group must divide n_routed_experts": self.n_routed_experts % max(self.n_group, 1) != 0,
            "topk_group must lie between 1 and n_group": not 1 <= self.topk_group <= self.n_group,
            "n_group > 1 needs at least two experts a group": self.n_group > 1
            and self.n_routed_experts < 2 * self.n_group,
            "the topk_group groups must hold num_experts_per_tok experts": self.topk_group
            * (self.n_routed_experts // max(self.n_group, 1))
            < self.num_experts_per_tok,
            "rope_scaling must be None or of type 'yarn'": self.rope_scaling is not None
            and _rope_type(self.rope_scaling) != "yarn",
            "rope_scaling of type 'yarn' needs a factor": self.rope_scaling is not None
            and "factor" not in self.rope_scaling,
            "rope_theta and rms_norm_eps must be above 0": not (
                self.rope_theta > 0 and self.rms_norm_eps > 0
            ),
        }
        for rule, broken in unsupported.items():
            if broken:
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
        """A copy with some fields replaced (and checked again)."""
        return replace(self, **overrides)

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

    def count_parameters(self) -> ParameterCount:
        """Parameters of the whole model, without building it. The router bias is a buffer and not counted."""
        h, heads = self.hidden_size, self.num_attention_heads
        query = (
            h * heads * self.qk_head_dim
            if self.q_lora_rank is None
            else self.q_lora_rank * (h + 1 + heads * self.qk_head_dim)
        )
        attention = (
            query
            + h * self.latent_dim
            + self.kv_lora_rank
            + self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
            + heads * self.v_head_dim * h
        )
        layers, expert = self.num_hidden_layers, 3 * h * self.moe_intermediate_size
        dense_layers = min(self.first_k_dense_replace, layers)
        moe_layers = layers - dense_layers
        return ParameterCount(
            embeddings=self.vocab_size * h,
            head=0 if self.tie_word_embeddings else self.vocab_size * h,
            attention=layers * attention,
            dense_mlp=dense_layers * 3 * h * self.intermediate_size,
            routed_experts=moe_layers * self.n_routed_experts * expert,
            activated_experts=moe_layers * self.num_experts_per_tok * expert,
            shared_experts=moe_layers * self.n_shared_experts * expert,
            router=moe_layers * self.n_routed_experts * h,
            norms=(2 * layers + 1) * h,
        )

    def flops_per_token(self, context: int) -> int:
        """Forward FLOPs for one token that attends to `context` keys, naive attention; training costs three
        times this.

        A multiply-add counts two. The embedding is a look-up and costs nothing; the head is a matmul.
        """
        count = self.count_parameters()
        matmuls = count.activated_with_head - count.norms
        per_key = self.num_hidden_layers * self.num_attention_heads * (self.qk_head_dim + self.v_head_dim)
        return 2 * (matmuls + per_key * context)

    def kv_cache_bytes_per_token(self, bytes_per_element: int = 2, kind: str = "mla", groups: int = 8) -> int:
        """Cache of one token over all layers. kind: "mla" the latent; "mha" every head's key and value;
        "gqa" `groups` key-value heads; "mqa" one."""
        head = self.qk_head_dim + self.v_head_dim
        elements = {
            "mla": self.latent_dim,
            "mha": self.num_attention_heads * head,
            "gqa": groups * head,
            "mqa": head,
        }
        if kind not in elements:
            raise ValueError(f"unknown kind of cache {kind!r}; choose one of: {', '.join(elements)}")
        return self.num_hidden_layers * elements[kind] * bytes_per_element

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
        """From a config.json. Keys we do not know are ignored; fields it leaves out take transformers'
        defaults for DeepSeek-V3 where those differ from ours. Understands transformers 4 (`rope_theta`,
        `rope_scaling`) and 5 (`rope_parameters`). ValueError for another model family or for half-split
        RoPE."""
        if values.get("model_type", "deepseek_v3") not in ("deepseek_v3", "kimi_k2"):
            family = values["model_type"]
            raise BadFile(f"config.json is of model_type {family!r}; this reads deepseek_v3 and kimi_k2")
        if values.get("rope_interleave") is False:
            raise BadFile("config.json says rope_interleave false; this reads interleaved RoPE only")
        known = {f.name for f in fields(cls)}
        given = {k: v for k, v in values.items() if k in known}
        return cls(**{**HF_DEFAULTS, **given, **_rope_settings(values)})

    def save(self, path: str | Path) -> None:
        """Write config.json (a file, or a folder that gets one)."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> KimiConfig:
        """Read config.json (a file, or the folder that holds it). FileNotFoundError or ValueError."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        if not path.exists():
            raise MissingFile(f"no config.json at {path}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadFile(f"{path} is not valid JSON ({error}); is it truncated?") from None
        if not isinstance(values, dict):
            raise BadFile(f"{path} holds no settings")
        try:
            return cls.from_dict(values)
        except (TypeError, ValueError) as error:
            raise BadFile(f"{path}: {error}") from None


def _rope_type(rope: dict) -> str:
    return rope.get("rope_type", rope.get("type", "default"))


def _rope_settings(values: dict) -> dict:
    """rope_theta and rope_scaling from either spelling of config.json."""
    rope = values.get("rope_parameters") or values.get("rope_scaling")
    theta = (rope or {}).get("rope_theta", values.get("rope_theta", 10000.0))
    if rope is None or _rope_type(rope) == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    return {"rope_theta": theta, "rope_scaling": rope}


@dataclass(frozen=True)
class ParameterCount:
    """Where the parameters are. `embeddings` is the input table, `head` the output matrix (0 when tied).

    `total` and `activated` take in both; the `_without_embeddings` forms neither, as Moonlight reports;
    `activated_with_head` adds only the head, which every token multiplies by (the input table is a look-up).
    """

    embeddings: int
    head: int
    attention: int
    dense_mlp: int
    routed_experts: int
    activated_experts: int
    shared_experts: int
    router: int
    norms: int

    @property
    def total_without_embeddings(self) -> int:
        return (
            self.attention
            + self.dense_mlp
            + self.routed_experts
            + self.shared_experts
            + self.router
            + self.norms
        )

    @property
    def activated_without_embeddings(self) -> int:
        return self.total_without_embeddings - self.routed_experts + self.activated_experts

    @property
    def total(self) -> int:
        return self.total_without_embeddings + self.embeddings + self.head

    @property
    def activated_with_head(self) -> int:
        return self.activated_without_embeddings + (self.head or self.embeddings)

    @property
    def activated(self) -> int:
        return self.activated_without_embeddings + self.embeddings + self.head
