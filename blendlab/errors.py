"""What is said to a caller who asked for what cannot be done: one sentence, with the fix.

Whatever else is raised, but OSError (of files) and MemoryError, is a fault of blendlab, or of a
function that you passed. No paper. Next: options.py.
"""


class Refused(ValueError):
    """The input is not taken; the sentence names it and what to pass instead."""


class WrongType(Refused, TypeError):
    """The same, where the input is another kind of object."""
