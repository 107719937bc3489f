"""An OpenAI-compatible endpoint, whoever serves it: one request in, one whole answer out.

A request is sent again after a broken connection, a broken stream, an answer without content, and the statuses that
say "later". Nothing of a broken answer is used, and tools run only on whole ones: so no call runs twice. What will not
get better is told: Refused for this request (its context is full), KimiError for all of them (a key, an address).

Extra: pip install '.[serve]' (openai).
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kimi_mini.agent.outcome import Broken, Outcome, joined, whole
from kimi_mini.base.errors import KimiError, MissingFile, explain_os_error
from kimi_mini.base.files import write_atomic

KEY_VARIABLE = "KIMI_MINI_API_KEY"
LATER = (408, 409, 425, 429, 500, 502, 503, 504, 529)
UNPAID = ("insufficient_quota", "exceeded_current_quota_error")  # a 429 that waiting does not end
REFUSALS = (400, 413, 422)  # of one request
FULL = re.compile(
    r"context.{0,12}(length|size|window)|exceed_context|token (limit|length)|prompt is too long", re.I | re.S
)
LONGEST_WAIT = 120.0  # seconds between two tries


class Refused(Exception):
    """The endpoint will not answer this request, however often it is asked. full: its context is too long."""

    def __init__(self, text: str, full: bool):
        super().__init__(text)
        self.full = full


@dataclass
class Endpoint:
    """Where a model is served, and how it is asked.

    url            up to and with /v1
    key            shown to the endpoint and to nobody else; None: the endpoint wants none
    parallel       requests at a time, at most
    timeout        seconds for a whole answer
    tries          of a request, each after a longer pause; `pause` seconds after the first
    stream         whether the answer comes in pieces: gateways give up on whole ones that take minutes
    temperature    None: what the exam asks for
    max_tokens     of a turn; None: what the exam allows. A large thinking model wants 16,000
    extra          fields of every request, as {"top_p": 0.95}
    thinking_off   fields that ask for an answer without a thought; vLLM's and SGLang's, unless others are given
    form           whether it is told the form of an answer where a sentence counts as wrong (agent.remote)
    kept           file that keeps every answer, so that the same exam, begun again, asks only what is missing
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    parallel: int = 8
    timeout: float = 600.0
    tries: int = 6
    pause: float = 1.0
    stream: bool = True
    temperature: float | None = None
    max_tokens: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    thinking_off: dict[str, Any] = field(
        default_factory=lambda: {"chat_template_kwargs": {"thinking": False}}
    )
    form: bool = False
    kept: Path | None = None
    counts: Counter = field(default_factory=Counter, init=False)  # answers, again, tokens by usage's names
    on_answer: Callable[[], None] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        parts = None
        with suppress(ValueError):  # a bracket that is not closed, a port that is none
            parts = urlsplit(self.url) if urlsplit(self.url).port != 0 else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            shown = "" if {"@", "?"} & set(self.url) else f" {self.url!r}"  # a key may stand in it
            raise KimiError(f"--endpoint{shown}: an address reads like http://localhost:8000/v1")
        if parts.username or parts.query:
            raise KimiError("--endpoint: a key has no place in the address; put it into a file (--key-file)")
        openai, httpx = _clients()
        self._errors, self._cut_off = (
            openai,
            httpx.HTTPError,
        )  # not wrapped where half an error's text has come
        self._client = openai.OpenAI(
            base_url=self.url, api_key=self.key or "none", max_retries=0, timeout=self.timeout
        )
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._answers = {} if self.kept is None else _read_answers(self.kept)
        self._used: set[str] = set()  # of them, by this exam
        self.counts["before"] = len(self._answers)

    def ask_all(self, requests: Sequence[tuple[str, dict]]) -> list[Outcome | Refused]:
        """The answer to each (name, request), in their order; at most `parallel` are on their way at a time.

        name: tells equal requests apart whose answers may differ. KimiError when the endpoint does not answer at all;
        requests that are on their way then, or at Ctrl-C, are given up.
        """
        results: list[Outcome | Refused] = [Refused("", False)] * len(requests)
        failures: list[KimiError] = []
        self._stop.clear()

        def work(index: int) -> tuple[int, Outcome | Refused]:
            try:
                return index, self.ask(*requests[index])
            except Refused as refusal:
                return index, refusal
            except KimiError as error:
                failures.append(error)  # those that come behind the first were given up
                self._stop.set()
                raise

        with ThreadPool(max(1, min(self.parallel, len(requests)))) as pool:  # daemons: nobody waits for them
            try:
                for index, outcome in pool.imap_unordered(work, range(len(requests))):
                    results[index] = outcome
            except KimiError:
                raise failures[0] from None
            finally:
                self._stop.set()
        return results

    def ask(self, name: str, request: dict) -> Outcome:
        """One answer, from the file that keeps them if it is there. Raises Refused and KimiError."""
        request = {"model": self.model, **request, **self._own(request)}
        content = json.dumps([self.url, name, request], sort_keys=True)
        digest = sha256(content.encode()).hexdigest()
        self._used.add(digest)
        if digest not in self._answers:
            outcome = self._persist(request)
            self._keep(digest, outcome)
        outcome = Outcome(**self._answers[digest])
        with self._lock:
            self.counts.update(answers=1, **outcome.usage)
            if self.on_answer is not None:
                self.on_answer()
        return outcome

    def _own(self, request: dict) -> dict:
        """The fields that the user has set, in the place of the exam's."""
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        body = {**self.extra, **request.get("extra_body", {})}
        return {key: value for key, value in own.items() if value is not None} | {"extra_body": body}

    def _keep(self, digest: str, outcome: Outcome) -> None:
        entry = {"message": outcome.message, "finish": outcome.finish, "usage": outcome.usage}
        with self._lock:
            self._answers[digest] = entry
            if self.kept is not None:
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                with self.kept.open("a", encoding="utf-8") as file:
                    file.write(_line(digest, entry))

    def forget(self) -> None:
        """The exam is over: its answers leave the file; those of another one, which was stopped, stay."""
        left = {digest: entry for digest, entry in self._answers.items() if digest not in self._used}
        if left:
            write_atomic(self.kept, "".join(_line(*kept) for kept in left.items()))
        else:
            self.kept.unlink(missing_ok=True)

    def _persist(self, request: dict) -> Outcome:
        """Try until there is a whole answer."""
        reason, wait = "", 0.0
        for number in range(self.tries):
            if number:
                with self._lock:
                    self.counts["again"] += 1
            if self._stop.wait(wait) if wait else self._stop.is_set():
                raise KimiError("given up")
            wait = min(self.pause * 2**number, LONGEST_WAIT) * random.uniform(0.75, 1.25)
            try:
                return self._once(request)
            except self._errors.APIStatusError as error:
                reason = f"status {error.status_code}: {self._said(error)}"
                self._give_up_or_not(error)
                wait = max(wait, _retry_after(error.response.headers))
            except self._errors.APIError as error:  # the connection, a time-out, an error inside a stream
                reason = self._said(error)
                if FULL.search(reason):
                    raise Refused(reason, True) from None
            except (Broken, ValueError, ConnectionError, self._cut_off) as error:
                reason = f"a broken answer ({type(error).__name__}: {self._hidden(str(error))[:120]})"
        raise KimiError(f"{self.url} did not answer in {self.tries} tries; the last: {reason}")

    def _give_up_or_not(self, error: Any) -> None:
        """Raise for a status that will be the same next time."""
        status, said = error.status_code, self._said(error)
        if status in REFUSALS:
            raise Refused(said, status == 413 or bool(FULL.search(f"{error.code} {said}"))) from None
        if status in LATER and error.code not in UNPAID and error.type not in UNPAID:
            return
        advice = {
            401: f"; the key comes from --key-file or ${KEY_VARIABLE}",
            403: f"; the key comes from --key-file or ${KEY_VARIABLE}",
            404: "; does the address end in /v1, and is the model's name right?",
        }.get(status, "")
        raise KimiError(f"{self.url} answers {status}: {said}{advice}") from None

    def _said(self, error: Any) -> str:
        """The endpoint's own words in one line, without the key."""
        body = error.body if isinstance(getattr(error, "body", None), dict) else {}
        text = body.get("message") or getattr(error, "message", None) or str(error)
        return " ".join(self._hidden(str(text)).split())[:300]

    def _hidden(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text

    def _once(self, request: dict) -> Outcome:
        create = self._client.chat.completions.create
        until = time.monotonic() + self.timeout
        try:
            if not self.stream:
                return whole(create(**request))
            with create(**request, stream=True, stream_options={"include_usage": True}) as chunks:
                return joined(_in_time(chunks, until))
        except (AttributeError, TypeError, KeyError) as error:  # a body that is no chat completion
            raise Broken(str(error)) from None


def _in_time(chunks: Iterable, until: float) -> Iterable:
    for chunk in chunks:
        if time.monotonic() > until:
            raise Broken("the answer takes too long")
        yield chunk


# ---- around it ---------------------------------------------------------------------------------------------


def _clients() -> tuple[Any, Any]:
    """The client, and the one below it."""
    try:
        import httpx2
        import openai
    except ImportError:
        raise KimiError("an endpoint is asked through the openai client: pip install '.[serve]'") from None
    return openai, httpx2


def _retry_after(headers: Any) -> float:
    """Seconds that the endpoint asks to wait: a number or a date; 0 without one, and never long."""
    said = headers.get("retry-after", "")
    try:
        wait = float(said)
    except ValueError:
        try:
            wait = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError):
            wait = 0.0
    return min(max(wait, 0.0), LONGEST_WAIT) if wait == wait else 0.0


def read_key(file: str | Path | None) -> str | None:
    """The key from a file, or from KIMI_MINI_API_KEY; None without both. Its text is in no message."""
    try:
        key = os.environ.get(KEY_VARIABLE, "") if file is None else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise MissingFile(explain_os_error(error, file)) from None
    except UnicodeDecodeError:
        raise KimiError(f"{file} is no text; a key file holds one line") from None
    key, where = key.strip(), f"${KEY_VARIABLE}" if file is None else file
    if file is not None and not key:
        raise KimiError(f"{where} is empty; a key file holds one line")
    if not all(33 <= ord(letter) <= 126 for letter in key):
        raise KimiError(f"{where} holds no key: one line without blanks, of plain letters, digits and signs")
    return key or None


def _line(digest: str, entry: dict) -> str:
    """An answer in the file, behind a line that was cut short, too."""
    return "\n" + json.dumps([digest, entry])


def _read_answers(file: Path) -> dict[str, dict]:
    """What was answered before; a last line that was cut short is no answer."""
    answers = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            digest, answers[digest] = json.loads(line)
        except (ValueError, TypeError):
            continue
    return answers
