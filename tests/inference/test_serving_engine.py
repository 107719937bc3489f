"""The engine of the endpoint: everybody gets his own turn whoever else is there, and nobody waits for ever."""

import random
import threading
import time

import pytest
from tiny import tiny_model

from kimi_mini.inference.serving.engine import Engine, Full, Job, Stopped
from kimi_mini.inference.writer import Row, Writer, dice

MODEL, LONGEST, PATIENCE = tiny_model().eval(), 64, 30


class Asked:
    """A job, and what was heard of it. gate: the engine waits for it at every token."""

    def __init__(
        self, context, most=8, temperature=0.0, gate=None, fails=(), until=None, seconds=None, **more
    ):
        self.row = Row(list(context), most, frozenset(), dice(7, *context), temperature=temperature, **more)
        self.began, self.done, self.heard = threading.Event(), threading.Event(), []
        self.gate, self.fails, self.until = gate, fails, until
        deadline = float("inf") if seconds is None else time.monotonic() + seconds
        self.job = Job(self.row, self._hear, deadline)

    def _hear(self, row, finished):
        self.heard.append((len(row.ids), finished))
        self.began.set()
        if finished:
            self.done.set()
        elif self.gate is not None:
            assert self.gate.wait(PATIENCE)
        if finished in self.fails:
            raise RuntimeError("who asked broke down")
        return self.until is not None and len(row.ids) >= self.until

    def wait(self):
        assert self.done.wait(PATIENCE), "nobody told this job that it is over"
        return self


def alone(asked, length=LONGEST):
    row = asked.row
    fresh = Row(list(row.context), row.most, row.stops, dice(7, *row.context))
    fresh.top_p = row.top_p
    writer = Writer(MODEL, 1, length, row.temperature)
    writer.join(0, fresh)
    writer.run()
    return fresh


@pytest.fixture
def engine():
    made = []

    def start(places=3, queue=64, model=MODEL):
        made.append(Engine(model, places, queue, LONGEST))
        return made[-1]

    yield start
    for one in made:
        one.close()


def eventually(what):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def drawn(rng, count, temperature):
    """Prompts that share beginnings, as conversations do."""
    prompts, made = [[5, 6, 7]], []
    for _ in range(count):
        start = rng.choice(prompts)
        prompts.append(
            start[: rng.randint(1, len(start))] + [rng.randrange(9, 400) for _ in range(rng.randint(1, 6))]
        )
        heat = rng.choice([temperature, 0.0])
        made.append(Asked(prompts[-1][:30], rng.randint(1, 9), heat, top_p=rng.choice([1.0, 0.8])))
    return made


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_everybody_gets_what_he_gets_alone(engine, places, temperature):
    """Places are used again and again, with what they hold of a beginning and without."""
    running, asked = engine(places), drawn(random.Random(places), 40, temperature)
    for one in asked:
        running.submit(one.job)
    for one in asked:
        one.wait()
        expected = alone(one)
        assert one.row.ids == expected.ids and one.job.ended == "length"
        assert one.row.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert [count for count, _ in one.heard] == [*range(1, one.row.most + 1), one.row.most]
        assert [finished for _, finished in one.heard] == [False] * one.row.most + [True]
    assert sum(one.job.cached for one in asked) > 0 and running.idle == places


def test_rows_are_written_side_by_side(engine):
    running, gate = engine(3), threading.Event()
    asked = [Asked([5, number], gate=gate) for number in range(4)]
    running.submit(*(one.job for one in asked))
    gate.set()
    for one in asked:
        one.wait()
    assert [one.job.began for one in asked[:3]] == [asked[0].job.began] * 3
    assert asked[3].job.began > asked[0].job.began  # it had to wait for a place


def test_a_conversation_that_comes_back_is_not_read_again(engine):
    running = engine(3)
    first, other = Asked([5, 6, 7, 8], 4), Asked([5, 6, 90, 91, 92], 4)
    running.submit(first.job, other.job)
    first.wait(), other.wait()
    again = Asked([*first.row.context, *first.row.ids, 30, 31])
    running.submit(again.job)
    again.wait()
    # the last token of a turn was never fed, so the beginning ends before it
    assert again.job.cached == len(first.row.context) + len(first.row.ids) - 1
    assert again.row.ids == alone(again).ids


def test_who_cancels_leaves_at_once_and_what_is_left_is_sound(engine):
    """Its row goes within a step or two, the others do not notice, and its tokens serve the next one."""
    running, gate = engine(2), threading.Event()
    stays, goes = Asked([5, 6, 7], 20), Asked([8, 9, 10, 11], 40, gate=gate)
    running.submit(stays.job, goes.job)
    assert goes.began.wait(PATIENCE)
    running.cancel([goes.job])
    gate.set()
    goes.wait()
    assert goes.job.ended == "cancelled" and len(goes.row.ids) <= 2 and goes.row.finish is None
    stays.wait()
    assert stays.row.ids == alone(stays).ids
    assert not running.live and not running.writer.rows and running.writer.pending == [[], []]
    after = Asked([*goes.row.context, *goes.row.ids, 12], 9)
    running.submit(after.job)
    after.wait()
    assert after.job.cached >= len(goes.row.context) and after.row.ids == alone(after).ids


def test_who_waits_may_cancel_too_and_who_has_ended_stays_as_he_is(engine):
    running, gate = engine(1), threading.Event()
    first, second, third = Asked([5, 6], gate=gate), Asked([7, 8]), Asked([9, 10])
    running.submit(first.job, second.job, third.job)
    assert first.began.wait(PATIENCE)
    running.cancel([second.job])
    gate.set()
    assert second.wait().job.ended == "cancelled" and second.row.ids == []
    assert third.wait().job.ended == "length" and first.wait().job.ended == "length"
    running.cancel([first.job])
    time.sleep(0.05)
    assert first.job.ended == "length" and sum(finished for _, finished in first.heard) == 1


def test_who_asked_may_end_his_row(engine):
    running = engine(2)
    short, long = Asked([5, 6, 7], 20, until=3), Asked([8, 9], 12)
    running.submit(short.job, long.job)
    assert short.wait().job.ended == "stop" and len(short.row.ids) == 3
    assert long.wait().row.ids == alone(long).ids and running.idle == 2


def test_the_queue_holds_as_many_as_it_may_all_of_them_or_none(engine):
    running, gate = engine(1, queue=2), threading.Event()
    first = Asked([5, 6], gate=gate)
    running.submit(first.job)
    assert first.began.wait(PATIENCE)
    waits = [Asked([7, 8]), Asked([9, 10]), Asked([11, 12])]
    with pytest.raises(Full):
        running.submit(*(one.job for one in waits))
    assert len(running.waiting) == 0
    running.submit(waits[0].job, waits[1].job)
    with pytest.raises(Full, match="2 requests wait already"):
        running.submit(waits[2].job)
    gate.set()
    assert [one.wait().job.ended for one in waits[:2]] == ["length"] * 2 and not waits[2].heard


def test_a_deadline_ends_who_writes_and_who_waits(engine):
    running, gate = engine(1), threading.Event()
    first, second = Asked([5, 6], 50, gate=gate, seconds=0.05), Asked([7, 8], seconds=0.05)
    third = Asked([9, 10])
    running.submit(first.job, second.job, third.job)
    assert first.began.wait(PATIENCE)
    time.sleep(0.1)
    gate.set()
    assert first.wait().job.ended == second.wait().job.ended == "late" and len(first.row.ids) == 1
    assert second.row.ids == []
    assert third.wait().row.ids == alone(third).ids


# ----------------------------------------------------------------------------------------- what breaks down
@pytest.mark.parametrize("fails", [{False}, {True}, {False, True}], ids=["a token", "the end", "both"])
def test_who_breaks_down_breaks_nobody_else(engine, fails, caplog):
    running = engine(2)
    broken, sound = Asked([5, 6, 7], fails=fails), Asked([8, 9], 9)
    running.submit(broken.job, sound.job)
    assert broken.wait().done and sound.wait().row.ids == alone(sound).ids
    eventually(lambda: broken.job.ended == "failed")
    assert running.alive and running.idle == 2 and "who asked broke down" in caplog.text
    after = Asked([5, 6, 7])
    running.submit(after.job)
    assert after.wait().row.ids == alone(after).ids


@pytest.mark.parametrize("what", ["raises", "allows nothing"])
def test_a_hook_that_breaks_down_breaks_nobody_else(engine, what):
    def hook(row):
        if len(row.ids) < 2:
            return None
        if what == "raises":
            raise RuntimeError("a grammar that fell over")
        return bytes(MODEL.config.vocab_size)

    running = engine(2)
    broken, sound = Asked([5, 6, 7], allowed=hook), Asked([8, 9], 9)
    running.submit(broken.job, sound.job)
    assert broken.wait().job.ended == "failed" and sound.wait().row.ids == alone(sound).ids
    assert running.alive and running.idle == 2


def test_a_model_that_breaks_down_leaves_nobody_waiting(engine, monkeypatch, caplog):
    running, gate = engine(2), threading.Event()
    asked = [Asked([5, number], 20, gate=gate) for number in range(5)]
    running.submit(*(one.job for one in asked))
    assert asked[0].began.wait(PATIENCE)

    def extend(tokens):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(running.writer.decoder, "extend", extend)
    gate.set()
    assert [one.wait().job.ended for one in asked] == ["failed"] * 5
    running._thread.join(PATIENCE)
    assert not running.alive and str(running.error) == "out of memory" and "out of memory" in caplog.text
    with pytest.raises(Stopped):
        running.submit(Asked([5, 6]).job)
    assert not running.waiting


def test_whatever_the_thread_stumbles_over_is_told(engine, monkeypatch):
    """Also where rows only join and leave."""
    running = engine(1)
    monkeypatch.setattr(running, "_shared", lambda place, row: 1 / 0)
    asked = Asked([5, 6])
    running.submit(asked.job)
    assert asked.wait().job.ended == "failed" and not running.alive


def test_closing_ends_all_of_them_as_cancelled(engine):
    running, gate = engine(1), threading.Event()
    writes, waits = Asked([5, 6], 50, gate=gate), Asked([7, 8])
    running.submit(writes.job, waits.job)
    assert writes.began.wait(PATIENCE)
    closing = threading.Thread(target=running.close)
    closing.start()
    eventually(lambda: running._closing)
    with pytest.raises(Stopped):
        running.submit(Asked([9, 10]).job)
    gate.set()
    closing.join(PATIENCE)
    assert writes.wait().job.ended == waits.wait().job.ended == "cancelled"
    assert not running.alive and not running.live and not running.waiting


def test_many_threads_ask_and_cancel_at_once_and_each_is_told_once(engine):
    running, rng = engine(3, queue=1000), random.Random(0)
    asked = drawn(rng, 120, 1.0)

    def ask(mine):
        for number, one in enumerate(mine):
            running.submit(one.job)
            if number % 10 == 3:
                running.cancel([one.job])

    threads = [threading.Thread(target=ask, args=(asked[number::6],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for one in asked:
        one.wait()
        assert sum(finished for _, finished in one.heard) == 1 and one.job.ended in ("length", "cancelled")
        if one.job.ended == "length":
            assert one.row.ids == alone(one).ids
        else:
            assert one.row.ids == alone(one).ids[: len(one.row.ids)]
    assert running.idle == 3 and not running.writer.rows
