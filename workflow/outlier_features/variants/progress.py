"""Progress: how far a pass with variants is, as a bar that names the block and the variant."""

from collections.abc import Sequence

from tqdm import tqdm

from outlier_features.capture.engine import Variant as Course
from outlier_features.variants.runs import Run


class Progress:
    """The progress of a pass from its first block to its last; a step is one window of one variant in one block."""

    def __init__(self, blocks: int, courses: Sequence[Course], first: int) -> None:
        """Begin at block `first`."""
        self._blocks = blocks
        steps = [
            sum(len(course.windows) for course in courses if min(course.first, blocks - 1) <= block)
            for block in range(blocks)
        ]
        self._bar = tqdm(total=sum(steps), initial=sum(steps[:first]), desc="vary", unit="window", mininterval=2)

    def turn(self, block: int, run: Run) -> None:
        """Name what runs."""
        self._bar.set_postfix_str(f"block {block + 1} of {self._blocks}, {run.key}", refresh=False)

    def step(self) -> None:
        """Count a window of a variant that has passed a block."""
        self._bar.update()

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
