"""The endpoint under load: how answers are judged, that each claim can fail, and all of it in small."""

import asyncio
import json

from kimi_mini.base.evidence import Log
from kimi_mini.course.figures.deployment.serving import endpoint_under_load
from kimi_mini.evaluation.load import BROKEN, LEAVE, STREAM, WHOLE, Ask, Got, together
from kimi_mini.experiments.deployment import serving as experiment

ASKS = [Ask(0, {}, WHOLE), Ask(1, {}, STREAM), Ask(2, {}, LEAVE), Ask(3, {}, BROKEN)]
WANTED = {0: ("t", "a", (), "stop"), 1: ("t", "b", (), "stop")}


def came() -> list[Got]:
    done = [Got(n, 200, {f"id{n}"}, ["stop"], "t", text) for n, text in enumerate("ab")]
    return [*done, Got(2, 200, {"id2"}, left=True), Got(3, 400)]


def judged(found, wanted=WANTED) -> dict:
    counts = experiment.judged(ASKS, found, wanted)
    return {name: count for name, count in counts.items() if count}


def test_each_fault_of_an_endpoint_has_its_count():
    fine = {"answered": 2, "right": 2, "left": 1, "refused": 1}
    assert judged(came()) == fine
    shifted = judged(came(), {0: WANTED[1], 1: WANTED[0]})
    assert "right" not in shifted and shifted["answered"] == 2
    assert judged(came()[1:])["lost"] == 1  # never came
    for change in ({"finishes": []}, {"status": 500}, {"status": None}):
        found = came()
        vars(found[0]).update(change)
        assert judged(found)["lost"] == 1
    for change in ({"finishes": ["stop", "stop"]}, {"ids": {"id0", "x"}}, {"ids": {"id2"}}):
        found = came()
        vars(found[0]).update(change)
        assert judged(found)["twice"] == 1
    assert judged([*came(), came()[0]])["twice"] == 2
    found = came()
    found[3].status = 200
    assert judged(found)["served"] == 1


def test_a_tenth_leaves_a_twentieth_is_malformed_and_nothing_malformed_is_a_request():
    asks = experiment.mixed(experiment.AGENT, 200, "0")
    how = [ask.how for ask in asks]
    assert (how.count(LEAVE), how.count(BROKEN)) == (20, 10)
    assert sorted(ask.number for ask in asks) == list(range(200))
    assert len({ask.raw for ask in asks if ask.how == BROKEN}) == 10
    assert asks != experiment.mixed(experiment.AGENT, 200, "1")


def test_an_error_of_the_line_is_what_came_of_a_request_and_ends_no_other():
    body = {"model": "m", "messages": []}
    asks = [Ask(number, body, how, b"{") for number, how in enumerate((BROKEN, WHOLE, STREAM, LEAVE, BROKEN))]
    found, _ = asyncio.run(together("http://127.0.0.1:9/v1", asks, 1))
    assert [(got.number, got.status) for got in found] == [(number, None) for number in range(5)]


def test_the_endpoint_in_small(monkeypatch):
    """A server in a process of its own: every answer is respond's, whoever leaves is gone."""
    found = experiment.many(experiment.AGENT, 40, 0)
    assert (found["answered"], found["right"], found["left"], found["refused"]) == (34, 34, 4, 2)
    assert found["running"] == 0
    assert 34 <= found["counted"] <= 34 + found["left"], (
        "who leaves may have been answered before it was noticed"
    )
    monkeypatch.setattr(experiment, "CLIENTS", (1, 4))
    speeds = experiment.one_round(experiment.AGENT, 0, 0, 0.1)["speeds"]
    assert set(speeds) == {1, 4} and all(speed > 0 for speed in speeds.values())
    rest = experiment.soak(experiment.AGENT, 0.05, 0)
    assert rest["requests"] >= 4 and rest["samples"][0][1] > 50


def test_the_report_says_what_the_rows_say(tmp_path):
    log = Log("serving", folder=tmp_path)
    speeds = {str(n): 100.0 * min(n, 6) for n in experiment.CLIENTS}
    first = {str(n): [0.1, 0.2] for n in experiment.CLIENTS}
    for number in range(3):
        log.row(what="round", number=number, speeds={**speeds, "1": 100.0 + number}, first=first)
    none = dict.fromkeys(experiment.COUNTS, 0)
    log.row(what="requests", requests=40, **none | {"answered": 34, "right": 34}, running=0, first=[0.1] * 30)
    log.row(what="soak", minutes=8, requests=9, running=0, samples=[[10.0 * n, 300.0] for n in range(48)])
    log = json.loads(json.dumps(log.as_dict()))
    assert set(verdicts(tmp_path, log["rows"]).values()) == {"holds"}
    endpoint_under_load(log)
    wrong = {
        "serving/once": ("requests", "lost", 1),
        "serving/answers": ("requests", "right", 33),
        "serving/refused": ("requests", "served", 1),
        "serving/leave": ("requests", "running", 1),
        "serving/first_token": ("requests", "first", [2.0] * 30),
        "serving/memory": ("soak", "samples", [[10.0 * n, 300.0 + n] for n in range(48)]),
        "serving/parallel": ("round", "speeds", {**speeds, "32": 300.0}),
    }
    for name, (what, key, value) in wrong.items():
        rows = [row | ({key: value} if row["what"] == what else {}) for row in log["rows"]]
        failed = {claim for claim, verdict in verdicts(tmp_path, rows).items() if verdict != "holds"}
        assert failed == {name}


def verdicts(folder, rows) -> dict[str, str]:
    log = Log("serving", folder=folder)
    log.rows = rows
    experiment.report(log)
    return {claim["name"]: claim["verdict"] for claim in log.claims}
