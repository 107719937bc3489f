"""Values for a JSON schema, valid and nearly so: what a grammar must let pass, and what it must not."""

import random

LETTERS = 'ab Z"\\é😀\n<|7'


def value_of(schema, rng: random.Random, root: dict, depth: int = 0):
    """A value that the schema allows. It knows the patterns and formats of `drawn_parameters` only."""
    if "$ref" in schema:
        return value_of(root["$defs"][schema["$ref"].rpartition("/")[2]], rng, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return value_of(rng.choice(schema["anyOf"]), rng, root, depth)
    kinds = schema["type"]
    return _MAKERS[kinds if isinstance(kinds, str) else rng.choice(kinds)](schema, rng, root, depth)


def _string(schema, rng, root, depth):
    if "examples" in schema:
        return rng.choice(schema["examples"])
    least = schema.get("minLength", 0)
    return "".join(rng.choices(LETTERS, k=rng.randint(least, schema.get("maxLength", least + 9))))


def _integer(schema, rng, root, depth):
    step = schema.get("multipleOf", 1)
    low = -(-schema.get("minimum", -1000) // step)
    return step * rng.randint(low, max(low, schema.get("maximum", 1000) // step))


def _number(schema, rng, root, depth):
    low = schema.get("minimum", schema.get("exclusiveMinimum", -999) + 0.125)
    high = schema.get("maximum", schema.get("exclusiveMaximum", 999) - 0.125)
    return rng.choice(
        [
            low,
            high,
            round(rng.uniform(low, high), 3),
            round(low + (high - low) / 2, 6),
            int(high * 10) / 10 if high > 0 and int(high * 10) / 10 > low else low,
        ]
    )


def _array(schema, rng, root, depth):
    least = schema.get("minItems", 0)
    most = max(least, 0 if depth > 3 else schema.get("maxItems", least + 3))
    return [value_of(schema["items"], rng, root, depth + 1) for _ in range(rng.randint(least, most))]


def _object(schema, rng, root, depth):
    chosen = [
        name
        for name in schema["properties"]
        if name in schema.get("required", ()) or (depth < 4 and rng.random() < 0.5)
    ]
    return {name: value_of(schema["properties"][name], rng, root, depth + 1) for name in chosen}


_MAKERS = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "array": _array,
    "object": _object,
    "boolean": lambda schema, rng, root, depth: rng.random() < 0.5,
    "null": lambda schema, rng, root, depth: None,
}
OTHERS = (None, True, -1, 0, 10**6, 0.3, "", "x", "2024-02-30", [], [1, 1, 1, 1, 1], {}, {"a": 1})


def spoilt(value, rng: random.Random):
    """The value with one thing changed somewhere: it may still be valid, the checker knows."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        how = rng.random()
        if how < 0.2:
            return {key: one for key, one in value.items() if key != name}
        if how < 0.35:
            return {**value, name + "x": 1}
        return {**value, name: spoilt(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], spoilt(value[place], rng), *value[place + rng.randint(0, 1) :]]
    if isinstance(value, str) and rng.random() < 0.5:
        return value + rng.choice(LETTERS)
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.6:
        return value + rng.choice([-1000, -1, 0.5, 1, 1000])
    return rng.choice(OTHERS)
