"""Logs: what a stage says goes to its log file and to the terminal; expected errors are one line, not a traceback."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from outlier_features.errors import OutlierFeaturesError
from outlier_features.machine.disk import explained


class Tee:
    """A text stream that writes to several others."""

    def __init__(self, *streams: "TextIO | Log") -> None:
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


class Log:
    """A log file; where the disk has no room for a line, the line is only elsewhere."""

    def __init__(self, path: Path) -> None:
        """Begin an empty file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")

    def write(self, text: str) -> None:
        """Write to the file."""
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Flush the file."""
        with suppress(OSError):
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._file.close()


@contextmanager
def logged(path: str | Path) -> Iterator[None]:
    """Copy what is printed to a log file as well; turn an expected error into one line and exit status 1.

    The traceback of any other error is kept in the log too.
    """
    with one_line_errors(), explained(Path(path)):
        opened = Log(Path(path))
    with closing(opened) as log:
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
        _end_progress()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _end_progress() -> None:
    """Close the progress bars that an error has left open, so that what is said next has a line of its own."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
