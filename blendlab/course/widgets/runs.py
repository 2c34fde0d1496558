"""A call that can be stopped, for a panel: a generator between steps, a plain function anywhere.

No paper. Next: panel.py.
"""

import ctypes
import inspect
import threading
from contextlib import closing, contextmanager

# Networks are shared between panels, and a run may have altered one until it ends.
ONE_AT_A_TIME = threading.Lock()


class Stopped(BaseException):
    """What a run that is no longer wanted ends with."""


def steps(made):
    """Yield (done, picture) of a generator, then (1, its result); of other values only that."""
    if not inspect.isgenerator(made):
        yield 1.0, made
        return
    latest = None
    with closing(made):
        while True:
            try:
                step = next(made)
            except StopIteration as end:
                latest = latest if end.value is None else end.value
                break
            if not (isinstance(step, tuple) and len(step) == 2):
                raise TypeError("a step is a pair: yield (done, picture), with done from 0 to 1")
            latest = step[1]
            yield step
    yield 1.0, latest


def result(made):
    """What a panel shows of play(...) in the end: a generator's result, else the value itself."""
    *_, (_, value) = steps(made)
    return value


class Run:
    """One call, with the values that the controls had when it was asked for."""

    def __init__(self, values: dict):
        self.values, self.stopped = values, False
        self._guard, self._inside = threading.Lock(), None

    def stop(self):
        """Ask it to end, from any thread; once is enough."""
        with self._guard:
            if self._inside and not self.stopped:
                _raise_in(self._inside, Stopped)
            self.stopped = True

    def check(self):
        if self.stopped:
            raise Stopped

    def steps(self, function):
        """Yield the steps of function(**values), as `steps` does; raise Stopped after stop()."""
        with self._interruptible():
            made = function(**self.values)  # of a generator function nothing has run yet
        with closing(steps(made)) as all_steps:
            for step in all_steps:
                self.check()
                yield step

    @contextmanager
    def _interruptible(self):
        with self._guard:
            self.check()
            self._inside = threading.get_ident()
        try:
            yield
        finally:
            with self._guard:
                _raise_in(self._inside, None)
                self._inside = None


def _raise_in(thread: int, error):
    """Raise an exception in a thread at its next line of Python; None takes it back."""
    argument = ctypes.py_object(error) if error else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)
