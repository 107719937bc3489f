"""One thread that owns the model, and writes for everybody at once: continuous batching.

    engine = Engine(model, places=16, queue=64)
    engine.submit(Job(row, heard))       # heard(row, finished) after every token, on the engine's thread

At every step rows that wait join free places, each live row gets one token, and rows that are over leave. A row
that joins takes the free place that holds most of its beginning already, and copies what another one holds more: a
conversation that comes back with one message more is not read again, nor are tools that others declare (`Job.cached`).
Its prompt is read at once while the others wait (`Writer.read`): then a step feeds one token a row, and what a row
writes does not depend on its neighbours. Nor does whether it is finished: a hook that raises ends its own row.

Source: Orca (OSDI 2022), iteration-level scheduling.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.writer import Row, Writer, common_prefix

LOG = logging.getLogger("kimi_mini")


class Full(KimiError):
    """The queue holds as many as it may."""


class Stopped(KimiError):
    """The engine has been closed, or broke down."""


@dataclass(eq=False)
class Job:
    """A row to be written.

    heard: called on the engine's thread after each token, and once more with finished=True when the row has ended; True
    ends the row there. deadline: of time.monotonic(), at which it ends unfinished. began: when its first token came.
    ended: "stop", "length" and "loops" as of a row, or "cancelled", "late", "failed".
    """

    row: Row
    heard: Callable[[Row, bool], bool | None]
    deadline: float = float("inf")
    cached: int = 0
    ended: str | None = None
    asked: float = field(default_factory=time.monotonic)
    began: float | None = None
    cancelled: bool = False
    error: Exception | None = None  # why it failed


class Engine:
    """Writes up to `places` rows at a time, of at most `max_length` tokens each (None: what the model was made for);
    `queue` more may wait."""

    def __init__(self, model, places: int = 16, queue: int = 64, max_length: int | None = None):
        self.max_length = model.config.max_position_embeddings if max_length is None else max_length
        self.writer = Writer(model, places, self.max_length)
        self.places, self.queue = places, queue
        self.waiting: deque[Job] = deque()
        self.live: dict[int, Job] = {}  # place -> who writes there
        self.error: BaseException | None = None  # what broke it
        self._closing, self._changed = False, threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ---- for those who ask, on any thread

    def submit(self, *jobs: Job) -> None:
        """All of them, or none. Raises Full, or Stopped."""
        with self._changed:
            if self._closing or self.error:
                raise Stopped("the engine does not run any more: start the server again")
            if len(self.waiting) + len(jobs) > self.queue + self.idle:
                raise Full(f"{len(self.waiting)} requests wait already: come again in a moment")
            self.waiting += jobs
            self._changed.notify()

    def cancel(self, jobs: Iterable[Job]) -> None:
        """They leave before the next token; those that have ended already stay as they are."""
        with self._changed:
            for job in jobs:
                job.cancelled = True
            self._changed.notify()

    @property
    def idle(self) -> int:
        """Places in which nobody writes."""
        return self.places - len(self.live)

    @property
    def alive(self) -> bool:
        """Whether it still writes."""
        return self._thread.is_alive() and self.error is None

    def close(self) -> None:
        """End all rows as cancelled, and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    # ---- the thread

    def _run(self) -> None:
        try:
            while self._goes_on():
                if self.live:
                    self._step()
        except Exception as error:  # whatever it is, nobody may wait for ever
            LOG.critical("the engine broke down", exc_info=error)
            with self._changed:  # who comes now is refused, who came before is told
                self.error = error
        for job in (*self.live.values(), *self.waiting):
            self._end(job, "failed" if self.error else "cancelled")
        self.live.clear()
        self.waiting.clear()

    def _goes_on(self) -> bool:
        """Wait for work, and let rows leave and join; False at the end."""
        with self._changed:
            while not (self.waiting or self.live or self._closing):
                self._changed.wait()
            joining = self._next()
        if not self._closing:
            for place, job in joining:
                self._join(place, job)
        return not self._closing

    def _next(self) -> list[tuple[int, Job]]:
        """Rows that leave, leave; who comes next, and where. The first in the queue chooses first."""
        now = time.monotonic()
        for place, job in list(self.live.items()):
            if job.cancelled or now > job.deadline:
                self.writer.leave(place)
                del self.live[place]
                self._end(job, "cancelled" if job.cancelled else "late")
        stay: deque[Job] = deque()
        for job in self.waiting:
            if job.cancelled or now > job.deadline:
                self._end(job, "cancelled" if job.cancelled else "late")
            else:
                stay.append(job)
        self.waiting = stay
        free, joining = [place for place in range(self.places) if place not in self.live], []
        while free and self.waiting:
            job = self.waiting[0]
            place = max(free, key=lambda place: (self._shared(place, job.row), -len(self.writer.held[place])))
            free.remove(place)
            self.live[place] = self.waiting.popleft()
            joining.append((place, job))
        return joining

    def _shared(self, place: int, row: Row) -> int:
        """How much of a row's beginning a place holds."""
        same = self.writer.worn[place] == row.adapter
        return common_prefix(self.writer.held[place], row.context) if same else 0

    def _join(self, place: int, job: Job) -> None:
        if job.row.allowed is not None:
            job.row.allowed = _guarded(job, job.row.allowed)
        self.writer.borrow(place, job.row)
        self.writer.join(place, job.row)
        job.cached = len(self.writer.held[place])
        self.writer.read(place)

    def _step(self) -> None:
        self.writer.step()
        now = time.monotonic()
        for place, job in list(self.live.items()):
            job.began = now if job.began is None else job.began
            over = job.row.finish is not None
            enough = _told(job, False)
            if (enough or job.error) and not over:
                job.row.finish, over = "stop", True
                self.writer.leave(place)
            if over:
                del self.live[place]
                self._end(job, "failed" if job.error else job.row.finish)

    @staticmethod
    def _end(job: Job, how: str) -> None:
        """Its last word; who asked may be gone. Whoever fails to understand it is told that it failed."""
        job.ended = how
        _told(job, True)
        if job.error and how != "failed":
            job.ended = "failed"
            _told(job, True)


def _told(job: Job, finished: bool) -> bool:
    """Whether who asked has heard enough. What goes wrong there is this job's error."""
    try:
        return bool(job.heard(job.row, finished))
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach the others
        return _failed(job, error)


def _guarded(job: Job, hook: Callable[[Row], bytes | None]) -> Callable[[Row], bytes | None]:
    """A row's hook whose errors, and whose masks that allow nothing, end this job alone."""

    def allowed(row: Row) -> bytes | None:
        try:
            mask = hook(row)
            if mask is not None and mask == bytes(len(mask)):
                raise ValueError(f"no token is allowed behind the {len(row.ids)} tokens of a row")
            return mask
        except Exception as error:  # noqa: BLE001 - as above
            _failed(job, error)
            return None

    return allowed


def _failed(job: Job, error: Exception) -> bool:
    job.error = job.error or error
    LOG.error("an answer could not be finished", exc_info=error)
    return True
