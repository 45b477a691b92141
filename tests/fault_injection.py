"""Stop a program at its n-th file operation, as a kill would, without a new process."""

import os
from pathlib import Path

from espnet_taste.data import kaldi


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product catches it."""


class Power:
    """Counts file operations; from number ``last`` on every one of them fails.

    After a kill no clean-up runs either, so every operation after the first refused
    one is refused too: what is on disk stays as it was.
    """

    def __init__(self, monkeypatch, last):
        self.left = last
        for name in ("open", "unlink", "mkdir"):
            self._guard(monkeypatch, Path, name)
        monkeypatch.setattr(kaldi, "os", self)
        self.path = os.path

    def _guard(self, monkeypatch, owner, name):
        call = getattr(owner, name)

        def guarded(*args, **kwargs):
            self._count()
            return call(*args, **kwargs)

        monkeypatch.setattr(owner, name, guarded)

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise Killed

    def fsync(self, handle):
        self._count()

    def replace(self, old, new):
        self._count()
        os.replace(old, new)
