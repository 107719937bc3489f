"""What an agent is used to: a request in any order of keys, with or without a system message, becomes one prompt."""

import itertools
import json
import random

import pytest

from kimi_mini.agent.folder import save_agent
from kimi_mini.base.errors import BadFile
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.inference.serving.requests import Chat, prompt_of
from kimi_mini.pipeline.plan import Plan
from kimi_mini.pipeline.shared import habits_of
from kimi_mini.text import chat
from kimi_mini.text.habits import DESCRIBED, LISTED, Habits
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import FAMILIES, WORLDS, generate

TOKENIZER = Tokenizer.load()
AGENTS = sorted(folder.parent.name for folder in CHECKPOINTS.glob("*/config.json"))
PROPERTIES = {"item": {"type": "string"}, "count": {"type": "integer", "minimum": 1}}
PARAMETERS = {"type": "object", "properties": PROPERTIES, "required": ["item", "count"]}
PLAIN = {"type": "function", "function": {"name": "buy", "parameters": PARAMETERS}}
ITEM = {"type": "string", "description": "Its name."}
DESCRIPTION = {"name": "price", "description": "Tells a price.", "parameters": PARAMETERS}
TOLD = {
    "type": "function",
    "function": DESCRIPTION | {"parameters": PARAMETERS | {"properties": {"item": ITEM}}},
}
TOLD["function"]["parameters"]["required"] = ["item"]


def shuffled(rng: random.Random, value):
    """The same JSON with the keys of every object in another order."""
    if isinstance(value, dict):
        keys = rng.sample(list(value), len(value))
        return {key: shuffled(rng, value[key]) for key in keys}
    return [shuffled(rng, one) for one in value] if isinstance(value, list) else value


def prompt(agent: str, tools: list[dict], *messages: dict) -> list[int]:
    asked = {"model": agent, "messages": [*messages, {"role": "user", "content": "go"}], "tools": tools}
    return prompt_of(
        Chat.read(json.dumps(asked).encode()), TOKENIZER, False, Habits.load(CHECKPOINTS / agent)
    )[0]


@pytest.mark.parametrize("agent", AGENTS)
def test_the_keys_of_a_declaration_may_come_in_any_order(agent):
    """The endpoint passed a client's order on: `reader` solved 24 of 30 tasks in its own, and 14 in OpenAI's."""
    rng = random.Random(0)
    found = {tuple(prompt(agent, shuffled(rng, [PLAIN, TOLD]))) for _ in range(20)}
    assert found == {tuple(prompt(agent, [PLAIN, TOLD]))}
    other = prompt(agent, [TOLD, PLAIN])
    assert tuple(other) not in found, "the order of the tools is the client's"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_an_agent_was_trained_on_stays_as_it_is(family):
    """Any world's declarations for the agent that reads; those of the plain worlds for the other."""
    rng = random.Random(f"habits/{family}")
    opened = WORLDS[FAMILIES[family].world].open_environment(
        generate(rng, family, max(FAMILIES[family].levels))
    )
    declared = opened.toolbox.declarations() if opened.toolbox else []
    opened.close()
    agents = ["reader"] if WORLDS[FAMILIES[family].world].varied else ["reader", "final"]
    for agent, order in itertools.product(agents, (declared, shuffled(rng, declared))):
        found = Habits.load(CHECKPOINTS / agent).ordered(order)
        assert json.dumps(found) == json.dumps(declared), agent


def test_what_is_not_known_stands_behind_as_it_came():
    tool = {"x": 1, "function": {"strict": True, "name": "f", "y": 2, "description": ""}, "type": "function"}
    (found,) = Habits(declarations=LISTED).ordered([tool])
    assert list(found) == ["type", "function", "x"]
    assert list(found["function"]) == ["name", "description", "strict", "y"]
    inner = {"$defs": {"b": {"z": 1, "type": "object"}}, "anyOf": [{"title": "t", "type": "null"}]}
    inner |= {"default": {"type": 1, "a": 2}, "properties": {"type": {"a": 1, "type": "x"}, "b": {}}}
    (found,) = Habits(declarations=LISTED).ordered([{"function": {"name": "f", "parameters": inner}}])
    made = found["function"]["parameters"]
    assert list(made) == ["properties", "$defs", "anyOf", "default"]
    assert [list(made["$defs"]["b"]), list(made["anyOf"][0])] == [["type", "z"], ["type", "title"]]
    assert list(made["default"]) == ["type", "a"] and list(made["properties"]) == ["type", "b"]
    assert list(made["properties"]["type"]) == ["type", "a"]
    for strange in (None, "x", {}, {"function": "f"}, {"function": {"parameters": 3}}):
        for order in (None, LISTED, DESCRIBED):
            assert Habits(declarations=order).ordered([strange]) == [strange]
    strange = {"function": {"parameters": {"properties": {"a": 1}, "required": [{}, 3, "b", "a", "a"]}}}
    assert Habits(declarations=LISTED).ordered([strange]) == [strange]


def test_a_folder_that_says_nothing_changes_nothing(tmp_path):
    habits = Habits.load(tmp_path)
    assert habits == Habits() and habits.template == chat.CHAT_TEMPLATE
    tools = [shuffled(random.Random(1), TOLD)]
    assert habits.ordered(tools) is tools and habits.ordered(None) is None


@pytest.mark.parametrize("agent", AGENTS)
def test_the_system_text_of_the_agent_stands_where_a_client_sends_none(agent):
    """The package's own stood there: `final` solved 4 sums of 30, and 30 with the text that it knows."""
    known = {"role": "system", "content": "You are Kimi."}
    assert prompt(agent, [PLAIN]) == prompt(agent, [PLAIN], known)
    assert prompt(agent, []) == prompt(agent, [], known | {"role": "developer"})
    assert prompt(agent, []) != prompt(agent, [], known | {"content": ""})


@pytest.mark.parametrize("agent", ["final", "reader"])
def test_the_template_of_a_folder_makes_the_prompt_of_the_endpoint(agent):
    """In transformers, of declarations in OpenAI's order."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(CHECKPOINTS / agent)
    user = [{"role": "user", "content": "go"}]
    for tools in ([PLAIN, TOLD], [TOLD], None):
        made = theirs.apply_chat_template(user, tools=tools, add_generation_prompt=True, return_dict=True)
        assert made["input_ids"] == prompt(agent, tools or [])


def test_a_folder_is_saved_with_what_it_is_used_to(tmp_path):
    from tiny import tiny_model

    for plan, order in ((Plan(), LISTED), (Plan.reader(), DESCRIBED)):
        habits = habits_of(plan)
        save_agent(tiny_model(), tmp_path, habits)
        assert habits.declarations == order and Habits.load(tmp_path) == habits
        assert (tmp_path / "chat_template.jinja").read_text(encoding="utf-8") == habits.template
    assert habits_of(Plan.reader()) == Habits.load(CHECKPOINTS / "reader")
    assert habits_of(Plan()) == Habits.load(CHECKPOINTS / "final")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{",
        '{"mood": 1}',
        '{"system": null}',
        '{"declarations": "any"}',
        '{"declarations": []}',
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "agent.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadFile, match=r"agent\.json") as caught:
        Habits.load(tmp_path)
    assert "\n" not in str(caught.value)
