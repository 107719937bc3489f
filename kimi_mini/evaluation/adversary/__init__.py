"""Trajectories whose truth is known by how they were made, to try verifiers on.

Wrong ones that look right: the right words over the wrong state, the right answer without the work, code that knows
the tests, work without an end. And right ones that look unusual: another order, a mistake put right, another
spelling of the same code. A verifier must refuse the first and accept the second; `verify` counts how often it errs.

A kind is a script like a world's expert: a generator that yields assistant messages and is sent the tools' answers.
The adversary knows everything, the hidden tests too: that is what makes it an adversary.
"""

from kimi_mini.evaluation.adversary import right, wrong, wrong_code
from kimi_mini.evaluation.adversary.base import KINDS, Kind, perform

__all__ = ["KINDS", "Kind", "perform", "right", "wrong", "wrong_code"]
