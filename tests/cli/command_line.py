"""Runs a command as a shell would, in this process."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from yolo_dist.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which must be JSON and nothing else."""
        return json.loads(self.out)

    @property
    def errors(self) -> list[str]:
        """The error lines; there is nothing else on a command that failed."""
        lines = self.err.splitlines()
        assert all(line.startswith("error: ") for line in lines), self.err
        return [line.removeprefix("error: ") for line in lines]


def yolo_dist(*words: object) -> Outcome:
    """The outcome of `yolo-dist words…`."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with patch.object(sys, "argv", ["yolo-dist", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code
    return Outcome(code or 0, out.getvalue(), err.getvalue())


def done(*words: object) -> Outcome:
    """The outcome of a command that must succeed."""
    outcome = yolo_dist(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def refused(*words: object) -> list[str]:
    """The error lines of a command whose input must be refused."""
    outcome = yolo_dist(*words)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    return outcome.errors
