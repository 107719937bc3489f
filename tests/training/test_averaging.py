"""The mean of weights is their mean, of everything that is a number of the model, and of one shape alone."""

import pytest
import torch

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.base.errors import KimiError
from kimi_mini.training.averaging import set_to_mean


def nano(seed, **changes):
    """A small model with random weights, and random biases of its routers, which start at zero."""
    torch.manual_seed(seed)
    model = KimiMini(KimiConfig.preset("nano", **changes))
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point() and "bias" in name:
                buffer.normal_()
    return model


def test_every_number_is_the_mean_of_all():
    models = [nano(seed) for seed in range(3)]
    wanted = {
        name: torch.stack([model.state_dict()[name] for model in models]).mean(0)
        for name, value in models[0].state_dict().items()
        if value.is_floating_point()
    }
    others = [{k: v.clone() for k, v in model.state_dict().items()} for model in models[1:]]
    set_to_mean(models[0], models[1:])
    found = models[0].state_dict()
    assert any("bias" in name for name in wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
    for model, before in zip(models[1:], others):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_alone_it_is_itself():
    model = nano(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    set_to_mean(model, [])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_shape_is_refused_and_nothing_is_changed():
    model = nano(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KimiError, match="one preset"):
        set_to_mean(model, [nano(1, vocab_size=512)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
