"""Decoding: cached equals uncached for ragged rows, rewinding and selecting, sampling, stopping."""

import dataclasses

import pytest
import torch

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.inference import cache as caching
from kimi_mini.inference import decoder as decoding
from kimi_mini.inference.cache import DecodeStep
from kimi_mini.inference.decoder import Decoder
from kimi_mini.inference.generation import generate
from kimi_mini.inference.sampling import sample

CONFIG = KimiConfig.preset("nano", vocab_size=64, num_hidden_layers=3, initializer_range=0.15)


def make(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    return KimiMini(config).eval()


def random_rows(lengths, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, CONFIG.vocab_size, (n,), generator=g).tolist() for n in lengths]


def uncached(model, rows):
    """Next-token logits of each row alone, with no cache."""
    with torch.no_grad():
        return torch.stack([model(torch.tensor([row])).logits[0, -1] for row in rows])


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def spy_on(monkeypatch, owner, name, told):
    """`told` hears of each call of a function, with its arguments, before it does what it does."""
    through = getattr(owner, name)
    monkeypatch.setattr(
        owner, name, lambda *given, **named: told(*given, **named) or through(*given, **named)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_lora_rank": 24},
        {"first_k_dense_replace": 2},
        {"num_attention_heads": 5},
        {
            "rope_scaling": {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            }
        },
        {"n_shared_experts": 0},
        {"n_shared_experts": 2},
        {"n_group": 4, "topk_group": 2},
        {"norm_topk_prob": False},
        {"tie_word_embeddings": True},
        {"hidden_size": 256, "kv_lora_rank": 16},
        {"rms_norm_eps": 1e-2},
        {"rms_norm_eps": 1e-2, "q_lora_rank": 24},
    ],
)
@pytest.mark.parametrize("long", [1, 10**9])  # row by row, and all at once
def test_token_by_token_equals_uncached(monkeypatch, changes, long):
    monkeypatch.setattr(caching, "LONG", long)
    model = make(CONFIG.replace(num_key_value_heads=None, **changes))
    for router in model.routers():
        router.e_score_correction_bias.normal_(0, 0.2)
    rows = random_rows([9, 9, 9])
    decoder = Decoder(model, 3, 9)
    for i in range(9):
        logits = decoder.extend([[row[i]] for row in rows])
        close(logits, uncached(model, [row[: i + 1] for row in rows]))


@pytest.mark.parametrize("long", [1, 20, 10**9])  # every step row by row, some, none
@pytest.mark.parametrize("folds", [True, False])
def test_ragged_chunks_equal_uncached(monkeypatch, long, folds):
    monkeypatch.setattr(caching, "LONG", long)
    monkeypatch.setattr(caching, "BLOCK", 3)
    monkeypatch.setattr(Decoder, "folds", folds)
    model = make()
    decoder, seen = Decoder(model, 4, 60), [[], [], [], []]
    turns = [
        (5, 1, 12, 3),
        (1, 1, 1, 1),
        (7, 0, 2, 20),
        (0, 3, 0, 0),
        (2, 2, 2, 2),
        (0, 0, 1, 0),
        (1, 0, 1, 1),
    ]
    for turn, lengths in enumerate(turns):
        chunks = random_rows(lengths, seed=turn)
        logits = decoder.extend(chunks)
        seen = [old + new for old, new in zip(seen, chunks)]
        expected = uncached(model, seen)
        for row, n in enumerate(lengths):
            close(logits[row], expected[row] if n else torch.zeros(CONFIG.vocab_size))
        assert decoder.lengths.tolist() == [len(row) for row in seen]


def test_a_long_row_is_looked_at_without_a_copy_of_any(monkeypatch):
    """Of a hundred places that are a thousand tokens long, one that rests made each step copy all others."""
    decoder, looks = Decoder(make(), 3, caching.LONG + 2), []
    decoder.extend(random_rows([caching.LONG, 3, 5]))
    spy_on(monkeypatch, DecodeStep, "look", lambda *given: looks.append(given))
    decoder.extend([[1], [1], []])
    assert not looks
    decoder.truncate([4, 3, 5])
    decoder.extend([[1], [1], []])
    assert len(looks) == CONFIG.num_hidden_layers


def test_rows_that_begin_alike_are_read_once(monkeypatch):
    """And go on as if each had read for itself; what differs in its last token, or was begun before, is read apart."""
    model, prompt, read = make(), random_rows([7])[0], []
    for way in ("_chunk", "_behind"):
        spy_on(monkeypatch, Decoder, way, lambda self, tokens, counts: read.append(len(tokens)))
    decoder, seen = Decoder(model, 5, 20), [[], [], [], [], [3]]
    decoder.extend(seen)
    for chunks in ([prompt, prompt, [*prompt[:-1], 1], prompt, prompt], [[5], [6], [5, 5], [], [5, 5]]):
        logits = decoder.extend(chunks)
        seen = [old + new for old, new in zip(seen, chunks)]
        for row, fed in enumerate(chunks):
            close(logits[row], uncached(model, [seen[row]])[0] if fed else torch.zeros(CONFIG.vocab_size))
        assert decoder.lengths.tolist() == [len(row) for row in seen]
    assert read == [2, 1, 4]  # a row that holds some by itself; a single token is a step


@pytest.mark.parametrize("wide", [1, 16, 30])
@pytest.mark.parametrize("folds", [True, False])
def test_prompts_that_are_read_in_passes_equal_uncached(monkeypatch, wide, folds):
    """However few tokens go through the model at once; and a row that has no room leaves all others as they were."""
    monkeypatch.setattr(decoding, "WIDE", wide)
    monkeypatch.setattr(Decoder, "folds", folds)
    model, lengths = make(), (5, 1, 12, 0, 3, 12)
    reader, seen = Decoder(model, 6, 40), [[] for _ in lengths]
    widths = []  # of what goes through the model itself, and of what goes through its folded matrices
    for owner, name in (model, "hidden_states"), (reader.folded, "read"):
        if owner is not None:
            spy_on(monkeypatch, owner, name, lambda ids, *_, **__: widths.append(ids.numel()))
    for turn in (0, 1):
        chunks = random_rows(lengths, seed=turn)
        seen = [old + new for old, new in zip(seen, chunks)]
        widths.clear()
        logits = reader.extend(chunks)
        assert all(logits[3] == 0) and sum(widths) >= 33 and all(width <= max(wide, 12) for width in widths)
        expected = uncached(model, [row or [0] for row in seen])
        for row in (0, 1, 2, 4, 5):
            close(logits[row], expected[row])
    with pytest.raises(ValueError, match="holds 40 tokens"):
        reader.extend([[1], [1] * 39, [], [], [], []])
    assert reader.lengths.tolist() == [len(row) for row in seen]


def test_a_row_may_fill_the_cache_to_the_last_slot():
    """Padding of a short row must not overwrite the last tokens of a full one."""
    model = make()
    decoder = Decoder(model, 2, 10)
    a, b = random_rows([10, 3])
    decoder.extend([a[:9], b[:1]])
    close(decoder.extend([a[9:], b[1:]]), uncached(model, [a, b]))
    with pytest.raises(ValueError, match="holds 10 tokens"):
        decoder.extend([[1], []])


def test_truncate_forgets():
    model = make()
    decoder = Decoder(model, 2, 40)
    a, b, more = random_rows([10, 8, 6])
    decoder.extend([a, b])
    decoder.truncate([4, 8])
    assert decoder.lengths.tolist() == [4, 8]
    close(decoder.extend([more, [7]]), uncached(model, [a[:4] + more, [*b, 7]]))
    decoder.truncate(torch.tensor([0, 9]))
    close(decoder.extend([more[:1], [3]])[:1], uncached(model, [more[:1]]))
    with pytest.raises(ValueError, match="rewind"):
        decoder.truncate([99, 1])


def test_select_keeps_rows_in_order():
    model = make()
    decoder = Decoder(model, 4, 30)
    rows = random_rows([6, 3, 9, 4])
    decoder.extend(rows)
    decoder.select([2, 0])
    assert decoder.lengths.tolist() == [9, 6]
    close(decoder.extend([[1], [2]]), uncached(model, [[*rows[2], 1], [*rows[0], 2]]))


def test_step_equals_extend():
    model, rows = make(), random_rows([4, 7])
    a, b = Decoder(model, 2, 20), Decoder(model, 2, 20)
    a.extend(rows)
    b.extend(rows)
    close(a.step(torch.tensor([5, 6])), b.extend([[5], [6]]))


def test_a_cache_without_rope_on_the_key_is_caught():
    """Mutant: every new token takes position 0."""
    model, rows = make(), random_rows([6])
    decoder = Decoder(model, 1, 8)
    extend = decoder.cache.extend

    def extend_at_zero(counts):
        chunk = extend(counts)
        return dataclasses.replace(chunk, positions=torch.zeros_like(chunk.positions))

    decoder.cache.extend = extend_at_zero
    with pytest.raises(AssertionError):
        close(decoder.extend(rows), uncached(model, rows))


def test_the_decoder_sees_weights_that_changed_before_it_was_made():
    model, rows = make(), random_rows([5])
    Decoder(model, 1, 8).extend(rows)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    close(Decoder(model, 1, 8).extend(rows), uncached(model, rows))


def test_decoding_leaves_training_mode_and_statistics_alone():
    model = make().train()
    decoder = Decoder(model, 1, 8)
    decoder.extend([[1, 2, 3]])
    decoder.step(torch.tensor([4]))
    assert model.training and model.statistics.loads.sum() == 0 and model.statistics.max_logits.isinf().all()


def test_wrong_number_of_rows_and_too_long_caches_are_refused():
    with pytest.raises(ValueError, match="2 rows"):
        Decoder(make(), 2, 8).extend([[1]])
    with pytest.raises(ValueError, match="max_position_embeddings"):
        Decoder(make(), 2, CONFIG.max_position_embeddings + 1)


# ---- generate ------------------------------------------------------------------------------------------


def greedy_without_cache(model, ids, new):
    for _ in range(new):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return ids


def test_greedy_generation_equals_the_uncached_loop():
    model = make()
    ids = torch.tensor(random_rows([6, 6, 6]))
    assert torch.equal(generate(model, ids, 12), greedy_without_cache(model, ids, 12))


def test_generation_stops_and_pads_after_eos():
    model = make()
    ids = torch.tensor(random_rows([6, 6, 6]))
    free = greedy_without_cache(model, ids, 12)
    eos = free[0, 8].item()
    out = generate(model, ids, 12, eos_token_id=eos)
    for row, full in zip(out.tolist(), free.tolist()):
        new = full[6:]
        end = new.index(eos) + 1 if eos in new else len(new)
        assert row[6 : 6 + end] == new[:end][: len(row) - 6]
        assert all(token == eos for token in row[6 + end :])
    first = free[0, 6:].tolist().index(eos)
    assert torch.equal(generate(model, ids[:1], 12, eos_token_id=eos), free[:1, : first + 7])


def test_generation_takes_end_and_padding_from_the_config():
    """As transformers does; a list of ends, as the shipped agents have one. Mutants: either is ignored."""
    ids = torch.tensor(random_rows([6, 6, 6]))
    free = greedy_without_cache(make(), ids, 12)
    end, pad = free[0, 8].item(), 3
    model = make(CONFIG.replace(eos_token_id=[end, CONFIG.vocab_size - 1], pad_token_id=pad))
    out = generate(model, ids, 12)
    stop = out[0].tolist().index(end, 6)
    assert (out[0, stop + 1 :] == pad).all() and out.shape[1] > stop + 1 and not torch.equal(out, free)


@pytest.mark.parametrize(
    ("ids", "new", "temperature"),
    [
        (torch.zeros(1, 0, dtype=torch.long), 3, 0.0),
        (torch.zeros(0, 3, dtype=torch.long), 3, 0.0),
        (torch.tensor([1, 2]), 3, 0.0),
        (torch.tensor([[1, 2]]), -1, 0.0),
        (torch.tensor([[1, 2]]), 3, float("nan")),
        (torch.tensor([[1, 2]]), 3, float("inf")),
    ],
)
def test_what_cannot_be_continued_is_refused(ids, new, temperature):
    with pytest.raises(ValueError, match="must"):
        generate(make(), ids, new, temperature)


def test_a_temperature_next_to_zero_is_greedy():
    model, ids = make(), torch.tensor(random_rows([6]))
    assert torch.equal(generate(model, ids, 8, 1e-40), generate(model, ids, 8))


def test_zero_new_tokens():
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(generate(make(), ids, 0), ids)


def test_sampling_is_seeded():
    model, ids = make(), torch.tensor(random_rows([4]))
    a, b, c = (generate(model, ids, 20, 1.0, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_sample_frequencies_and_log_probabilities():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for temperature in (0.5, 1.0, 2.0):
        ids, logprobs = sample(logits.expand(20000, 4), temperature, torch.Generator().manual_seed(0))
        expected = (logits / temperature).softmax(-1)
        torch.testing.assert_close(torch.bincount(ids, minlength=4) / 20000, expected, atol=0.012, rtol=0)
        torch.testing.assert_close(logprobs.exp(), expected[ids])


def test_sample_greedy_and_refusal():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    ids, logprobs = sample(logits, 0.0)
    assert ids.tolist() == [1]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[:, 1])
    with pytest.raises(ValueError, match="a number from 0"):
        sample(logits, -1.0)


def test_sample_never_takes_an_impossible_token():
    logits = torch.full((5000, 8), float("-inf"))
    logits[:, [2, 5]] = 0.0
    ids, _ = sample(logits, 1.0, torch.Generator().manual_seed(0))
    assert set(ids.tolist()) == {2, 5}


@pytest.mark.parametrize(
    "top_p, kept", [(1e-9, 1), (0.45, 1), (0.55, 2), (0.78, 2), (0.82, 3), (0.96, 4), (1.0, 4)]
)
def test_top_p_keeps_the_likeliest_tokens_that_have_this_share_together(top_p, kept):
    """In any order of the vocabulary; what is drawn, and its log-probability, are among those."""
    shares = torch.tensor([0.15, 0.5, 0.05, 0.3])
    rows = shares.log().expand(2001, -1)
    dice = torch.linspace(0, 1 - 1e-9, 2001, dtype=torch.float64)
    ids, logprobs = sample(rows, 1.0, dice=dice, top_p=top_p)
    allowed = shares.argsort(descending=True)[:kept]
    assert set(ids.tolist()) == set(allowed.tolist())
    close(logprobs.exp(), shares[ids] / shares[allowed].sum())
    for token in allowed.tolist():
        assert (ids == token).double().mean().item() == pytest.approx(
            (shares[token] / shares[allowed].sum()).item(), abs=2e-3
        )
    assert (sample(rows, 0.0, top_p=top_p)[0] == 1).all()
