"""The one exception that the command line shows as a single line.

Raise KimiError (or a subclass) where the *user* can put things right: an unknown preset, a missing or cut
checkpoint, a full disk. Its text is one line that says what is wrong and what to do. Programming mistakes
keep their own exception types and their traceback.
"""


class KimiError(Exception):
    """A problem that the user can solve; `str(error)` is one line that says how."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class SandboxUnavailable(KimiError):
    """The sandbox engine asked for cannot run on this machine; the text says what is missing."""
