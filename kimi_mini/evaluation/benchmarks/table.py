"""The table of the mini benchmarks. An entry is all that one needs: its tasks, datasheet, scores and claims follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kimi_mini.base.errors import KimiError
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.registry import FAMILIES
from kimi_mini.worlds.rows import LIMITS, MANAGED, Limits

BARE = (
    "An answer is right as a bare value alone, which our agents know from training and no task says: a model that "
    "writes a sentence around it reads 0, unless `eval --endpoint` tells it the form (`--form`)."
)
SEED = 9  # of all benchmarks; the scoreboard's own rows are drawn from seed 0


@dataclass(frozen=True)
class Part:
    """So many held-out tasks of one or more families at some levels, worked on within one set of limits.

    families   in equal shares
    floor      what a trained agent is asked to reach, or None
    taught     the shipped agent that was taught these families afterwards, where no run trains them
    """

    name: str
    families: Sequence[str]
    levels: Sequence[int]
    count: int = 200
    limits: Limits = LIMITS
    floor: float | None = None
    taught: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A folder of data/benchmarks/.

    like    the benchmark of large models that it is a miniature of
    agent   the shipped agent that it is meant for; the others are measured, too
    says    what is asked, in a line
    check   what the verifier looks at
    blind   what a score does not tell
    """

    name: str
    like: str
    agent: str
    parts: Sequence[Part]
    says: str
    check: str
    blind: str

    @property
    def title(self) -> str:
        """As people write it: mini-SWE."""
        first, _, last = self.name.partition("_")
        return (
            f"mini-{last.upper() if last == 'swe' else last.title()}" if first == "mini" else "long horizon"
        )

    @property
    def reflex(self) -> bool:
        """Whether it can be answered without a thought: training shows some of its families so."""
        return any("reflex" in FAMILIES[f].shares for part in self.parts for f in part.families)


def _calls(count: int, tasks: int, floor: float | None = None) -> Part:
    return Part(f"{count} calls", ("follow",), (count,), tasks, MANAGED, floor)


BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark(
            "mini_swe",
            "SWE-bench Verified",
            "final",
            (
                Part("one file", ("repair",), (2, 3, 4), floor=0.80),
                Part("several files", ("project",), FAMILIES["project"].measured, 100, taught="final_taught"),
            ),
            "Repair code until its tests pass, the hidden ones too.",
            "The final source is run in the sandbox on a hundred hidden inputs; few edits are allowed, and words count "
            "for nothing.",
            "Functions of a few lines with one bug each, in one to three files, in Python without a library. Nothing "
            "about reading a large code base, about writing a test, or about a bug report by a person.",
        ),
        Benchmark(
            "mini_code",
            "LiveCodeBench v6",
            "final",
            (Part("functions of 1 to 4 lines", ("write",), (1, 2, 3, 4), floor=0.50, taught="final_taught"),),
            "Write a function from its description and two examples.",
            "The submitted source is run in the sandbox on 190 hidden inputs; few tries are allowed, and the "
            "right words without the work count for nothing.",
            "Every line of the description is one line of code, so it asks for translation, not for an algorithm. "
            "There are two whole numbers as input and no library.",
        ),
        Benchmark(
            "mini_math",
            "MATH-500",
            "final",
            (
                Part("chains of 6 to 8 steps", ("chain",), (6, 7, 8), 60, floor=0.80),
                Part("sums of 4 digits", ("add", "times"), (4,), 60, floor=0.80),
                Part(
                    "algebra, 6 to 8 definitions",
                    ("define",),
                    (6, 7, 8),
                    50,
                    floor=0.80,
                    taught="final_taught",
                ),
                Part("algebra, equations", ("solve",), (1, 2, 3), 30, floor=0.80, taught="final_taught"),
            ),
            "Work out a number in several steps, each of which needs the one before.",
            "The answer as a number, or as an expression that is worth the same for every number that is tried.",
            "The way to the answer is always the same; there is no word problem, no proof and no choice of a method. "
            "A guess is right once in a hundred chains. " + BARE,
        ),
        Benchmark(
            "mini_telecom",
            "tau2-bench telecom",
            "final",
            (Part("whole calls", ("line",), (1, 2, 3), floor=0.60, taught="reader_taught"),),
            "Help a customer on the phone, who acts when asked, and keep the policy of the system message.",
            "The account, the phone and the order of what was done: identified first, the steps of the policy one at a "
            "time, no refund beyond the limit.",
            "The customer is a script with three voices who does what he is told and never lies. The policy has two "
            "sentences; that of tau2-bench has pages.",
        ),
        Benchmark(
            "mini_search",
            "BrowseComp",
            "final",
            (Part("two to four documents", ("hops",), (2, 3, 4), floor=0.60, taught="reader_taught"),),
            "Answer a question whose answer stands several documents away, with a search and a look at one document.",
            "The answer, and that every document on the way to it was opened, and not simply all of them.",
            "About a dozen short documents that are searched by their words. Nothing contradicts anything else, and no "
            "page is long, out of date or written to mislead. " + BARE,
        ),
        Benchmark(
            "mini_tools",
            "ACEBench",
            "reader",
            (
                Part(
                    "unseen domains",
                    ("domains",),
                    FAMILIES["domains"].measured,
                    limits=WORLDS["desk"].rows[0].limits,
                    floor=0.75,
                ),
            ),
            "Use the declared tools of trades that no training stream holds.",
            "Reads that must have happened, exactly the asked writes in the records, and the answer.",
            "Eight patterns of tasks, all of them trained in other trades. A composition of patterns, an error on the "
            "way or a tool that has to be found are other rows of the scoreboard.",
        ),
        Benchmark(
            "long_horizon",
            "200 to 300 tool calls in a row (K2 Thinking)",
            "final",
            (_calls(10, 40), _calls(50, 40), _calls(100, 40), _calls(200, 40, 0.90), _calls(300, 20)),
            "Follow a chain of records, a call each, while old calls and results are hidden.",
            "Every record of the chain was read once and in order, and the last one is the answer.",
            "All calls are alike: nothing has to be planned, and nothing from the beginning is needed at the end. "
            + BARE,
        ),
    )
}


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """Benchmarks by their names; "all" for every one. KimiError for a name that is none."""
    if unknown := set(names) - BENCHMARKS.keys() - {"all"}:
        raise KimiError(f"no benchmark is {min(unknown)!r}; there are {', '.join(BENCHMARKS)}, and all")
    return [one for name, one in BENCHMARKS.items() if name in names or "all" in names]
