"""Judges of worlds that were written another way than their verifiers: they read the prompt as text, and what the tools
answered. None of them looks at what a verifier computes."""

import json
import re
import sqlite3


def calls_of(conversation):
    """(name, arguments, what came back) of every call, in order."""
    calls = [c["function"] for m in conversation.messages for c in m.get("tool_calls") or []]
    told = [m["content"] for m in conversation.messages if m["role"] == "tool"]
    return [(call["name"], json.loads(call["arguments"]), answer) for call, answer in zip(calls, told)]


def answers_of(conversation):
    """What the assistant said without a call."""
    return [
        m["content"] for m in conversation.messages if m["role"] == "assistant" and not m.get("tool_calls")
    ]


def judge_data(conversation):
    """Put the words of the prompt to sqlite ourselves; and the answer was read off a result."""
    task = conversation.task
    schema, *joined, question = re.match(
        r"Tables: (.*?\))\. (?:(\w+\.\w+ = \w+\.\w+)\. )?(.*)", task.prompt
    ).groups()
    db = sqlite3.connect(":memory:")
    for name, columns in re.findall(r"(\w+)\((.*?)\)", schema):
        rows = task.data["tables"][name]["rows"]
        db.execute(f"CREATE TABLE {name} ({columns})")
        db.executemany(f"INSERT INTO {name} VALUES ({','.join('?' * len(rows[0]))})", rows)
    column, table, counted = re.search(
        r"(?:(?:sum of|up|largest|Which|the) (\w+) in (\w+)|rows of (\w+)) ", question
    ).groups()
    table = table or counted
    number = r"([\w.]+) (above|below) (\d+)"
    where = [
        f"{place} {'>' if how == 'above' else '<'} {n}" for place, how, n in re.findall(number, question)
    ]
    where += [f"{place} = '{word}'" for place, word in re.findall(r'([\w.]+) "(\w+)"', question)]
    what = "count(*)" if counted else f"{table}.{column}"
    if re.search("the sum of|Add up", question):
        what = f"sum({what})"
    elif "largest " in question:
        what = f"max({what})"
    source = f"{table}, {joined[0].split(' = ')[1].split('.')[0]}" if joined[0] else table
    [[right]] = db.execute(
        f"SELECT {what} FROM {source} WHERE {' AND '.join(where + list(filter(None, joined)))}"
    )
    shown = [
        value
        for _, _, told in calls_of(conversation)
        if told[0] == "["
        for row in json.loads(told)
        for value in row
    ]
    return answers_of(conversation) == [str(right)] and right in shown


def judge_notes(conversation):
    """Replay the prompt on the notes as text; every note that counts was read before the first change of it."""
    task, state = conversation.task, conversation.environment.state
    notes, calls = dict(task.data["notes"]), calls_of(conversation)
    if task.family == "edit":
        path = re.search(r"\w+/\w+", task.prompt)[0]
        key, value = re.search(r"(?:change|Set) (\w+) to (\d+)", task.prompt).groups()
        notes[path] = re.sub(rf"(?m)^{key}: .*$", f"{key}: {value}", notes[path])
        needed = [path]
    else:
        here, key, value, to = re.search(
            r"notes? (?:in|of) (\w+) (?:that say|with) (\w+): (\w+) (?:in)?to (\w+)", task.prompt
        ).groups()
        needed = [path for path in notes if path.startswith(here + "/")]
        for path in [path for path in needed if f"{key}: {value}" in notes[path]]:
            notes[path.replace(here, to, 1)] = notes.pop(path)
    read = {arguments["path"] for name, arguments, _ in calls if name == "read"}
    return state.notes == notes and read >= set(needed) and len(answers_of(conversation)) == 1


def judge_telecom(conversation):
    """Read the transcript as a supervisor would: who was asked for what when, by the system message alone."""
    system, _, *rest = conversation.messages
    steps = re.search("until it works: (.*?)\\.", system["content"])[1].split(", ")
    limit = int(re.search(r"at most (\d+)", system["content"])[1])
    heard, acts, told, refunds, wants, calls = "", [], None, [], 0, 0
    for message in rest:
        if message["role"] == "user":
            heard = message["content"]
            wants = int((re.search(r"refund (\d+)", heard) or [0, wants])[1])
        elif message["role"] == "tool":
            told = (re.search(r'"apn":"(\w+)"', message["content"]) or [0, told])[1]
        for call in message.get("tool_calls") or []:
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            if calls == 0 and name != "identify":
                return False
            calls += 1
            acts += ["technician"] * (name == "technician")
            refunds += [arguments["amount"]] if name == "refund" else []
        if message["role"] == "assistant" and not message.get("tool_calls"):
            words = message["content"].lower()
            if calls == 0:
                return False
            acts += ["restart"] * ("restart" in words) + ["airplane mode off"] * ("airplane" in words)
            acts += ["APN of the account"] * (told is not None and f"apn to {told}." in words)
    ends = "technician" in acts or any(word in heard for word in ("works now", "it works", "is back"))
    paid = [wants] if 0 < wants <= limit else []
    return ends and acts == steps[: len(acts)] and acts.count("technician") < 2 and refunds == paid


def judge_search(conversation):
    """Take the question apart from its end; every fact was read in a result before the one answer, on few pages."""
    asked = conversation.task.prompt
    relations, name = re.findall(r"the (\w+) of", asked)[::-1], re.search(r"(\w+)[.?]$", asked)[1]
    read = "\n".join(told for called, _, told in calls_of(conversation) if called == "open")
    for relation in relations:
        found = re.search(rf"The {relation} of {name} is (\w+)\.", read)
        if not found:
            return False
        name = found[1]
    pages = {told for called, _, told in calls_of(conversation) if called == "open"}
    few = len(pages) <= 2 * len(relations) + 1 and len(calls_of(conversation)) <= 4 * len(relations) + 2
    return [answer.strip(". ").lower() for answer in answers_of(conversation)] == [name] and few


def judge_algebra(conversation):
    """Try whole numbers in the prompt itself, as sums of Python, until one fits."""
    said, answers = conversation.task.prompt.partition(". What is ")[0], answers_of(conversation)
    if "," in said:
        scope = {}
        for line in said.split(", "):
            name, right = line.split(" = ")
            scope[name] = eval(right, {}, scope)
        value = scope[name]
    else:
        left, right = said.split(" = ")
        name = re.search("[xyz]", said)[0]
        value = next(n for n in range(100) if eval(left, {name: n}) == eval(right, {name: n}))
    return len(answers) == 1 and answers[0] == str(value)


VERBS = (
    (r"add (\w) to x", lambda x, value: x + value),
    (r"subtract (\w) from x", lambda x, value: x - value),
    (r"multiply x by (\w)", lambda x, value: x * value),
)
COMPARED = {"over": lambda x, bound: x > bound, "under": lambda x, bound: x < bound}


def follow_rule(rule, x, y):
    """What a rule of `write` or `project` makes of x, read as a person reads it."""
    condition = re.match(r"if x (over|under) (\d) ", rule)
    if condition and not COMPARED[condition[1]](x, int(condition[2])):
        return x
    times = int((re.match(r"(\d) times ", rule) or [0, 1])[1])
    [(value, act)] = [(found[1], act) for verb, act in VERBS if (found := re.search(verb, rule))]
    for _ in range(times):
        x = act(x, {"x": x, "y": y}[value] if value in "xy" else int(value))
    return x


def judge_write(conversation):
    """Follow the rules of the prompt by hand, and run what was submitted last ourselves (our own expert wrote it)."""
    submitted = [arguments["code"] for name, arguments, _ in calls_of(conversation) if name == "submit"]
    if not submitted:
        return False
    scope = {"__builtins__": {"range": range}}
    exec(submitted[-1], scope)  # our own expert's code
    for x, y in [(x, y) for x in (*range(10), *range(-40, 60, 11)) for y in range(10)]:
        value = x
        for rule in re.findall(r"(?m)^[a-h] (.*)$", conversation.task.prompt):
            value = follow_rule(rule, value, y)
        if scope["f"](x, y) != value:
            return False
    return True


def judge_project(conversation):
    """Replay the edits on what was read, and follow the rules of the files by hand; no file was edited unread."""
    data, opened, edited = conversation.task.data, {}, False
    files = {name: list(lines) for name, lines in data["buggy"].items()}
    for name, arguments, told in calls_of(conversation):
        if name == "open":
            opened[arguments["file"]] = re.findall(r"(?m)^[a-c] (.*)$", told)
        if name == "edit":
            if arguments["file"] not in opened:
                return False
            files[arguments["file"]]["ABC".index(arguments["line"])], edited = arguments["code"], True
    if not edited or any(data["rules"][name] != rules for name, rules in opened.items()):
        return False
    scope, first = {"__builtins__": {"range": range}}, next(iter(files))
    for name, lines in files.items():
        exec("\n ".join([f"def {name}(x, y):", *lines, "return x"]), scope)  # our own expert's code
    for x, y in [(x, y) for x in range(10) for y in range(10)]:
        value = x
        for rule in [rule for rules in data["rules"].values() for rule in rules if "call" not in rule]:
            value = follow_rule(rule, value, y)
        if scope[first](x, y) != value:
            return False
    return True
