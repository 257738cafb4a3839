"""python -m outlier_features, and the console command outlier-features: see `cli.commands`."""

import sys

from outlier_features.cli.commands import main
from outlier_features.machine.logs import one_line_errors


def console() -> None:
    """Run one command; an expected error is one line, and an interrupted one says how to resume."""
    try:
        with one_line_errors():
            main()
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes: finished blocks and stages are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    console()
