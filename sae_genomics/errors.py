"""The three ways a command ends other than well, and their exit codes."""

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_REQUEUE = 75


class UserError(Exception):
    """Something the user can fix. The message is one line: what is wrong, where, and what to type next."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class Interrupted(Exception):
    """A signal asked the task to stop; everything needed to go on is saved. Ends with exit code 75."""


class DamagedArtifact(Exception):
    """A file that was complete once cannot be read now. The pipeline names it and makes it again."""
