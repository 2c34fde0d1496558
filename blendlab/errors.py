"""What is said to a caller who asked for what cannot be done: one sentence, with the fix.

Editing functions raise it for what a caller can mend; and OSError of files, MemoryError, and
RuntimeError under torch.inference_mode. No paper. Next: options.py.
"""


class Refused(ValueError):
    """The input is not taken; the sentence names it and what to pass instead."""


class WrongType(Refused, TypeError):
    """The same, where the input is another kind of object."""
