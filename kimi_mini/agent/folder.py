"""An agent on disk: config, weights, tokenizer and chat template in one Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kimi_mini.base.files import replacing
from kimi_mini.base.paths import TOKENIZER, in_clone
from kimi_mini.model.checkpoint import save_folder
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    pass
from kimi_mini.base.errors import KimiError


def save_agent(model: KimiMini, folder: Path) -> None:
    """A Hugging Face folder: config, weights, tokenizer, chat template. Each file appears whole or not at all."""
    files = [TOKENIZER / name for name in ("tokenizer.json", "tokenizer_config.json")]
    special = Tokenizer.load().special
    ids = {
        "bos_token_id": special["[BOS]"],
        "pad_token_id": special["[PAD]"],
        "eos_token_id": [special["<|im_end|>"], special["[EOS]"]],
    }
    save_folder(folder, model.config.replace(**ids), model.state_dict(), files)
    with replacing(folder / "chat_template.jinja") as part:
        part.write_text(chat.CHAT_TEMPLATE, encoding="utf-8")


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
