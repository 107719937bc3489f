"""`python -m kimi_mini run` in small: a few steps of 1024 tokens, a few short rows of the scoreboard. And mortal:

    KILL=finetune.pt:3 python tests/helpers/rehearsal.py --folder F --scale 0.001

kills itself with SIGKILL in the middle of the third save of fine-tuning.
"""

import functools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from kimi_mini import __main__
from kimi_mini.evaluation import scoreboard
from kimi_mini.pipeline import shared
from kimi_mini.text import corpus
from kimi_mini.training import loop
from kimi_mini.training.rl import rewards, rounds
from kimi_mini.worlds import rows

ROWS = ("chain/reflex", *(row.name for row in scoreboard.ROWS if row.floor is not None))


def mortal(replace, name, number):
    """`os.replace` that ends the process on the given save of the file `name`: half of it is written, the old one stands."""
    count = 0

    def replace_or_die(part, file, **options):
        nonlocal count
        count += Path(file).name == name
        if count == number:
            Path(part).write_bytes(b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(part, file, **options)

    return replace_or_die


def make_small():
    """Everything that the stages look up: sizes and limits, none of the logic."""
    shared.STEP_TOKENS = 1024
    shared.train = functools.partial(loop.train, save_seconds=0.0)
    documents = functools.partial(corpus.default_documents, 300_000)
    corpus.default_documents = lambda size: documents()
    shared.rl.Settings = functools.partial(
        rounds.Settings, prompts=3, attempts=3, ptx_tokens=512, limits=rows.Limits(turn_tokens=12, turns=2)
    )
    rewards.reward = lambda conversation, penalty: float(
        conversation.ids[conversation.prompt_length] % 2
    )  # by lot
    small = lambda limits: replace(limits, turn_tokens=6, turns=2)
    scoreboard.ROWS = tuple(
        replace(r, limits=small(r.limits), share=0.5, levels=r.levels[:1] if r.by_level else r.levels)
        for r in scoreboard.ROWS
        if r.name in ROWS
    )


if __name__ == "__main__":
    if "KILL" in os.environ:
        name, number = os.environ["KILL"].split(":")
        os.replace = mortal(os.replace, name, int(number))
    make_small()
    sys.exit(__main__.main(["run", "--threads", "1", *sys.argv[1:]]))
