"""The wrong edits: well-known mistakes first, then their neighbours. See run.py."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """In `file`, `old` (which stands there once) becomes `new`; `tests` are those that should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def edits(file: str, tests: str, *changes: tuple[str, str, str]) -> list[Mutant]:
    """Several mutants of one file: (name, old, new) each; tests: files or folders below tests/, by blanks."""
    paths = tuple(f"tests/{path}" for path in tests.split())
    return [Mutant(name, f"kimi_mini/{file}", old, new, paths) for name, old, new in changes]


MUTANTS = [
    *edits(
        "model/rope.py",
        "model/test_rope.py model/test_yarn.py",
        (
            "mscale: natural logarithm twice",
            "0.1 * mscale * math.log(factor) + 1.0",
            "0.1 * mscale * math.log10(factor) + 1.0",
        ),
        (
            "mscale not squared",
            'config.rope_scaling["mscale_all_dim"]) ** 2',
            'config.rope_scaling["mscale_all_dim"])',
        ),
        (
            "softmax scale of the nope part alone",
            "scale = config.qk_head_dim**-0.5",
            "scale = config.qk_nope_head_dim**-0.5",
        ),
        (
            "yarn: ramp reversed",
            "freqs * (1 - ramp) + freqs / config.rope_scaling",
            "freqs * ramp + freqs / config.rope_scaling",
        ),
        (
            "yarn: every frequency interpolated",
            "- low) / (high - low)).clamp(0, 1)",
            "- low) / (high - low)).clamp(1, 1)",
        ),
        ("yarn: ramp not clamped", "(high - low)).clamp(0, 1)", "(high - low))"),
        (
            "yarn: low rounded up",
            "low, high = math.floor(low), math.ceil(high)",
            "low, high = math.ceil(low), math.ceil(high)",
        ),
        (
            "yarn: high rounded down",
            "low, high = math.floor(low), math.ceil(high)",
            "low, high = math.floor(low), math.floor(high)",
        ),
        (
            "yarn: low not rounded",
            "low, high = math.floor(low), math.ceil(high)",
            "low, high = low, math.ceil(high)",
        ),
        ("yarn: beta_fast's default", 'rope.get("beta_fast") or 32', 'rope.get("beta_fast") or 16'),
        ("yarn: beta_slow's default", 'rope.get("beta_slow") or 1)', 'rope.get("beta_slow") or 2)'),
        ("yarn: turns without 2 pi", "length / (turns * 2 * math.pi)", "length / turns"),
        ("yarn: attention_factor ignored", 'if rope.get("attention_factor") is not None:', "if False:"),
        (
            "yarn: gain inverted",
            "yarn_mscale(factor, own) / yarn_mscale(factor, everywhere)",
            "yarn_mscale(factor, everywhere) / yarn_mscale(factor, own)",
        ),
        (
            "rope: halves in place of pairs",
            "unflatten(-1, (-1, 2))  # (..., d_r / 2, 2)",
            "unflatten(-1, (2, -1)).transpose(-1, -2).contiguous()",
        ),
        (
            "rope: positions from 1",
            "torch.outer(torch.arange(length, dtype",
            "torch.outer(torch.arange(1, length + 1, dtype",
        ),
    ),
    *edits(
        "model/moe.py",
        "model/test_moe.py model/test_statistics.py",
        (
            "router: the bias in the gate weights",
            "weights = scores.gather(1, indices)",
            "weights = (scores + self.e_score_correction_bias).gather(1, indices)",
        ),
        ("router: softmax", "self.weight.float()).sigmoid())", "self.weight.float()).softmax(-1))"),
        ("router: weights not normalised", "if self.normalise:", "if False:"),
        ("router: no scaling factor", "return indices, weights * self.factor", "return indices, weights"),
        (
            "router: factor before normalising",
            "+ 1e-20)\n        return indices, weights * self.factor",
            "+ 1e-20) * self.factor ** 0.5\n        return indices, weights",
        ),
        (
            "router: chosen without the bias",
            "choice = scores + self.e_score_correction_bias",
            "choice = scores",
        ),
        (
            "router: groups masked with 0",
            'masked_fill(~keep[..., None], float("-inf"))',
            "masked_fill(~keep[..., None], 0.0)",
        ),
        ("router: best group by one expert", "grouped.topk(2, -1)", "grouped.topk(1, -1)"),
        (
            "bias: the wrong way",
            "step = torch.sign(load.mean() - load)",
            "step = torch.sign(load - load.mean())",
        ),
        (
            "bias: median in place of mean",
            "torch.sign(load.mean() - load)",
            "torch.sign(load.median() - load)",
        ),
        (
            "bias: size of the violation",
            "step = torch.sign(load.mean() - load)",
            "step = (load.mean() - load) / load.mean()",
        ),
        ("bias: centred rule not centred", "step = step - step.mean()", "step = step"),
        ("moe: shared expert left out", "out = out + self.shared_experts(flat)", "out = out"),
        ("moe: padding counted in the loads", "None if valid is None else valid.flatten()", "None"),
    ),
    *edits(
        "model/moe.py",
        "model/test_config.py",
        ("gate factor: p not squared", "p.square().sum(-1).rsqrt()", "p.sum(-1).rsqrt()"),
        ("gate factor: softmax", "values.sigmoid()", "values.softmax(-1)"),
    ),
    *edits(
        "model/kernels/norm.py",
        "model/test_kernels.py model/test_parity.py",
        (
            "norm: weight before the cast",
            "return (wide * factor).to(x.dtype).mul_(weight)",
            "return (wide * factor * weight).to(x.dtype)",
        ),
        ("norm: without eps", ".add_(eps)", ".add_(0)"),
    ),
    *edits(
        "training/loop.py",
        "training/test_train.py training/test_muonclip.py",
        ("loop: a model in evaluation mode stays there", "    model.train()\n    try:", "    try:"),
    ),
    *edits(
        "pipeline/synthesise.py",
        "pipeline/test_plan.py training/test_synthesis.py pipeline/test_synthesise.py",
        (
            "filter: held-out tasks are not looked for",
            "    synthesis.refuse_held_out(item for items in kept.values() for item in items)\n",
            "",
        ),
        ("filter: an empty level goes on", "if not counts[1]:", "if False:"),
    ),
    *edits(
        "worlds/shop/world.py",
        "worlds/test_worlds.py",
        (
            "shop: an answer that lists every item",
            "return Verdict(plain(answer) == right,",
            "return Verdict(right in plain(answer),",
        ),
    ),
    *edits(
        "model/rope.py",
        "model/test_rope.py model/test_yarn.py",
        ("yarn: the ramp a place too late", 'device="cpu") - low)', 'device="cpu") - low - 1)'),
    ),
    *edits(
        "base/ranks.py",
        "base/test_processes.py training/test_distributed.py",
        ("ranks: the total is the largest", "op=dist.ReduceOp.SUM", "op=dist.ReduceOp.MAX"),
        (
            "ranks: results rank after rank",
            "return [found[index] for index in range(len(found))]",
            "return [*found.values()]",
        ),
    ),
    *edits(
        "training/batch.py",
        "training/test_batch.py",
        (
            "batch: what no rank takes",
            "sizes = [*runs(lengths, tokens, low), *[0] * count]",
            "sizes = [*runs(lengths, tokens, low // 2), *[0] * count]",
        ),
        (
            "batch: finished rows cost nothing",
            "before = closed if joins else closed + rows * longest",
            "before = closed",
        ),
        ("batch: empty ranks unknown", "*[0] * count]", "*[0]]"),
    ),
    *edits(
        "model/layers.py",
        "model/test_kimi.py model/test_parity.py model/test_kernels.py",
        (
            "mlp: gate and up swapped",
            "F.silu(self.gate_proj(x)) * self.up_proj(x)",
            "F.silu(self.up_proj(x)) * self.gate_proj(x)",
        ),
        ("mlp: gelu", "F.silu(self.gate_proj(x))", "F.gelu(self.gate_proj(x))"),
    ),
    *edits(
        "model/kernels/attention.py",
        "model/test_kernels.py model/test_attention.py",
        (
            "attention: the first block dropped",
            "for start in range(0, length, block):",
            "for start in range(block if length > block else 0, length, block):",
        ),
        (
            "attention: later keys seen",
            'masked_fill_(hidden[: end - start, : end - start], float("-inf"))',
            "add_(0.0)",
        ),
        ("attention: maximum over padding", "if valid is not None:", "if False:"),
        (
            "attention: maximum of the absolute value",
            "torch.amax(scores, -1, out=row_max[:, start:end])",
            "torch.amax(scores.abs(), -1, out=row_max[:, start:end])",
        ),
        (
            "attention: a maximum for all heads",
            "row_max.amax((0, 2)).float()",
            "row_max.amax().expand(h).float()",
        ),
        ("attention: gradient of the keys unscaled", "q[:, start:end], ctx.scale)", "q[:, start:end], 1.0)"),
        ("attention: gradient of values of the last block", "d_v[:, :end].add_(for_v)", "pass"),
        (
            "attention: bf16 logits",
            "return scaled_bmm(a.float(), b.float(), scale)",
            "return scaled_bmm(a, b, scale).float()",
        ),
    ),
    *edits(
        "model/kernels/experts.py",
        "model/test_moe.py model/test_kernels.py",
        (
            "experts: another order in the loop",
            "zip(rows.split(sizes), weight)",
            "zip(rows.split(sizes), weight.flip(0))",
        ),
        (
            "experts: weights of another token",
            "in_order[places] = weights.to(rows.dtype)",
            "in_order[places.flip(1)] = weights.to(rows.dtype)",
        ),
        (
            "experts: mean of the choices",
            'F.embedding_bag(places, grad.contiguous(), mode="sum")',
            'F.embedding_bag(places, grad.contiguous(), mode="mean")',
        ),
        ("experts: gate and up swapped", "F.silu(gate) * up, down_proj", "F.silu(up) * gate, down_proj"),
    ),
    *edits(
        "model/checkpoint.py",
        "model/test_checkpoint.py",
        (
            "checkpoint: fused gate and up swapped",
            'zip(("gate_proj", "up_proj"), value.split(width, 1))',
            'zip(("up_proj", "gate_proj"), value.split(width, 1))',
        ),
        ("checkpoint: an index may name any place", "not PLAIN_NAME.fullmatch(name)", "not name"),
        ("checkpoint: saving removes what the index names", "if SHARD_NAME.fullmatch(name)]", "]"),
        ("checkpoint: built before sizes are compared", "if asked > 2 * held:", "if False:"),
        ("checkpoint: an expert too many is dropped", "if max(parts) >= count:", "if False:"),
        ("checkpoint: NaN is loaded", "if not value.isfinite().all():", "if False:"),
        ("checkpoint: types are mixed", "if len(kinds) > 1 and dtype is None:", "if False:"),
        ("checkpoint: any type is read", "if kind not in DTYPES:", "if False:"),
        ("checkpoint: layers behind the last are dropped", "if not announced and f", "if False and f"),
        ("checkpoint: a tied head that differs", "not torch.equal(head, embedding)", "False"),
        ("checkpoint: a key twice", "    if name in into:", "    if False:"),
    ),
    *edits(
        "model/config.py",
        "model/test_config.py",
        (
            "config: true counts as one",
            "isinstance(value, int) and not isinstance(value, bool) and",
            "isinstance(value, int) and",
        ),
        ("config: infinity is a number", "<= sys.float_info.max", '<= float("inf")'),
        ("config: heads by themselves", '{"num_key_value_heads": None, **overrides}', "overrides"),
        ("config: rope_theta's default", 'HF_DEFAULTS["rope_theta"]))', "50000.0))"),
        ("config: part of a head turned", 'part in (None, 1), "1")', 'True, "1")'),
        ("config: a factor without a type", 'rope.get("factor") in (None, 1),', "True,"),
        (
            "config: half-split RoPE",
            'values.get("rope_interleave", True) is not True',
            'values.get("rope_interleave", True) is False',
        ),
    ),
    *edits(
        "text/parser.py",
        "text/test_parser.py",
        (
            "parser: a call needs its section",
            '_CALLS_BEGIN = re.compile("[{<]")',
            '_CALLS_BEGIN = re.compile("{")',
        ),
        (
            "parser: calls in a closed thought",
            "    if close >= 0:",
            "    if close >= 0 and not _CALLS_BEGIN.search(turn.shape[:close]):",
        ),
        (
            "parser: a tag in arguments closes a thought",
            '_masked(_WITH_ARGUMENTS, turn.shape).find(")")',
            'turn.shape.find(")")',
        ),
        ("parser: the last part of a name", '.removeprefix("functions.")', '.rpartition(".")[2]'),
        ("parser: names without case", '.removeprefix("functions.")', '.removeprefix("functions.").lower()'),
        ("parser: calls across calls", '_CALL = re.compile("<[^<>]*>")', '_CALL = re.compile("<[^>]*>")'),
        (
            "parser: quoted letters are markers",
            "texts += [tokenizer.decode(run)] if token is None",
            "texts += _MARKER.split(tokenizer.decode(run)) if token is None",
        ),
        (
            "parser: a cut call ends a turn",
            "cut = not ended and (call_open or",
            "cut = not ended and (False or",
        ),
        ("parser: nothing is cut", "cut = not ended and (", "cut = ended and ("),
        ("parser: arguments are stripped", "str(body[place + 1 :])", "str(body[place + 1 :]).strip()"),
        ("parser: text behind calls is content", "    left_out = ", '    left_out = "" and '),
    ),
    *edits(
        "text/messages.py",
        "text/test_chat.py",
        (
            "messages: a thought by one name",
            '("reasoning_content", "thinking", "reasoning")',
            '("reasoning_content",)',
        ),
        (
            "messages: another order of names",
            '("reasoning_content", "thinking", "reasoning")',
            '("reasoning", "thinking", "reasoning_content")',
        ),
        (
            "messages: any name",
            'if message.get("name") is not None else role',
            'if isinstance(message.get("name"), str) else role',
        ),
        ("messages: a reflex keeps its thought", 'thought if clean["thinking"] else ""', "thought"),
        ("messages: any id", "if not isinstance(mapping[field], str):", "if False:"),
    ),
    *edits(
        "text/tokenizer.py",
        "text/test_tokenizer.py",
        ("tokenizer: nothing is forgotten", "while self._recent_bytes > MEMORY:", "while False:"),
        ("tokenizer: the newest are forgotten", "next(iter(self._recent))", "next(reversed(self._recent))"),
        (
            "tokenizer: special tokens anywhere",
            "if self.first_special != self.vocab_size - len(self.special):",
            "if False:",
        ),
    ),
    *edits(
        "base/files.py",
        "base/test_files.py",
        ("files: no checksum is compared", "    if not whole:", "    if False:"),
        ("files: shapes are not in the checksum", "{array.dtype.str} {array.shape} ", "{array.dtype.str} "),
        ("files: names are not in the checksum", 'f"{name} {array.dtype.str}', 'f"{array.dtype.str}'),
        ("files: any kind of thing", "if not isinstance(value, kind):", "if False:"),
        (
            "files: a missing entry is a KeyError",
            "return _Contents(path, value) if kind is dict else value",
            "return value",
        ),
    ),
    *edits(
        "training/optim/muonclip.py",
        "training/test_muonclip.py",
        (
            "clip: squared factor on the keys",
            "key_value[:, :nope] *= each_side",
            "key_value[:, :nope] *= by_head",
        ),
        ("clip: square root on the rope rows", "query[:, nope:] *= by_head", "query[:, nope:] *= each_side"),
        ("clip: values cut too", "key_value[:, :nope] *= each_side", "key_value *= each_side"),
        (
            "clip: one factor a layer",
            "gamma = clip_factors(max_logits.to(query), tau)",
            "gamma = clip_factors(max_logits.to(query).amax().expand(heads), tau)",
        ),
        ("clip: frozen weights shrink", "if for_query.requires_grad:", "if True:"),
        (
            "clip: from tau upwards only",
            "torch.where(max_logits > tau, tau / max_logits",
            "torch.where(max_logits > 0, tau / max_logits",
        ),
        ("muonclip: tau's default", "tau: float = 100.0,", "tau: float = 30.0,"),
        ("muonclip: momentum's default", "momentum: float = 0.95,", "momentum: float = 0.9,"),
        ("muonclip: decay's default", "weight_decay: float = 0.1,", "weight_decay: float = 0.0,"),
        (
            "muonclip: betas",
            "betas: tuple[float, float] = (0.9, 0.95)",
            "betas: tuple[float, float] = (0.95, 0.95)",
        ),
        (
            "muonclip: maxima never forgotten",
            "        self.model.statistics.forget_max_logits()\n",
            "        pass\n",
        ),
        (
            "muonclip: maxima of one rank",
            "distributed.largest(self.model.statistics.max_logits)",
            "self.model.statistics.max_logits.clone()",
        ),
        (
            "muonclip: a copy without tau",
            '("_adamw_defaults", "tau", "model", ',
            '("_adamw_defaults", "model", ',
        ),
        ("split: tables under Muon", "is_table or param.ndim < 2", "param.ndim < 2"),
    ),
    *edits(
        "training/optim/schedule.py",
        "training/test_schedule.py",
        ("wsd: warm-up from 0", "return (step + 1) / warmup", "return step / warmup"),
        ("wsd: decay to 0 whatever the floor", "return floor + (1 - floor) * left", "return left"),
        (
            "wsd: linear where cosine is asked",
            'left = 1 - progress if shape == "linear"',
            "left = 1 - progress if True",
        ),
    ),
    *edits(
        "training/loop.py",
        "training/test_train.py training/test_placement.py",
        (
            "loop: learned tokens of one micro-batch",
            "place.run(token_losses, model, part).sum() / learned",
            "place.run(token_losses, model, part).mean() / len(parts)",
        ),
        (
            "loop: gradients not clipped",
            "clip_grad_norm_(model.parameters(), 1.0)",
            "clip_grad_norm_(model.parameters(), 1e9)",
        ),
        ("loop: bias without the schedule", "bias_rate * factor", "bias_rate"),
    ),
    *edits(
        "training/batch.py",
        "training/test_train.py",
        (
            "batch: padding is valid",
            "example.ids, example.mask, True",
            "example.ids, example.mask, True\n        valid[row] = True",
        ),
        (
            "batch: the first token is learned",
            "return int(self.mask[:, 1:].sum())",
            "return int(self.mask.sum())",
        ),
        (
            "batch: targets not shifted",
            "model.lm_head.weight, batch.ids[:, 1:][learned])",
            "model.lm_head.weight, batch.ids[:, :-1][learned])",
        ),
    ),
    *edits(
        "training/balance.py",
        "training/test_balance.py",
        ("balance: padding counted", "f = (chosen * real[..., None]).sum(1)", "f = chosen.sum(1)"),
        ("balance: unnormalised scores", "shares = scores / scores.sum(-1, keepdim=True)", "shares = scores"),
        (
            "balance: over the whole batch",
            "return (f * p).sum(-1).mean()",
            "return (f.mean(0) * p.mean(0)).sum()",
        ),
    ),
    *edits(
        "training/rl/objective.py",
        "training/test_rl.py",
        (
            "rl: baseline over all prompts",
            "rewards - rewards.mean(-1, keepdim=True)",
            "rewards - rewards.mean()",
        ),
        (
            "rl: divided by the deviation",
            "return rewards - rewards.mean(-1, keepdim=True)",
            "return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + 1e-6)",
        ),
        (
            "rl: pull the wrong way",
            "(advantage - tau * (new - old)) ** 2",
            "(advantage + tau * (new - old)) ** 2",
        ),
        ("rl: temperature of 1 in training", ".float() / temperature  # (M, V)", ".float()  # (M, V)"),
    ),
    *edits(
        "training/rl/rounds.py",
        "training/test_rl.py",
        (
            "rl: divided by the tokens of chosen attempts only",
            "written[part].sum().item()",
            "sum(c.written for c, _ in chosen)",
        ),
        ("rl: the same dice every round", "hash_seed(seed, index), numbers", "hash_seed(seed), numbers"),
        ("rl: schedule reversed", "warm + (cool - warm) * index", "cool + (warm - cool) * index"),
        (
            "rl: ptx in the first update only",
            "        for batch in ptx:\n",
            "        for batch in ptx if part[0] == 0 else ():\n",
        ),
        (
            "rl: environments left open",
            "            conversation.environment.close()\n",
            "            pass\n",
        ),
        (
            "rl: gradients not clipped",
            "clip_grad_norm_(model.parameters(), 1.0)",
            "clip_grad_norm_(model.parameters(), 1e9)",
        ),
        ("rl: nan steps", "if not torch.isfinite(norm):", "if False:"),
        ("rl: loads kept", "    model.statistics.forget()", "    model.statistics.forget_max_logits()"),
        ("rl: over before it is solved", "measured.success > config.solved and", "True and"),
    ),
    *edits(
        "training/rl/curriculum.py",
        "training/test_curriculum.py",
        ("rl: the same tasks every round", 'f"{seed}/rl/{index}/{i}"', 'f"{seed}/rl/{i}"'),
        ("rl: held-out tasks", "self.family, self.level)", "self.family, self.level, held_out=True)"),
        ("rl: the easy ones first", "success * (1 - success) + LEFT", "success + LEFT"),
        ("rl: what is solved is dropped", "LEFT = 0.02", "LEFT = -0.2"),
        ("rl: solved ones come again", "if 0 < success < 1:", "if success > 0:"),
        ("rl: never forgets", "FADE = 0.7", "FADE = 1.0"),
    ),
    *edits(
        "training/rl/mismatch.py",
        "training/test_mismatch.py",
        ("mismatch: one scale for the whole matrix", "amax(-1, keepdim=True)", "amax()"),
        ("mismatch: routers rounded, too", "and id(parameter) not in kept", ""),
        (
            "mismatch: experts of another row",
            "for row, of in zip(fed, chosen",
            "for row, of in zip(fed[::-1], chosen",
        ),
        (
            "mismatch: experts of places that were given up",
            "        self.experts = self.experts[:, list(rows)]",
            "        pass",
        ),
        ("mismatch: experts one token late", "before[row] : end] = of", "before[row] + 1 : end + 1] = of"),
        ("mismatch: a weight cut too high", "clip=(1.0, MOST - 1)", "clip=(1.0, MOST)"),
        (
            "mismatch: weights of tokens for those of attempts",
            "w.summed(w.log_ratio).exp()",
            "w.log_ratio.exp()",
        ),
    ),
    *edits(
        "model/moe.py",
        "training/test_mismatch.py",
        ("replay: a router keeps its tap", "            router.tap = None\n", "            pass\n"),
        ("replay: its own choice", "torch.where(flat < 0, own, flat)", "own"),
        ("replay: padding replayed", "torch.where(flat < 0, own, flat)", "flat.clamp(min=0)"),
    ),
    *edits(
        "training/rl/partial.py",
        "training/test_partial.py",
        (
            "partial: a group is updated on before all of it has ended",
            "return all(conversation.finish is not None",
            "return any(conversation.finish is not None",
        ),
        ("partial: a stale segment counts as fresh", "conversation.round = index", "conversation.round = 99"),
        (
            "partial: stale log-probabilities are lost by a resume",
            'turn["ids"], turn["logprobs"], turn["finish"]',
            'turn["ids"], [0.0] * len(turn["ids"]), turn["finish"]',
        ),
        ("partial: a resume forgets the round", 'conversation.round = turn["round"]', "pass"),
        ("partial: a resume ends paused turns", '"stop" if segment.ends else "paused"', '"stop"'),
        ("partial: two attempts with the same dice", "(index - group.round) * config.prompts", "0"),
    ),
    *edits(
        "training/rl/rounds.py",
        "training/test_partial.py",
        (
            "partial: what is stale stays where nothing bounds its ratio",
            "since = index if partial and not",
            "since = 0 if partial and not",
        ),
        (
            "partial: what is stale is left out where its ratio is bounded",
            "since = index if partial and not OBJECTIVES[config.objective].bounded else 0",
            "since = index if partial else 0",
        ),
    ),
    *edits(
        "training/rl/budget.py",
        "training/test_budget.py",
        ("rl: budgets by wrong attempts, too", "written[of][passed[of] > 0]", "written[of].flatten()"),
        ("rl: budgets found anew each round", "set(families) - self.tokens.keys()", "set(families)"),
        ("rl: the budget holds for tasks seldom solved", "return known &", "return"),
        ("rl: the phases begin without the budget", "% 2 == 0", "% 2 == 1"),
    ),
    *edits(
        "training/rl/rewards.py",
        "training/test_rl.py",
        (
            "reward: cut-off attempts are neutral",
            'return 0.0 if conversation.finish == "stop" else -1.0',
            "return 0.0",
        ),
        ("reward: no cap", "max(-config.cap, min(config.cap, sum(worth.values())))", "sum(worth.values())"),
        ("reward: weights forgotten", "weight * parts", "parts"),
        ("reward: everything that ended is right", "float(conversation.verdict().passed)", "1.0"),
    ),
    *edits(
        "training/synthesis.py",
        "training/test_synthesis.py",
        (
            "synthesis: failed trajectories kept",
            "return [t for t in trajectories if t.passed]",
            "return list(trajectories)",
        ),
        ("synthesis: held-out tasks let in", "and is_held_out(item.key):", "and False:"),
        (
            "synthesis: passed is what was meant, not the verdict",
            "mistake, verdict.passed, task.key)",
            "mistake, mistake is None, task.key)",
        ),
    ),
    *edits(
        "agent/conversation.py",
        "agent/test_agent.py training/test_rl.py",
        (
            "agent: results are the model's own",
            "conversation.mask += [False] * len(ids)",
            "conversation.mask += [True] * len(ids)",
        ),
        (
            "agent: only the first of parallel results",
            "    conversation.messages += results\n",
            "    conversation.messages += results[:1]\n",
        ),
        ("agent: cut off and yet passed", "if self.finish in CUT_OFF:", "if False:"),
        (
            "agent: segments of the context after hiding",
            "setattr(conversation, name, [values[place] for place in places])",
            "values[:] = [values[place] for place in places]",
        ),
        ("agent: kept turns learned twice", "context[: len(rows[-1][0])] != rows[-1][0]", "True"),
        ("agent: thoughts of the last question stay", "    if any(thought):\n", "    if False:\n"),
        (
            "agent: what the user asked is hidden",
            "conversation.prompt_length, conversation.turn_starts = len(conversation.ids), []",
            "pass",
        ),
        (
            "agent: room for no turn",
            "len(conversation.ids) + limits.turn_tokens <= limits.context",
            "len(conversation.ids) <= limits.context",
        ),
        (
            "agent: one turn too few is kept",
            "max(0, len(conversation.turn_starts) - keep)",
            "max(0, len(conversation.turn_starts) - keep + 1)",
        ),
    ),
    *edits(
        "agent/loop.py",
        "agent/test_agent.py",
        ("agent: a cut-off turn acts", '**message, "tool_calls": None}', "**message}"),
        (
            "agent: one turn too many",
            "if conversation.turns >= limits.turns:",
            "if conversation.turns > limits.turns:",
        ),
        (
            "agent: the user is never asked",
            'said = conversation.environment.user_turn(message.get("content") or "")',
            "said = None",
        ),
        (
            "agent: what the user says has no tokens",
            "            hear(conversation, tokenizer)\n",
            "            pass\n",
        ),
    ),
    *edits(
        "agent/policy.py",
        "agent/test_agent.py",
        (
            "policy: dice of the batch",
            "dice(self.seed, self.numbers[conversation], conversation.turns",
            "dice(self.seed, self.places[conversation] * 7 + len(self.places), conversation.turns",
        ),
        (
            "policy: the same dice every turn",
            "self.numbers[conversation], conversation.turns",
            "self.numbers[conversation], 0",
        ),
        (
            "policy: budget ignored",
            "self.stops, own_dice, self.budget, self.marks)",
            "self.stops, own_dice, None, self.marks)",
        ),
    ),
    *edits(
        "inference/writer.py",
        "inference agent/test_agent.py",
        (
            "writer: forced tokens are the model's",
            "self.add(self.marks.close, own=False)",
            "self.add(self.marks.close, own=True)",
        ),
        (
            "writer: budget one too large",
            "self.thought_tokens >= self.budget",
            "self.thought_tokens > self.budget",
        ),
        (
            "writer: cache taken for right",
            "return next((i for i, (a, b)",
            "return len(first) or next((i for i, (a, b)",
        ),
        (
            "writer: only <|im_end|> ends",
            'for name in ("<|im_end|>", "[EOS]")]',
            'for name in ("<|im_end|>",)]',
        ),
        ("writer: a full cache is no end", "len(self.held[place]) == self.max_length:", "False:"),
        ("writer: anything is allowed", "if allowed is not None:", "if False:"),
        (
            "writer: neighbours are held too",
            "logits[index] = logits[index].masked_fill(~allowed",
            "logits[:] = logits.masked_fill(~allowed",
        ),
    ),
    *edits(
        "inference/sampling.py",
        "inference/test_generation.py",
        (
            "sampling: temperature multiplied",
            "(logits.float() / temperature if",
            "(logits.float() * temperature if",
        ),
    ),
    *edits(
        "evaluation/scoreboard.py",
        "evaluation/test_scoreboard.py",
        (
            "best of four by the hidden tests",
            "if c.environment.state.public_tests_pass",
            "if c.verdict().passed",
        ),
        (
            "scoreboard: an exam of training tasks",
            "tasks = held_out_tasks(row.family, row.levels,",
            "tasks = held_out_tasks(row.family, row.levels[:1],",
        ),
    ),
    *edits(
        "evaluation/routing.py",
        "evaluation/test_routing.py",
        (
            "routing: single tokens shuffled",
            "labels[rng.permutation(len(labels))], experts)",
            "rng.permutation(labels.ravel()).reshape(labels.shape), experts)",
        ),
        ("routing: natural units", "np.log2(joint[seen] / apart[seen])", "np.log(joint[seen] / apart[seen])"),
        (
            "routing: p of 0",
            "(1 + np.sum(shuffled >= measured)) / (1 + len(shuffled))",
            "np.sum(shuffled >= measured) / len(shuffled)",
        ),
        ("routing: ties against chance", "np.sum(shuffled >= measured)", "np.sum(shuffled > measured)"),
    ),
    *edits(
        "evaluation/error_rates.py",
        "evaluation/test_rubric.py",
        ("error rates: right ones alone", "for right in (True, False):", "for right in (True,):"),
        ("error rates: errors are what is right", "accepts(c) != right", "accepts(c) == right"),
    ),
    *edits(
        "inference/attempts.py",
        "inference/test_thinking.py",
        (
            "majority: ties by the verdict",
            "winner = max(votes, key=votes.__getitem__)",
            "winner = max(votes, key=lambda a: (votes[a], any(x.passed for x in group if x.answer == a)))",
        ),
        (
            "majority: the rarest answer",
            "max(votes, key=votes.__getitem__)",
            "min(votes, key=votes.__getitem__)",
        ),
        (
            "best of n by the hidden tests",
            "attempt for attempt in group if attempt.accepted",
            "attempt for attempt in group if attempt.passed",
        ),
        ("attempts: unequal tokens compared", "TOLERANCE = 0.01", "TOLERANCE = 1.0"),
    ),
    *edits(
        "base/intervals.py",
        "base/test_intervals.py",
        ("bootstrap of 90%", "n_resamples=draws, ", "n_resamples=draws, confidence_level=0.9, "),
        ("bootstrap: another method", 'method="percentile"', 'method="basic"'),
        ("wilson of 90%", 'ci(method="wilson")', 'ci(0.9, method="wilson")'),
        ("wilson: exact in its place", 'method="wilson"', 'method="exact"'),
        ("over seeds: normal in place of t", "float(scipy.stats.t.ppf(0.975, n - 1))", "1.96"),
        ("over seeds: t of 90%", "0.975", "0.95"),
        ("over seeds: deviation of the sample", "ddof=1", "ddof=0"),
    ),
    *edits(
        "base/evidence.py",
        "base/test_evidence.py base/test_ledger.py",
        ("verdict: an interval that contains the floor holds", "low <= floor <= high:", "False:"),
        (
            "verdict: the other direction",
            "value <= floor if at_most else value >= floor",
            "value >= floor if at_most else value <= floor",
        ),
    ),
    *edits(
        "worlds/repair/world.py",
        "worlds/test_worlds.py",
        ("repair: 99 of 100 hidden tests", "right == len(HIDDEN), f", "right >= len(HIDDEN) - 1, f"),
        (
            "repair: public tests are enough",
            'wanted = _evaluate(task.data["right"], HIDDEN)\n    right = sum(got == want for got, want in zip(results(bench.lines, HIDDEN), wanted))',
            'wanted = _evaluate(task.data["right"], HIDDEN)\n    right = 100 * (not bench.failures())',
        ),
        ("repair: a crash after printing", "if not ran.ok:", "if False:"),
        ("repair: no edit needed", "if not bench.edits:", "if False:"),
        ("repair: any number of edits", "if bench.edits > most:", "if False:"),
    ),
    *edits(
        "worlds/base.py",
        "worlds/test_worlds.py training/test_synthesis.py",
        ("held out: one in eight", "% HELD_OUT_SHARE == 0", "% (HELD_OUT_SHARE // 2) == 0"),
        ("final answer behind a call", 'or last.get("tool_calls"):', "or False:"),
        ("ten times the calls", "return 2 * needed + 2", "return 20 * needed + 2"),
    ),
    *edits(
        "worlds/shop/database.py",
        "worlds/test_worlds.py",
        (
            "shop: a purchase leaves the stock",
            'SET stock = ? WHERE name = ?", (left, item)',
            'SET stock = ? WHERE name = ?", (left + count, item)',
        ),
        ("shop: more than there is", "if left < 0:", "if left < -100:"),
        (
            "shop: reads are not recorded",
            'db.execute("INSERT INTO reads VALUES',
            'str("INSERT INTO reads VALUES',
        ),
    ),
    *edits(
        "worlds/data/database.py",
        "worlds/test_data.py",
        (
            "data: anything may be run",
            "return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY",
            "return 0",
        ),
        ("data: any statement", 'if not query.lstrip().lower().startswith("select"):', "if False:"),
        ("data: no limit of time", "return self._ticks * TICK > STEPS", "return False"),
        ("data: above is at least", '"above": operator.gt', '"above": operator.ge'),
        ("data: the first of several", 'or (ask["what"] == "which" and len(values) > 1)', ""),
    ),
    *edits(
        "worlds/data/world.py",
        "worlds/test_data.py worlds/test_worlds.py",
        ("data: a guess is good", 'Verdict(False, "no result shows the answer")', 'Verdict(True, "")'),
        ("data: conditions that change nothing", "right not in without", "True"),
    ),
    *edits(
        "worlds/notes/tree.py",
        "worlds/test_notes.py",
        ("notes: a value within a value", '{value}" in text.split("\\n")', '{value}" in text'),
        ("notes: a move over a note", "if there in self.notes:", "if False:"),
        ("notes: a copy in place of a move", "        del self.notes[path]\n", ""),
    ),
    *edits(
        "worlds/notes/world.py",
        "worlds/test_notes.py",
        ("notes: others may be touched", "path not in to_change(data):", "False:"),
        ("notes: changed unread", "path not in read:", "False:"),
        ("notes: those that stay unread", "set(to_read(data)) - read", "set(to_change(data)) - read"),
    ),
    *edits(
        "worlds/telecom/service.py",
        "worlds/test_telecom.py",
        ("telecom: any APN will do", "right = self.apn in (None", "right = True or self.apn in (None"),
        ("telecom: a patient user", "self.patience -= 1", "pass"),
        ("telecom: any code", 'if code != self._account(line)["code"]:', "if False:"),
    ),
    *edits(
        "worlds/telecom/world.py",
        "worlds/test_telecom.py",
        ("telecom: nobody is identified", 'if not done or done[0] != ("identify",):', "if False:"),
        ("telecom: steps in any order", "if acts != wanted:", "if sorted(acts) != sorted(wanted):"),
        ("telecom: a guessed APN", 'if ("asked", "apn") in done and', "if False and"),
        ("telecom: any refund", "if refunds != allowed:", "if False:"),
        (
            "telecom: a limit that is not reached",
            'data["refund"] <= data["limit"] else []',
            'data["refund"] < data["limit"] else []',
        ),
        ("telecom: the phone may stay broken", "if not environment.helped:", "if False:"),
    ),
    *edits(
        "worlds/tools/toolbox.py",
        "worlds/test_tools.py agent/test_agent.py",
        (
            "toolbox: names without case",
            "self.tools.get(name) if isinstance(name, str)",
            "{k.lower(): v for k, v in self.tools.items()}.get(name.lower()) if isinstance(name, str)",
        ),
    ),
    *edits(
        "worlds/tools/arguments.py",
        "worlds/test_arguments.py worlds/test_tools.py",
        ("arguments: the last of two keys wins", "if len(value) < len(pairs):", "if False:"),
        ("arguments: any depth", "if not _too_deep(value):", "if True:"),
        ("arguments: 1e400 is infinite", 'if value in (float("inf"), float("-inf")):', "if False:"),
        (
            "arguments: 1e300 is an integer",
            "if value.is_integer() and abs(value) <= MAX_WHOLE",
            "if value.is_integer()",
        ),
    ),
    *edits(
        "worlds/tools/schema.py",
        "worlds/test_arguments.py worlds/test_tools.py",
        (
            "arguments: true is an integer",
            "isinstance(value, int) and not isinstance(value, bool)",
            "isinstance(value, int)",
        ),
        ("arguments: a schema is fetched", "_Checker(schema, registry=REGISTRY)", "_Checker(schema)"),
        (
            "arguments: references below the root unseen",
            "_check_references(inner.contents, resolver.in_subresource(inner))",
            "str(inner)",
        ),
        ("arguments: a circle unseen", 'raise ValueError("its references go in a circle")', "return"),
        (
            "arguments: what is not named is allowed",
            '{"additionalProperties": False, **schema} if',
            "schema if",
        ),
    ),
    *edits(
        "worlds/tools/workers.py",
        "worlds/test_sandbox.py",
        ("sandbox: a crash counts as an end", '"SystemError: the interpreter crashed", None', "None, None"),
        ("sandbox: a dead worker fails the next program", "for _ in range(2):", "for _ in range(1):"),
        ("sandbox: a worker for each processor", "monty.Monty(max_processes=MAX_WORKERS)", "monty.Monty()"),
    ),
    *edits(
        "worlds/tools/namespaces.py",
        "worlds/test_sandbox.py",
        ("sandbox: leaving early counts as an end", 'f"SystemExit: {reason}", None', "None, None"),
        ("sandbox: a way out is no reason", "if open_ways:", "if False:"),
        ("sandbox: no filter", '    command += ["--seccomp", str(filter_fd)]\n', ""),
    ),
    *edits(
        "worlds/tools/seccomp.py",
        "worlds/test_seccomp.py",
        ("sandbox: processes allowed", "exit 60 93 ", "exit 60 93   fork 57 - "),
        ("sandbox: space on the disk can be reserved", "(0x541B,", "(0x40305828, 0x541B,"),
        ("sandbox: calls of another machine", "(_IF_EQUAL, 1, 0, ARCH", "(_IF_EQUAL, 1, 1, ARCH"),
    ),
]
