"""The benchmarks as tasks of inspect_ai: the expert is right there, too, and who says nothing of use is not."""

import json
import random
import subprocess
import sys

import pytest

pytest.importorskip("inspect_ai")
from inspect_ai import eval as judged
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.tool import ToolCall

from kimi_mini.evaluation.benchmarks import BENCHMARKS, inspect_tasks, items
from kimi_mini.worlds import WORLDS

NAMES = list(BENCHMARKS)


def said(message, number):
    """A message of ours as a model of inspect would write it."""
    content = [ContentReasoning(reasoning=message["reasoning_content"])]
    if message.get("content"):
        content.append(ContentText(text=message["content"]))
    calls = [
        ToolCall(f"call_{number}_{place}", call["function"]["name"], parsed(call["function"]["arguments"]))
        for place, call in enumerate(message.get("tool_calls") or [])
    ]
    return output(ChatMessageAssistant(content=content, tool_calls=calls or None))


def output(message):
    """With its usage: inspect would count tokens with a vocabulary that it downloads."""
    usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return ModelOutput(model="mock", choices=[ChatCompletionChoice(message=message)], usage=usage)


def parsed(arguments):
    return json.loads(arguments)


def expert_of(name, mistake=None):
    """Plays the expert of whichever task the messages are about, without a memory."""
    tasks = {(item.task.system, item.task.prompt): item.task for item in items(BENCHMARKS[name])}

    def turn(messages, tools, choice, config):
        system = next((m.text for m in messages if m.role == "system"), None)
        task = tasks[system, next(m.text for m in messages if m.role == "user")]
        script = WORLDS[task.world].expert(task, random.Random(task.key), mistake)
        message = next(script)
        for place, one in enumerate(messages):
            if one.role == "assistant":
                message = script.send(messages[place + 1].text)
        assert bool(tools) == bool(WORLDS[task.world].open_environment(task).toolbox)
        return said(message, len(messages))

    return turn


def accuracy(tmp_path, name, answers, limit=4):
    log = judged(
        getattr(inspect_tasks, name)(),
        model=get_model("mockllm/model", custom_outputs=answers),
        limit=limit,
        log_dir=str(tmp_path),
        display="none",
    )[0]
    assert log.status == "success", log.error
    metrics = {key: value.value for score in log.results.scores for key, value in score.metrics.items()}
    return metrics, log


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_expert_is_right_by_inspect_too(tmp_path, name):
    metrics, log = accuracy(tmp_path, name, expert_of(name))
    assert metrics["accuracy"] == 1.0
    assert metrics[BENCHMARKS[name].parts[0].name] == 1.0
    assert log.samples[0].metadata["part"] == BENCHMARKS[name].parts[0].name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini_math", "mini_telecom", "mini_swe"])
def test_a_wrong_answer_is_wrong_by_inspect_too(tmp_path, name):
    metrics, log = accuracy(tmp_path, name, lambda *_: output(ChatMessageAssistant(content="all done")))
    assert metrics["accuracy"] == 0.0 and log.samples[0].scores["verifier"].explanation
    if name == "mini_swe":
        assert "nothing was edited" in log.samples[0].scores["verifier"].explanation


@pytest.mark.slow
def test_the_right_words_without_the_work_are_wrong(tmp_path):
    metrics, _ = accuracy(tmp_path, "mini_swe", expert_of("mini_swe", "lazy"))
    assert metrics["accuracy"] == 0.0


def test_every_benchmark_is_a_task_and_every_schema_is_told_whole():
    for name, benchmark in BENCHMARKS.items():
        assert len(getattr(inspect_tasks, name)().dataset) == sum(part.count for part in benchmark.parts)
    for item in items(BENCHMARKS["mini_tools"], 40):
        box = WORLDS[item.task.world].open_environment(item.task).toolbox
        for declared in box.declarations():
            given, schema = inspect_tasks._tool(declared["function"]), declared["function"]["parameters"]
            told = given.parameters.model_dump(exclude_none=True)
            assert told == {"required": [], "additionalProperties": False} | schema


def test_a_broken_call_stays_broken_and_ids_are_the_models_own():
    call = ToolCall("call_9", "edit", {}, parse_error="no JSON: {oops")
    asked = ChatMessageAssistant(content="", tool_calls=[call])
    assert inspect_tasks.ours(asked)["tool_calls"][0]["function"]["arguments"] == "no JSON: {oops"
    results = [{"role": "tool", "name": "edit", "tool_call_id": "functions.edit:0", "content": "error"}]
    (heard,) = inspect_tasks._heard(asked, results)
    assert (heard.tool_call_id, heard.function, heard.text) == ("call_9", "edit", "error")


def test_without_the_extra_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['inspect_ai'] = None\n"
        "from kimi_mini.base.command import in_one_line\n"
        "def work():\n    import kimi_mini.evaluation.benchmarks.inspect_tasks\n"
        "raise SystemExit(in_one_line(work))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "pip install '.[inspect]'" in done.stderr
