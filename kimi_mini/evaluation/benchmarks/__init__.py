"""the mini benchmarks: tasks on disk, whoever solves them, the scores by part, and what training has seen of them

table           which benchmarks there are, and what each is made of
store           tasks.jsonl, read and written
make            the folders of data/benchmarks/, made again from their seeds
suite           a model, here or behind an endpoint, works on them
audit           right and wrong players whose truth is known, on the tasks themselves
contamination   13-grams of tokens, and contents, of tasks in streams of training
inspect_tasks   the same tasks for inspect_ai
"""

from kimi_mini.evaluation.benchmarks.store import Item, items
from kimi_mini.evaluation.benchmarks.suite import boards, measured
from kimi_mini.evaluation.benchmarks.table import BENCHMARKS, Benchmark, Part

__all__ = ["BENCHMARKS", "Benchmark", "Item", "Part", "boards", "items", "measured"]
