"""FlexAttention on a CPU, for tests. Its dense form computes everything anywhere, but refuses maxima and gradients on a
CPU, for which it has no fast kernel; here the refusals are lifted, and nothing is compiled to machine code."""

import torch
from torch.nn.attention import flex_attention

from kimi_mini.model.kernels.cuda import attention

OPTIONS = dict(
    BACKEND="AUTO",
    PRESCALE_QK=False,
    ROWS_GUARANTEED_SAFE=False,
    BLOCKS_ARE_CONTIGUOUS=False,
    WRITE_DQ=True,
    OUTPUT_LOGSUMEXP=True,
    OUTPUT_MAX=True,
)


def lift(monkeypatch, backend="eager"):
    """Until the test's end: `kernels.cuda.attention` takes FlexAttention on every device."""
    monkeypatch.setattr(attention, "can_fuse", lambda length, device: length % attention.WHOLE == 0)
    monkeypatch.setattr(attention, "MASKS", {})
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(flex_attention, "_apply_kernel_options", lambda *arguments: dict(OPTIONS))
    compiled = torch.compile(flex_attention.flex_attention, dynamic=False, backend=backend)
    monkeypatch.setattr(attention, "compiled_flex", lambda: compiled)
