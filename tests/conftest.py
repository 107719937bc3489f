"""Shared by all tests: no network, repeatable draws, the repository's root."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that wants the network fails here as it would anywhere else
os.environ["KIMI_MINI_ENGINE"] = (
    "onednn"  # runs are compared bit for bit: no probe may choose another one meanwhile
)
ROOT = Path(__file__).resolve().parent.parent

settings.register_profile(
    "kimi", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("kimi")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test begins with the same global seeds, whatever ran before it."""
    if "numpy" in sys.modules:  # a test without numbers need not wait for them
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
