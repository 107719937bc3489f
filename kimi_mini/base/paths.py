"""Where things lie: the clone that this package is part of, or, installed without one, the folder one works in."""

from pathlib import Path

# a clone, or site-packages, where nothing may be written
_ABOVE = Path(__file__).resolve().parent.parent.parent
IN_CLONE = (_ABOVE / "pyproject.toml").is_file()
ROOT = _ABOVE if IN_CLONE else Path.cwd()

TEXT = ROOT / "data" / "text"  # corpora
TOKENIZER = ROOT / "data" / "tokenizer"
CHECKPOINTS = ROOT / "data" / "checkpoints"  # the shipped agent: base, tuned, final
RESULTS = ROOT / "data" / "results"  # logs of measured runs
GPU_RESULTS = RESULTS / "gpu"  # those of one GPU
GPU_FLOORS = GPU_RESULTS / "floors.json"  # what they are to show
FIGURES = ROOT / "figures"
RUNS = ROOT / "data" / "run"  # runs of one's own, which git does not see


def short(path: Path) -> str:
    """A path as it reads from the top of the clone."""
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix()


def in_clone(advice: str) -> str:
    """What to do about a missing file that the project ships: `advice`, or, without a clone, to work in one."""
    return (
        advice
        if IN_CLONE
        else "pip installs no texts, tokenizer or trained agents: work in a clone of the project"
    )
