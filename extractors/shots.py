"""Cuts and stills, found while a video's frames pass by: only the frame before is kept.

A cut is a change of the picture from one frame to the next that is large and far above all changes around it. So a fast
camera is no cut, and neither is a flash, whose two changes stand beside each other. Dissolves are not found. A still is
a picture that does not change for a second or more.
"""

from collections import deque

import numpy as np

STRIDE = 8
"""Every eighth pixel in both directions is compared."""
CUT_CHANGE, CUT_RATIO = 10.0, 3.0
"""A cut changes the picture by at least so many grey levels on average, and by so many times the changes around it."""
REACH = 4
"""Changes to either side that a cut is compared with."""
STILL_LEVELS, STILL_S = 2, 1.0
"""In a still no compared pixel changes by more grey levels, for at least so many seconds."""
MOST = 100
"""Cuts and stills that are listed; later ones are left out."""


class Shots:
    """The cuts and stills of one video.

    Attributes:
        cuts_s: seconds at which a new shot begins.
        stills_s: start and end in seconds of each still.
    """

    def __init__(self) -> None:
        self.cuts_s: list[float] = []
        self.stills_s: list[list[float]] = []
        self._before: np.ndarray | None = None
        self._changes: deque[tuple[float, float]] = deque([(0.0, 0.0)] * REACH, maxlen=2 * REACH + 1)
        self._still_from: float | None = None
        self._last_s = 0.0

    def see(self, image: np.ndarray, time_s: float) -> None:
        """Take the next frame (H, W, 3) uint8, shown at this time."""
        pixels = image[::STRIDE, ::STRIDE].astype(np.int16)
        if self._before is not None:
            change = np.abs(pixels - self._before)
            self._note_change(time_s, float(change.mean()))
            if change.max() > STILL_LEVELS:
                self._end_still()
            elif self._still_from is None:
                self._still_from = self._last_s
        self._before, self._last_s = pixels, time_s

    def end(self) -> None:
        """End the video: what was waiting for later frames is decided."""
        for _ in range(REACH):
            self._note_change(self._last_s, 0.0)
        self._end_still()

    def _note_change(self, time_s: float, change: float) -> None:
        """Decide whether the change in the middle of the last ones is a cut."""
        self._changes.append((time_s, change))
        if len(self._changes) < 2 * REACH + 1:
            return
        at_s, largest = self._changes[REACH]
        around = max(change for place, (_, change) in enumerate(self._changes) if place != REACH)
        if largest > CUT_CHANGE and largest > CUT_RATIO * around and len(self.cuts_s) < MOST:
            self.cuts_s.append(round(at_s, 3))

    def _end_still(self) -> None:
        if self._still_from is not None and self._last_s - self._still_from >= STILL_S and len(self.stills_s) < MOST:
            self.stills_s.append([round(self._still_from, 3), round(self._last_s, 3)])
        self._still_from = None
