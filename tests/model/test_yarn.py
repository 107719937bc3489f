"""YaRN against transformers, over settings whose ramps are not whole numbers; wrong versions of it are caught."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_mini import KimiConfig
from kimi_mini.model import rope

NUMBER = st.floats(0.1, 3.0)
SCALING = st.fixed_dictionaries(
    {"type": st.just("yarn"), "factor": st.floats(1.0, 64.0)},
    optional={
        "original_max_position_embeddings": st.integers(8, 8192),
        "beta_fast": st.none() | st.floats(2.0, 64.0),
        "beta_slow": st.none() | st.floats(0.1, 2.0),
        "mscale": st.none() | NUMBER,
        "mscale_all_dim": st.none() | NUMBER,
        "attention_factor": st.none() | NUMBER,
        "truncate": st.booleans(),
    },
)
CONFIG = st.builds(
    lambda scaling, width, theta: KimiConfig.preset(
        "nano",
        rope_scaling=scaling,
        qk_rope_head_dim=2 * width,
        rope_theta=theta,
        max_position_embeddings=4096,
    ),
    SCALING,
    st.integers(2, 40),
    st.floats(1e2, 1e6),
)
# One setting a mutant, each with a fractional ramp
RAMPS = [
    KimiConfig.preset("deepseek_v3"),  # 10.4 .. 22.5
    KimiConfig.preset("k2"),
    KimiConfig.preset(
        "k2", rope_scaling={"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}
    ),
    KimiConfig.preset(
        "k2", rope_scaling={"type": "yarn", "factor": 4.0, "attention_factor": 0.7, "truncate": False}
    ),
]


def check_like_transformers(config: KimiConfig) -> None:
    """Frequencies, gain and softmax scale are those of their DeepSeek-V3."""
    pytest.importorskip("transformers")
    from transformers import DeepseekV3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

    theirs = DeepseekV3Config(**config.to_dict())
    frequencies, gain = ROPE_INIT_FUNCTIONS["yarn"](theirs, torch.device("cpu"))
    torch.testing.assert_close(rope.frequencies(config), frequencies, rtol=1e-5, atol=1e-9)
    assert rope.rotation_gain(config) == pytest.approx(gain)
    with torch.device("meta"):
        assert rope.softmax_scale(config) == pytest.approx(DeepseekV3Attention(theirs, 0).scaling)


@settings(max_examples=150, deadline=None)
@given(CONFIG)
def test_any_yarn_is_that_of_transformers(config):
    check_like_transformers(config)


@pytest.mark.parametrize("config", RAMPS, ids=["deepseek_v3", "k2", "defaults", "untruncated"])
def test_named_ramps_are_those_of_transformers(config):
    check_like_transformers(config)


def with_positions(rope_settings: dict, positions: int = 4096) -> KimiConfig:
    return KimiConfig.preset("nano", rope_scaling=rope_settings, max_position_embeddings=positions)


@pytest.mark.parametrize(("original", "factor"), [(256, 16.0), (1024, 4.0), (3000, 4096 / 3000), (8192, 0.5)])
def test_a_factor_of_null_is_the_stretch_of_the_positions_as_in_transformers(original, factor):
    """Mutant: null is refused, or left for the frequencies to divide by."""
    pytest.importorskip("transformers")
    from transformers import DeepseekV3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    null = {"type": "yarn", "factor": None, "original_max_position_embeddings": original, "mscale": 0.7}
    config = with_positions(null)
    assert config.rope_scaling == {**null, "factor": factor} and null["factor"] is None
    theirs = DeepseekV3Config(**{**config.to_dict(), "rope_scaling": null})
    frequencies, gain = ROPE_INIT_FUNCTIONS["yarn"](theirs, torch.device("cpu"))
    torch.testing.assert_close(rope.frequencies(config), frequencies, rtol=1e-5, atol=1e-9)
    assert rope.rotation_gain(config) == pytest.approx(gain)
    check_like_transformers(config)


def mutate_ramp(monkeypatch, old: str, new: str) -> None:
    import inspect

    source = inspect.getsource(rope)
    assert old in source
    namespace = {}
    exec(compile(source.replace(old, new), rope.__file__, "exec"), namespace)
    for name in ("frequencies", "yarn_range", "rotation_gain", "softmax_scale", "yarn_mscale"):
        monkeypatch.setattr(rope, name, namespace[name])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('if rope.get("truncate", True):', "if False:"),
        ('if rope.get("truncate", True):', "if True:"),
        ("math.floor(low), math.ceil(high)", "round(low), round(high)"),
        ("math.floor(low), math.ceil(high)", "math.ceil(low), math.ceil(high)"),
        ("math.floor(low), math.ceil(high)", "math.floor(low), math.floor(high)"),
        ('"beta_fast") or 32', '"beta_fast") or 16'),
        ('"beta_slow") or 1', '"beta_slow") or 2'),
        ('rope["attention_factor"]', "1.0"),
        ('if rope.get("attention_factor") is not None:', "if False:"),
        ("max(low, 0)", "low"),
        ("yarn_mscale(factor, 1.0)", "1.0"),
        ("or config.max_position_embeddings", "or 4096"),
        ("(high - low)", "(high - low + 1)"),
    ],
)
def test_wrong_ramps_are_caught(monkeypatch, old, new):
    mutate_ramp(monkeypatch, old, new)
    short = KimiConfig.preset(
        "nano", rope_scaling={"type": "yarn", "factor": 8.0}, max_position_embeddings=100
    )
    with pytest.raises(AssertionError):
        for config in [*RAMPS, short]:
            check_like_transformers(config)


def test_the_ramps_above_are_fractional():
    """Or rounding would not show."""
    v3 = RAMPS[0]
    d, theta = v3.qk_rope_head_dim, v3.rope_theta
    ends = [d * math.log(4096 / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (32, 1)]
    assert [round(end, 1) for end in ends] == [10.5, 22.5]


def test_the_gain_is_that_of_mscale_over_that_of_mscale_all_dim():
    """Worked out by hand for a stretch of four."""
    scaling = {"type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5}
    config = KimiConfig.preset("nano", rope_scaling=scaling | {"original_max_position_embeddings": 256})
    expected = (0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1)
    assert rope.rotation_gain(config) == pytest.approx(expected)
