"""Batches of clips through a network on a device; a GPU gets its next batch while it computes.

On a GPU `Batches.submit` returns before the batch is computed. Each batch goes up from pinned memory and its results
come down into pinned memory, on streams of their own, so that both run beside the computing of the neighbouring
batches. torch keeps freed pinned memory and gives it to later batches. A CPU computes a batch when it is submitted.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MOST_CLIPS = 32
"""In a batch that is chosen by free memory."""
MOST_BYTES = 256 * 2**20
"""Of the uint8 clips of such a batch."""
FREE_SHARE = 0.8
"""Share of a GPU's free memory that such a batch may take."""

Compute = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Clips (B, F, H, W, 3) uint8 -> features (B, C) and class logits (B, num_classes), both float32, on one device."""


class Pending:
    """A batch that may still be computed."""

    def __init__(
        self, outputs: Tensor, feature_dim: int, downloaded: torch.cuda.Event | None = None, held: Sequence[Tensor] = ()
    ) -> None:
        self._outputs, self._feature_dim = outputs, feature_dim
        self._downloaded = downloaded
        self._held = held
        """Memory of the GPU that one stream has allocated and another one uses; freed sooner, it would be reused."""

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Wait for the batch.

        Returns:
            Features (B, C) and class probabilities (B, num_classes), both float32.

        Raises:
            ValueError: they are not finite.
        """
        if self._downloaded is not None:
            self._downloaded.synchronize()
            self._outputs = self._outputs.clone()  # gives the pinned memory back
            self._downloaded, self._held = None, ()
        features, probabilities = np.split(self._outputs.numpy(), [self._feature_dim], axis=1)
        if not np.isfinite(features).all():
            raise ValueError("the backbone's features are not finite: use --precision fp32, or other weights")
        return features, probabilities


class Batches:
    """Runs batches on a device.

    Args:
        compute: the network with its normalisation.
        device: where it computes.
    """

    def __init__(self, compute: Compute, device: torch.device) -> None:
        self._compute, self._device = compute, device
        self._most_clips: int | None = None
        """In one pass; None until the memory runs out."""
        self._streams: tuple[torch.cuda.Stream, torch.cuda.Stream] | None = None
        """For uploads and downloads."""

    @torch.inference_mode()
    def submit(self, clips: Sequence[Tensor]) -> Pending:
        """Start a batch of clips, each (F, H, W, 3) uint8 on the CPU.

        Raises:
            ValueError: the GPU's memory has no room for a single clip.
        """
        if self._device.type == "cuda":
            with torch.cuda.device(self._device):
                return self._submit_to_gpu(clips)
        return Pending(*self._outputs(torch.stack(list(clips))))

    def _submit_to_gpu(self, clips: Sequence[Tensor]) -> Pending:
        if self._streams is None:
            self._streams = torch.cuda.Stream(), torch.cuda.Stream()
        upload, download = self._streams
        compute = torch.cuda.current_stream()
        pinned = torch.empty((len(clips), *clips[0].shape), dtype=torch.uint8, pin_memory=True)
        torch.stack(list(clips), out=pinned)
        with torch.cuda.stream(upload):
            uploaded = pinned.to(self._device, non_blocking=True)
        compute.wait_stream(upload)
        outputs, feature_dim = self._outputs(uploaded)
        download.wait_stream(compute)
        with torch.cuda.stream(download):
            received = torch.empty(outputs.shape, pin_memory=True).copy_(outputs, non_blocking=True)
            downloaded = torch.cuda.Event(blocking=True)  # the thread that waits for it leaves its core to others
            downloaded.record()
        return Pending(received, feature_dim, downloaded, (uploaded, outputs))

    def _outputs(self, clips: Tensor) -> tuple[Tensor, int]:
        """Features and probabilities side by side (B, C + num_classes), and C; in parts if the memory runs out."""
        most = min(self._most_clips or len(clips), len(clips))
        while True:
            try:
                passes = [self._compute(part) for part in clips.split(most)]
                break
            except torch.cuda.OutOfMemoryError as error:
                if most == 1:
                    raise ValueError(
                        f"{self._device} has too little free memory for a single clip: end other programs on it, or "
                        "use --device cpu or a smaller --backbone"
                    ) from error
            # not inside `except`, where the error still holds the memory of the failed pass
            self._most_clips = most = most // 2
            torch.cuda.empty_cache()
            logger.warning("%s is short of memory: it takes %d clips at a time from now on", self._device, most)
        features, logits = (torch.cat(parts) for parts in zip(*passes, strict=True))
        return torch.cat([features, logits.softmax(dim=1)], dim=1), features.shape[1]

    @torch.inference_mode()
    def suitable_clips(self, shape: tuple[int, ...]) -> int:
        """Number of clips of a shape in a batch that suits the device: 1 on a CPU, on a GPU by its free memory."""
        if self._device.type == "cpu":
            return 1
        with torch.cuda.device(self._device):
            one, two = (self._peak_bytes((num_clips, *shape)) for num_clips in (1, 2))
            cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
            free = torch.cuda.mem_get_info()[0] + cached
        return clips_that_fit(FREE_SHARE * free, one, two, int(np.prod(shape)))

    def _peak_bytes(self, shape: tuple[int, ...]) -> int:
        """What a pass takes of the GPU's memory."""
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self._outputs(torch.zeros(shape, dtype=torch.uint8, device=self._device))
        return torch.cuda.max_memory_allocated() - before


def clips_that_fit(free: float, one: int, two: int, clip_bytes: int) -> int:
    """The largest power of two of clips that memory has room for, at least 1.

    Args:
        free: bytes of the GPU that a batch may take.
        one: bytes that a pass with one clip takes.
        two: bytes that a pass with two clips takes.
        clip_bytes: bytes of the clip itself.
    """
    each = max(two - one, clip_bytes)
    room = min(MOST_CLIPS, MOST_BYTES // clip_bytes, 1 + int(max(free - one, 0) // each))
    return 1 << max(room, 1).bit_length() - 1
