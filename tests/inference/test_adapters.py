"""Several adapters in one batch: each row as if its adapter were merged and it were alone."""

import pytest
import torch
from tiny import tiny_model

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.adapters import Adapters
from kimi_mini.inference.generation import generate
from kimi_mini.inference.writer import Row, Writer
from kimi_mini.model.compact import int4
from kimi_mini.model.compact.lora import TARGETS, Adapter


def learned(model, rank, alpha, seed, targets=TARGETS):
    adapter = Adapter.new(model, rank, alpha, targets, seed)
    generator = torch.Generator().manual_seed(seed)
    for name in adapter.names:
        torch.nn.init.normal_(adapter[name].b, 0.0, 0.15, generator=generator)
    return adapter


@pytest.fixture(params=[{}, {"q_lora_rank": 16, "n_shared_experts": 0}])
def model(request):
    return tiny_model(**request.param).eval()


@pytest.fixture
def adapters(model):
    """Ranks, scales and places that differ."""
    return {
        "one": learned(model, 4, 12.0, 1),
        "two": learned(model, 6, 6.0, 2),
        "experts": learned(model, 3, 9.0, 3, ["experts"]),
    }


def prompts(rows, length=9):
    return torch.randint(0, 1000, (rows, length), generator=torch.Generator().manual_seed(4))


def row(context, name, most=12):
    return Row(context, most, frozenset(), adapter=name)


def alone(model, adapters, context, name, most=12):
    """What the merged model writes, by itself."""
    whole = model if name is None else adapters[name].merged(model)
    return generate(whole, torch.tensor([context]), most, eos_token_id=[])[0, len(context) :].tolist()


NAMES = ["one", None, "two", "experts", "two", "one"]


@pytest.mark.parametrize(
    "alike", [False, True]
)  # prompts: read once by all rows of one adapter, where they are
def test_each_row_is_that_of_its_merged_model(model, adapters, alike):
    ids = prompts(1).expand(len(NAMES), -1) if alike else prompts(len(NAMES))
    found = generate(Adapters(model, adapters), ids, 15, eos_token_id=[], rows=NAMES)
    wanted = [alone(model, adapters, context, name, 15) for context, name in zip(ids.tolist(), NAMES)]
    assert found[:, ids.shape[1] :].tolist() == wanted
    assert len({tuple(line) for line in wanted}) == len(set(NAMES) if alike else NAMES)


def test_logits_are_those_of_the_merged_model(model, adapters):
    ids, served = prompts(4), Adapters(model, adapters)
    which = [None, "one", "two", "experts"]
    with torch.no_grad(), served.rows(torch.tensor([served.number(name) for name in which])):
        found = served.twin(ids).logits
    for index, name in enumerate(which):
        whole = model if name is None else adapters[name].merged(model)
        expected = whole(ids[index : index + 1]).logits[0]
        torch.testing.assert_close(found[index], expected, atol=2e-5, rtol=1e-4)


def test_adapters_of_a_model_that_rounds_its_experts_round_them_too(model, adapters):
    """The base is rounded and what an adapter adds is not, as in training."""
    ids = prompts(3)
    with torch.no_grad(), int4.aware(model):
        served = Adapters(model, adapters)
        with served.rows(torch.tensor([served.number(name) for name in (None, "one", "experts")])):
            found = served.twin(ids).logits
        base = model(ids[:1]).logits[0]
    torch.testing.assert_close(found[0], base, atol=2e-5, rtol=1e-4)
    int4.round_experts(model)
    for index, name in ((1, "one"), (2, "experts")):
        expected = adapters[name].merged(model)(ids[index : index + 1]).logits[0]
        torch.testing.assert_close(found[index], expected, atol=2e-5, rtol=1e-4)


def test_rows_of_different_lengths_that_come_and_go(model, adapters):
    """A place is taken over by another adapter's row, whose beginning it seems to hold already."""
    served = Adapters(model, adapters)
    writer = Writer(served, 3, 60)
    begins = prompts(1, 20)[0].tolist()
    first = [row(context, name) for context, name in zip(([5, 6, 7], [8] * 9, begins), ("one", "two", None))]
    for place, one in enumerate(first):
        writer.join(place, one)
    writer.run()
    writer.select([2, 0])  # (None, one)
    second = [row(begins, "two"), row([5, 6, 7], "one")]
    for place, one in enumerate(second):
        writer.join(place, one)
    assert len(writer.pending[0]) == len(begins)  # nothing of the base's latents is kept
    writer.run()
    for one in first + second:
        assert one.ids == alone(model, adapters, one.context, one.adapter)


def test_latents_of_the_same_adapter_are_kept(model, adapters):
    writer = Writer(Adapters(model, adapters), 1, 60)
    one = row([5, 6, 7], "one")
    writer.join(0, one)
    writer.run()
    writer.join(0, row([5, 6, 7, *one.ids, 3], "one"))
    assert len(writer.pending[0]) == 2


def test_the_model_itself_stays_as_it_was(model, adapters):
    ids = prompts(2)
    before, logits = generate(model, ids, 10), model(ids).logits
    served = Adapters(model, adapters)
    generate(served, ids, 10, rows=["one", None])
    assert torch.equal(generate(model, ids, 10), before) and torch.equal(model(ids).logits, logits)
    twin = dict(served.twin.named_parameters())
    assert all(twin[name] is param for name, param in model.named_parameters())


def test_without_adapters_it_is_the_base(model):
    ids = prompts(2)
    assert torch.equal(generate(Adapters(model, {}), ids, 10), generate(model, ids, 10))


def test_unknown_names_and_other_models_are_one_line(model, adapters):
    ids = prompts(1)
    with pytest.raises(KimiError, match="no adapter is called 'three': there are one, two, experts"):
        generate(Adapters(model, adapters), ids, 3, rows=["three"])
    with pytest.raises(KimiError, match="has no adapters"):
        generate(model, ids, 3, rows=["one"])
    with pytest.raises(KimiError, match="of another model"):
        Adapters(tiny_model(hidden_size=48), adapters)
