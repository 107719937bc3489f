"""What somebody types who has tools of his own: sentences of no grammar of ours, about tools of no program of ours.

    python -m kimi_mini.experiments.verifiers.typed [--checkpoint FOLDER] [--name LOG]

The exam is drawn from grammars, and a model may know their manner and nothing else. So here are sentences that were
written by hand (`typed_requests`), each with its names in quotes and without. A request is met when everything was
looked up that it takes, exactly what it asks for was done, and the answer says what came out; one that cannot be met,
when nothing was done and the answer says so.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation, begin
from kimi_mini.agent.own_tools import dialogue
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base.command import in_one_line
from kimi_mini.base.denials import denies
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.course.figures import scores
from kimi_mini.experiments.harness import begin as begin_log
from kimi_mini.experiments.harness import common_parser, finish, rate, read
from kimi_mini.experiments.verifiers.typed_requests import DESKS, REQUESTS, Desk, Request, tools_of
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.base import final_answer
from kimi_mini.worlds.desk.world import LIMITS

FLOOR = 0.90  # as for wordings that are not trained
MARKS = {"quoted": True, "bare": False}
SAYS = {
    "quoted": "requests typed by hand for tools of one's own, names in quotes",
    "bare": "the same with names without quotes",
}
PAGE = "05_tools_and_the_agent_loop.ipynb"


def met(request: Request, desk: Desk, conversation: Conversation) -> bool:
    """Whether the request was met; an attempt that was cut off has met nothing."""
    if conversation.finish != "stop":
        return False
    answer = final_answer(conversation.messages) or ""
    deeds = sorted(call for call in desk.called if len(call) == 3)
    if request.refuse:
        return not deeds and denies(answer)
    told = not denies(answer) and all(word in answer.lower() for word in request.says)
    return set(request.reads) <= set(desk.called) and deeds == sorted(request.deeds) and told


def answers(model: KimiMini, tokenizer: Tokenizer, requests: list[Request], quotes: bool) -> list[bool]:
    """Which of the requests the agent meets, greedily."""
    desks, conversations = [], []
    for request in requests:
        desk, tools = tools_of(request.desk)
        desks.append(desk)
        conversations.append(dialogue(request.typed(quotes), tools))
        begin(conversations[-1], tokenizer)
    loop.converse(LocalPolicy(model, tokenizer), conversations, tokenizer, LIMITS)
    return [met(*each) for each in zip(requests, desks, conversations)]


def main() -> None:
    """Ask everything, with quotes and without; write data/results/typed.json and the figure."""
    parser = common_parser(__doc__.splitlines()[0], seeds=(0,), checkpoint=CHECKPOINTS / "reader")
    parser.add_argument("--name", default="typed", help="of the log")
    args = read(parser)
    model, tokenizer, log = begin_log(args.name, args)
    requests = list(REQUESTS[: max(8, int(len(REQUESTS) * args.scale))])
    for marks, quotes in MARKS.items():
        passed = answers(model, tokenizer, requests, quotes)
        for kind in dict.fromkeys(request.kind for request in requests):
            own = [right for request, right in zip(requests, passed) if request.kind == kind]
            log.row(marks=marks, kind=kind, n=len(own), passed=sum(own), **rate(sum(own), len(own)))
    report(log)
    finish(log, **{args.name: draw})


def report(log: Log) -> None:
    """A claim with quotes and one without."""
    for marks, says in SAYS.items():
        rows = [row for row in log.rows if row["marks"] == marks]
        found = rate(sum(row["passed"] for row in rows), sum(row["n"] for row in rows))
        log.claim(
            f"{log.path.stem}/{marks}",
            claim=f"{says} ({sum(row['n'] for row in rows)} of {len(DESKS)} desks)",
            source="this project",
            floor=FLOOR,
            figure=f"figures/{log.path.stem}.png",
            notebook=PAGE,
            **found,
        )


def draw(log: dict) -> Figure:
    """Each kind of request, with quotes and without."""
    return scores.scoreboard(
        {f"{row['marks']}/{row['kind']}": row | {"floor": None} for row in log["rows"]},
        title="Typed by hand, for tools of one's own",
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
