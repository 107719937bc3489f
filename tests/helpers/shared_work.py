"""A round of RL and two rows of the scoreboard, by all processes that were started together:

    python tests/helpers/shared_work.py OUT.pt [MISTAKE]

The first rank writes what came out: the round, the rows, the weights after the round.
"""

import contextlib
import sys
from dataclasses import asdict
from unittest import mock

import numpy as np
import torch

from kimi_mini import MuonClip
from kimi_mini.agent.folder import load_agent
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base import ranks
from kimi_mini.base.paths import CHECKPOINTS, ROOT
from kimi_mini.evaluation import scoreboard
from kimi_mini.training import sft
from kimi_mini.training.batch import Example
from kimi_mini.training.machine import distributed
from kimi_mini.training.rl import rounds
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Curriculum

SETTINGS = RLConfig(tasks=(("follow", 8), ("follow", 10)), rounds=1, prompts=5, attempts=3, ptx_tokens=256)
ROWS = ("chain/thinking/3", "repair/best_of_4")
MISTAKES = {
    "right": contextlib.nullcontext(),
    "dice of each rank": mock.patch.object(
        rounds, "LocalPolicy", lambda *given, numbers, **more: LocalPolicy(*given, **more)
    ),
    "gradients of each rank": mock.patch.object(distributed, "join_step", lambda model: None),
    "results in the order of the ranks": mock.patch.object(
        ranks, "gathered", lambda own, right=ranks.gathered: sorted(right(own), key=str)
    ),
}


def work() -> dict:
    """What is shared out in a run, in small."""
    model, tokenizer = load_agent(CHECKPOINTS / "tuned")
    rows = [part for row in scoreboard.ROWS for part in row.parts if part.name in ROWS]
    board = {row.name: scoreboard.measure(model, tokenizer, row, 6) for row in rows}
    for entry in board.values():
        entry.pop("seconds")
    groups, temperature = rounds.sample_round(
        model, tokenizer, SETTINGS, Curriculum().draw(SETTINGS, 0, 0), 0, 0
    )
    written = ranks.gathered([[c.ids for c in group] for group in groups])
    optimizer = MuonClip(model, lr=3e-4, adamw_lr=1e-4, ns_dtype=torch.float32)
    text = np.asarray(tokenizer.encode_plain((ROOT / "README.md").read_text()), np.int32)
    examples = [Example(piece, np.ones(len(piece), bool)) for piece in np.split(text[:640], 10)]
    ptx = sft.mixed({("text", 0): examples}, 256, 512, 0)(0)
    measured = rounds.update(model, optimizer, groups, temperature, SETTINGS, ptx)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return {"board": board, "written": written, "round": asdict(measured), "weights": weights}


if __name__ == "__main__":
    with distributed.joined("cpu"), MISTAKES[(sys.argv[2:] or ["right"])[0]]:
        found = work()
        if not ranks.rank():
            torch.save(found, sys.argv[1])
