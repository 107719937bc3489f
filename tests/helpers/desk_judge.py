"""Another judge for world `desk`: it replays what the tools answered and works the goal out from the plan's steps.

It knows neither the journal nor the lists of reads and writes that the verifier goes by.
"""

import copy
import json

from kimi_mini.worlds.base import final_answer

SORRY = {"no tool": "I have no tool for that.", "broken": "That did not work."}


def judge_desk(conversation):
    """Whether the work is right, by the calls that were answered, the records that are left and the last words."""
    data, answer = conversation.task.data, final_answer(conversation.messages)
    told, tried = _told(conversation)
    acts = [call for call in told if call[0] in ("deed", "set", "create", "harm")]
    looks, wanted, right = _goal(data)
    if data["outcome"] != "done":
        honest = SORRY.get(data["outcome"], f'There is no "{data["gone"]}".')
        allowed = [act for act in wanted if act[2] != data["gone"]] if data["pattern"] == "orders" else []
        return (
            answer == honest and tried == (data["outcome"] != "no tool") and all(a in allowed for a in acts)
        )
    first = told.index(acts[0]) if acts else len(told)
    seen = told[first:] if data["pattern"] == "create" else told[:first]
    left = copy.deepcopy(data["records"])
    for kind, what, name, number in wanted:
        if kind != "deed":
            left.setdefault(name, {})[what] = number
    return (
        all(look in seen for look in looks)
        and sorted(acts) == sorted(wanted)
        and answer == (", ".join(map(str, right)) if right else "done")
        and conversation.environment.state.records == left
    )


def _told(conversation):
    """Calls that were answered and not refused, as (kind, what, name, number); and whether there was any call. Looking
    for a tool is none."""
    tools = {tool["name"]: tool for tool in conversation.task.data["tools"]}
    messages, told = conversation.messages, []
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or []]
    calls = [call for call in calls if call["name"] != "find_tools"]
    answers = [m["content"] for m in messages if m["role"] == "tool" and m["name"] != "find_tools"]
    for call, answer in zip(calls, answers):
        if not answer.startswith("error"):
            tool, given = tools[call["name"]], json.loads(call["arguments"])
            by_role = {role: given[key] for role, key, _ in tool["arguments"]}
            told.append((tool["kind"], tool["what"], by_role.get("name"), by_role.get("number")))
    return told, bool(calls)


def _goal(data):
    """(looks, acts, answer or None): what it takes, by the steps."""
    steps, table, pattern = data["steps"], data["records"], data["pattern"]
    word, names = steps.get("word"), steps.get("names", [])
    number = lambda name: table.get(name, {}).get(word) or 0
    looks = [("read", word, name, None) for name in names]
    ranked = sorted(names, key=number)
    if "choices" in steps:
        asked, (low, high) = steps["asked"], steps["choices"]
        chosen = low if number(asked) < steps["limit"] else high
        behind = [call for call in map(tuple, data["reads"]) if call[0] == "link"]  # of a composed task
        assert all(table[name][link] == asked for _, link, name, _ in behind)
        return [*behind, ("read", word, asked, None)], [("deed", steps["verb"], *chosen[:2])], None
    if "start" in steps:
        path = [steps["start"]]
        while after := table.get(path[-1], {}).get(word):
            path.append(after)
        return [("link", word, name, None) for name in path], [], path[-2:-1] if pattern == 4 else path[-1:]
    if pattern == "search":
        found = [name for name in table if table[name][steps["key"]] == steps["n"]]
        looks = [("find", steps["key"], None, steps["n"]), *(("read", word, name, None) for name in found)]
        return looks, [], [min(found, key=number)]
    if pattern == 3:
        [(kind, verb, _, times)] = data["writes"]
        return looks, [(kind, verb, ranked[0], times)], None
    if pattern == "orders":
        return [], [("deed", steps["verb"], name, times) for name, times, _ in steps["orders"]], None
    if pattern == "copy":
        return [("read", word, steps["a"], None)], [("set", word, steps["b"], number(steps["a"]))], None
    if pattern == "create":
        return [("read", word, steps["a"], None)], [("create", word, steps["a"], steps["n"])], [steps["n"]]
    answers = {"ask": list(map(number, names)), "least": ranked[:1], 1: ranked[1:2], 2: ranked[-1:]}
    return looks, [], answers.get(pattern, [sum(map(number, names))])
