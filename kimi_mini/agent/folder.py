"""An agent on disk: config, weights, tokenizer, chat template and what it is used to (agent.json), in one Hugging Face
folder.

Two agents may be there: the one that this repository ships, and one's own, which `make run` leaves in data/run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import replacing
from kimi_mini.base.paths import CHECKPOINTS, RUNS, TOKENIZER, in_clone, short
from kimi_mini.model.checkpoint import save_folder
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.habits import Habits
from kimi_mini.text.tokenizer import Tokenizer


def save_agent(model: KimiMini, folder: Path, habits: Habits | None = None) -> None:
    """A Hugging Face folder: config, weights, tokenizer, chat template, and what the agent is used to (None: nothing
    of its own). Each file appears whole or not at all."""
    habits = habits or Habits()
    files = [TOKENIZER / name for name in ("tokenizer.json", "tokenizer_config.json")]
    special = Tokenizer.load().special
    ids = {
        "bos_token_id": special["[BOS]"],
        "pad_token_id": special["[PAD]"],
        "eos_token_id": [special["<|im_end|>"], special["[EOS]"]],
    }
    save_folder(folder, model.config.replace(**ids), model.state_dict(), files)
    with replacing(folder / "chat_template.jinja") as part:
        part.write_text(habits.template, encoding="utf-8")
    habits.save(folder)


def load_agent(folder: str | Path) -> tuple[KimiMini, Tokenizer]:
    """Model and tokenizer of a checkpoint folder. Raises KimiError that says what to do."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise KimiError(
            f"no checkpoint in {folder}; {in_clone('`make run` trains one')}, --checkpoint names another folder"
        )
    try:
        return KimiMini.from_pretrained(folder), Tokenizer.load(folder)
    except (OSError, ValueError, KeyError) as error:
        raise KimiError(f"the checkpoint in {folder} cannot be read: {error}") from None


def fingerprint(folder: Path) -> str:
    """Twelve hexadecimal digits that tell the weights of a checkpoint folder apart."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]


def shipped_agent() -> Path:
    """The folder of the agent that this repository ships: the numbers of README and of the notebooks are its own."""
    return CHECKPOINTS / "final"


def newest_agent() -> Path:
    """The folder of one's own agent: of the runs in data/run, and in folders there, that which ended last. Without one
    the shipped agent. A rehearsal in data/run/rehearsal leaves no agent worth talking to and is passed over."""
    runs = [RUNS, *RUNS.glob("*")] if RUNS.is_dir() else []
    logs = [run / "run.json" for run in runs if run != RUNS / "rehearsal"]
    ended = [
        log
        for log in logs
        if log.is_file() and (log.parent / "checkpoints" / "final" / "config.json").is_file()
    ]
    if not ended:
        return shipped_agent()
    return max(ended, key=lambda log: log.stat().st_mtime).parent / "checkpoints" / "final"


def whose(folder: Path) -> str:
    """Which agent a folder holds, in words: "the shipped agent, data/checkpoints/final"."""
    shipped = folder.resolve().parent == CHECKPOINTS.resolve()  # by any path, and not `final` alone
    kind = "the shipped agent" if shipped else "your own agent"
    return f"{kind}, {short(folder)}"
