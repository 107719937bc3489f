"""Right and plausible wrong answers to the exercises of notebook 00."""

from kimi_mini.course.exercises import overview as ex


def expert_right(c):
    return 3 * c.hidden_size * c.moe_intermediate_size


def cache_right(c, tokens):
    return 2 * c.num_hidden_layers * (c.kv_lora_rank + c.qk_rope_head_dim) * tokens


def orders_right(orders, wanted, said):
    return sorted(orders) == sorted(wanted)


def pairs(orders):
    return set(map(tuple, orders))


def columns(orders, wanted, said):
    """Items and counts, each by themselves."""
    return [sorted(column) for column in zip(*orders)] == [sorted(column) for column in zip(*wanted)]


RIGHT = [
    (ex.check_expert_parameters, expert_right),
    (ex.check_cache_bytes, cache_right),
    (ex.check_order_verifier, orders_right),
]


WRONG = [
    (ex.check_expert_parameters, lambda c: 2 * c.hidden_size * c.moe_intermediate_size, "three matrices"),
    (ex.check_expert_parameters, lambda c: 3 * c.hidden_size * c.intermediate_size, "dense"),
    (ex.check_expert_parameters, lambda c: expert_right(c) * c.n_routed_experts, "all experts"),
    (ex.check_expert_parameters, lambda c: 44_040_192, "go by the shapes"),  # right for K2 alone
    (ex.check_cache_bytes, lambda c, n: 2 * c.num_hidden_layers * c.kv_lora_rank * n, "rotated key"),
    (ex.check_cache_bytes, lambda c, n: cache_right(c, n) // c.num_hidden_layers, "every layer"),
    (ex.check_cache_bytes, lambda c, n: cache_right(c, n) // 2, "two bytes"),
    (ex.check_cache_bytes, lambda c, n: cache_right(c, n) * c.num_attention_heads, "per head"),
    (ex.check_cache_bytes, lambda c, n: c.kv_cache_bytes_per_token(kind="mha") * n, "avoids"),
    (ex.check_cache_bytes, lambda c, n: cache_right(c, 1), "every token"),
    (ex.check_order_verifier, lambda orders, wanted, said: said == "done", "look at the orders"),
    (ex.check_order_verifier, lambda orders, wanted, said: orders == wanted, "order of buying"),
    (ex.check_order_verifier, lambda o, w, s: pairs(o) == pairs(w), "twice"),
    (ex.check_order_verifier, lambda o, w, s: all(x in o for x in w) and len(o) >= len(w), "twice"),
    (ex.check_order_verifier, lambda o, w, s: len(o) == len(w) and all(x in w for x in o), "how often"),
    (ex.check_order_verifier, lambda o, w, s: len(o) == len(w) and pairs(o) <= pairs(w), "how often"),
    (ex.check_order_verifier, lambda o, w, s: len(o) == len(w) and pairs(o) == pairs(w), "how often"),
    (ex.check_order_verifier, columns, "belong together"),
    (ex.check_order_verifier, lambda o, w, s: sorted(o) == sorted(w) and s == "done", "does not matter"),
    (ex.check_order_verifier, lambda o, w, s: False, "must pass"),
]
