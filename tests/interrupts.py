"""An exception raised at any line of the library, as a signal handler can."""

import gc
import sys

from tests.support import LIBRARY


class Interrupt(Exception):
    """What a signal handler raises."""


class Late(Interrupt, TimeoutError):
    """One that is an `OSError`, as many of them are."""


class Tracer:
    """Raises at the line with the number `at`, of all that the library's frames execute in some files."""

    def __init__(self, at, kind, places):
        self.left, self.kind, self.places = at, kind, places

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(self.places):
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise self.kind
        return self


def interrupted_at(number, use, kind=Interrupt, places=(LIBRARY,)):
    """What comes out of `use()` when line `number` raises, and whether it has so many lines."""
    before, tracer, raised = sys.gettrace(), Tracer(number, kind, places), None
    gc.disable()  # what is raised in the finalizer of an earlier file is lost
    sys.settrace(tracer)
    try:
        use()
    except Interrupt as error:
        raised = error
    finally:
        sys.settrace(before)
        gc.enable()
    return raised, tracer.left < 0
