"""Where things lie: the checkout that this package is part of, or, installed without one, the folder one works in."""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent.parent
ROOT = _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()

TEXT = ROOT / "data" / "text"  # corpora
TOKENIZER = ROOT / "data" / "tokenizer"
CHECKPOINTS = ROOT / "data" / "checkpoints"  # the shipped agent: base, tuned, final
RESULTS = ROOT / "data" / "results"  # logs of measured runs
FIGURES = ROOT / "figures"
RUNS = ROOT / "data" / "run"  # runs of one's own, which git does not see
