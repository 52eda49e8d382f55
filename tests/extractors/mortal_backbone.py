"""A cheap backbone for workers of a Ray cluster: it takes its time, and a white clip kills its process."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import av
import numpy as np
from cheap_backbone import colours
from torch import Tensor

from cofinal.extractors.backbone import Backbone
from cofinal.extractors.batches import Pending


class MortalBackbone(Backbone):
    """Dies of white clips."""

    def submit(self, clips: Sequence[Tensor]) -> Pending:
        """Compute, unless a clip is white."""
        if any(clip.float().mean() > 240 for clip in clips):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05 * len(clips))
        return super().submit(clips)


def mortal(backbone: Backbone) -> Backbone:
    """Make a backbone mortal."""
    return MortalBackbone(**{field.name: getattr(backbone, field.name) for field in fields(backbone)})


def load(device: str, *, births: Path, bad: dict[int, Any] | None = None) -> tuple[Backbone, dict[str, Any]]:
    """Load a cheap backbone; leave a file of the process's number in the folder `births`.

    The first process, the second, ... may be bad in some way: its entry in `bad` is an error, or what it claims to be.
    """
    number = len(list(births.iterdir()))
    (births / str(os.getpid())).touch()
    claim = (bad or {}).get(number, "colours")
    if isinstance(claim, Exception):
        raise claim
    return mortal(colours(clip_frames=4)), {"backbone": claim, "device": device}


def load_mortal(device: str, **how: Any) -> tuple[Backbone, dict[str, Any]]:
    """As extract-features loads its backbone."""
    from cofinal.pipeline import workers

    backbone, manifest = workers.load_backbone(device, **how)
    return mortal(backbone), manifest


def write_white_video(path: Path, *, seconds: float) -> None:
    """Write a video of which the backbone dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((64, 96, 3), 255, np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(round(25 * seconds)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
