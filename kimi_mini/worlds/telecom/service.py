"""Both sides of a call to a telephone company: the agent's accounts, and a user with a phone who does what he is told.

The agent's tools do whatever they are asked, whether or not the policy allows it: keeping it is the agent's work. What
the user says follows from the real state of the phone. `done` records everything in order:

    (identify,)   (lookup,)   (technician,)   (refund, amount)   (said,)   (asked, action)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from kimi_mini.worlds.base import Environment, needs
from kimi_mini.worlds.telecom.hearing import asked_for
from kimi_mini.worlds.tools import Tool, Toolbox, ToolError

STEPS = {
    "restart": "restart",
    "airplane": "airplane mode off",
    "apn": "APN of the account",
    "technician": "technician",
}
WORKS = ("It works now, thanks.", "Done, and it works.", "Great, it is back.")
STILL = ("Done, it still does not work.", "I did that. Still nothing.", "No change.")
LOST = ("It does not work. What shall I do?", "But it does not work.", "And what do I do now?")
WAITS = ("Good, thank you.", "I will be here.", "Fine.")
PATIENCE = 2  # answers without help until the user gives up
TEXT = {"type": "string"}


@dataclass
class Service(Environment):
    """The account of a task's customer and the customer's phone.

    data: {line, code, apn, steps (of the policy, in order), cause (the step that helps), limit (of refunds), refund
    (that the user wants, or None), voice (which of his words he uses)}
    """

    data: dict = field(default_factory=dict)
    done: list[tuple] = field(default_factory=list)
    apn: str | None = None  # in the phone, once the user has set it
    broken: bool = True
    helped: bool = False  # it works, or somebody comes
    patience: int = PATIENCE
    wishes_at: int | None = None  # how much was done when the user, helped, said what else he wants

    def __post_init__(self) -> None:
        whole = {"type": "integer", "minimum": 1}
        self.state = self
        self.toolbox = Toolbox(
            [
                Tool("identify", "", needs(line=TEXT, code=TEXT), self._identify),
                Tool("lookup", "", needs(line=TEXT), self._lookup),
                Tool("technician", "", needs(line=TEXT), self._technician),
                Tool("refund", "", needs(line=TEXT, amount=whole), self._refund),
            ]
        )

    def close(self) -> None:
        """Nothing is held."""

    # -- the agent's side ------------------------------------------------------------------------------

    def _account(self, line: str) -> dict:
        if line != self.data["line"]:
            raise ToolError(f"no line {line}")
        return self.data

    def _identify(self, line: str, code: str) -> str:
        if code != self._account(line)["code"]:
            raise ToolError("the code does not match")
        self.done.append(("identify",))
        return "ok"

    def _lookup(self, line: str) -> str:
        account = self._account(line)
        self.done.append(("lookup",))
        return json.dumps({"status": "active", "apn": account["apn"]}, separators=(",", ":"))

    def _technician(self, line: str) -> str:
        self._account(line)
        self.done.append(("technician",))
        return "ok"

    def _refund(self, line: str, amount: int) -> str:
        self._account(line)
        self.done.append(("refund", amount))
        return "ok"

    # -- the user's side -------------------------------------------------------------------------------

    def user_turn(self, answer: str) -> str | None:
        """Does what the answer asks for, and says what has come of it. Once it works, or somebody comes, the user asks
        for a refund if there is one to ask for, and then has nothing more to say or to do: last words that name the
        step are no step."""
        self.done.append(("said",))
        if self.helped:
            return None
        self._act(answer)
        voice, asked = self.data["voice"], self.done[-1][0] == "asked"
        if not self.broken or ("technician",) in self.done:
            self.helped, self.wishes_at = True, len(self.done)
            refund = f" Please refund {self.data['refund']}." if self.data["refund"] else ""
            return (WAITS if self.broken else WORKS)[voice] + refund
        if asked:
            return STILL[voice]
        self.patience -= 1
        return LOST[voice] if self.patience else None

    def _act(self, answer: str) -> None:
        for name, said in asked_for(answer.lower()).items():
            self.done.append(("asked", name))
            if name == "apn":
                self.apn = said[1]
        tried = {event[1] for event in self.done if event[0] == "asked"}
        right = self.apn in (None, self.data["apn"])
        self.broken = not (self.data["cause"] in tried and right)
