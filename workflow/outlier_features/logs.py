"""Logs: what a stage says goes to its log file and to the terminal; expected errors are one line, not a traceback."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

from outlier_features.errors import OutlierFeaturesError


class Tee:
    """A text stream that writes to several others."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        """Write to every stream."""
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush every stream."""
        for stream in self._streams:
            stream.flush()

    def isatty(self) -> bool:
        """Tell progress bars that this is no terminal."""
        return False


@contextmanager
def logged(path: str | Path) -> Iterator[None]:
    """Copy what is printed to a log file as well; turn an expected error into one line and exit status 1.

    The traceback of any other error is kept in the log too.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("w", encoding="utf-8") as log:
        tee = Tee(log, sys.stderr)
        with redirect_stdout(tee), redirect_stderr(tee), one_line_errors():  # type: ignore[type-var]
            try:
                yield
            except OutlierFeaturesError:
                raise
            except Exception:
                log.write(traceback.format_exc())
                raise


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print an expected error without a traceback and exit with status 1."""
    try:
        yield
    except OutlierFeaturesError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
