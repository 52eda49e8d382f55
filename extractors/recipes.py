"""Recipes: the preprocessing between a video's frames and a backbone's input, frozen under a name.

Features are comparable only if frame rate, clip length, resize, crop and normalisation agree to the pixel. So a
backbone cannot run without a recipe, and a feature store records the recipe's name. Each recipe is the published
preprocessing that it is named after. The resize is PIL's antialiased bilinear one unless the recipe says otherwise; the
crop is torchvision's `CenterCrop`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .clips import Selection, select, select_last

RGB = tuple[float, float, float]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # as mean and as standard deviation it gives values in [-1, 1]
KINETICS_MEAN, KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
FAIR_MEAN, FAIR_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


@dataclass(frozen=True)
class Recipe:
    """How frames become clips."""

    name: str
    fps: float | None
    """Frames per second, chosen by presentation time (`extractors.clips`); None with `last_frames`."""
    clip_frames: int
    """Consecutive frames in a clip."""
    resize: int | tuple[int, int]
    """First resize: the length in pixels of one side, the other following in proportion; or height and width."""
    resize_side: str
    """Which side `resize` gives: "shorter", "height" or "both"."""
    crop: tuple[int, int]
    """Height and width of the centre crop; a smaller frame is first padded with black."""
    mean: RGB
    """Subtracted from values in [0, 1]."""
    std: RGB
    size: tuple[int, int] = (224, 224)
    """Height and width of the backbone's input, to which the crop is resized."""
    antialias: bool = True
    """True: shrinking averages over all pixels, as PIL does. False: it interpolates between the nearest four."""
    colours: str = "tagged"
    """"tagged": RGB by the colour space that the file states. "bt601": always by BT.601, as in the OpenCV of 2022 that
    made the published features."""
    stride: int | None = None
    """Frames from the start of a clip to that of the next one. None: clips follow each other."""
    last_frames: int | None = None
    """None: clips cover the video, and a remainder is dropped evenly from head and tail. A number: they cover exactly
    so many of the source's own frames, the last ones (`extractors.clips.select_last`)."""

    @property
    def clip_s(self) -> float:
        """Duration of a clip in seconds."""
        assert self.fps is not None, "with `last_frames` it depends on the source"
        return self.clip_frames / self.fps

    @property
    def timeline(self) -> str:
        """What a clip takes, for messages."""
        if self.fps is None:
            return f"{self.clip_frames} frames"
        return f"{self.clip_s:.2f} s ({self.clip_frames} frames at {self.fps:g} per second)"

    def select(self, times: np.ndarray, part: tuple[int, int] | None = None) -> Selection:
        """Choose the frames of the clips.

        Args:
            times: (N,) seconds at which the frames are shown, ascending, N at least 1.
            part: the index of the first frame of a segment, and that after its last one; None for the whole video.
        """
        if self.last_frames is not None:
            assert self.stride is not None, "a fixed number of frames comes with a stride"
            return select_last(times, self.last_frames, self.clip_frames, stride=self.stride, part=part)
        assert self.fps is not None, "only `last_frames` does without a rate"
        return select(times, self.fps, self.clip_frames, stride=self.stride, part=part)

    def resized(self, height: int, width: float) -> tuple[int, int]:
        """Height and width of a frame after the first resize; `width` is that of square pixels."""
        if isinstance(self.resize, tuple):
            return self.resize
        if self.resize_side == "shorter" and width < height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)

    def pads(self, height: int, width: float) -> bool:
        """Whether frames of this size are smaller than the crop and are padded with black."""
        resized = self.resized(height, width)
        return resized[0] < self.crop[0] or resized[1] < self.crop[1]

    def apply(self, frame: np.ndarray, pixel_aspect: float = 1.0) -> Tensor:
        """Resize, crop and resize one frame.

        Args:
            frame: (H, W, 3) uint8, RGB.
            pixel_aspect: width of a pixel to its height, to which the first resize stretches the frame.

        Returns:
            (*size, 3) uint8; `normalise` runs later, on the device.
        """
        from torchvision.transforms.v2.functional import center_crop  # imported here because it takes a second

        image = torch.from_numpy(frame).permute(2, 0, 1)  # (3, H, W), still channels last in memory: resizes faster
        height, width, _ = frame.shape
        image = self._resize(image, self.resized(height, width * pixel_aspect))
        image = self._resize(center_crop(image, list(self.crop)), self.size)
        return image.permute(1, 2, 0)

    def _resize(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        from torchvision.transforms.v2.functional import InterpolationMode, resize

        return resize(image, list(size), InterpolationMode.BILINEAR, antialias=self.antialias)

    def normalise(self, clips: Tensor) -> Tensor:
        """Normalise clips (B, F, H, W, 3) uint8 -> (B, 3, F, H, W) float32, channels last in memory."""
        mean, std = _levels(self.mean, clips.device), _levels(self.std, clips.device)
        return clips.float().sub_(mean).div_(std).permute(0, 4, 1, 2, 3)


@lru_cache
def _levels(values: RGB, device: torch.device) -> Tensor:
    """Values of [0, 1] in grey levels; kept on the device, because a GPU would wait for each upload."""
    with torch.inference_mode(False):
        return 255 * torch.tensor(values, device=device)


def _square(
    name: str,
    fps: float,
    clip_frames: int,
    resize: int | tuple[int, int],
    resize_side: str,
    side: int,
    mean: RGB,
    std: RGB,
) -> Recipe:
    """A recipe of torchvision or pytorchvideo: a square crop without a second resize, and no antialiasing."""
    size = side, side
    return Recipe(name, fps, clip_frames, resize, resize_side, size, mean, std, size, antialias=False)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # the Video Swin features of GDLT (CVPR 2022) and CoFInAl (IJCAI 2024)
        Recipe("gdlt-vst", 25, 32, 256, "shorter", (224, 300), IMAGENET_MEAN, IMAGENET_STD),
        # the same frames, normalised for I3D
        Recipe("gdlt-i3d", 25, 32, 256, "shorter", (224, 300), HALF, HALF),
        # ACTION-NET (ACM MM 2020)
        Recipe("actionnet-i3d", 5, 16, 224, "height", (224, 300), HALF, HALF),
        # Kinetics evaluation of I3D (CVPR 2017)
        Recipe("kinetics-i3d", 25, 64, 256, "shorter", (224, 224), HALF, HALF),
        # MUSDL (CVPR 2020) and CoRe (ICCV 2021) on MTL-AQA: ten clips of the 103 frames that end with the dive. Their
        # code draws the interpolation of each frame at random (MUSDL) or takes a library's default (CoRe): here it is
        # bilinear. They train the backbone further, so no published features are exactly these
        Recipe(
            *("musdl-i3d", None, 16, (256, 455), "both", (224, 224), IMAGENET_MEAN, IMAGENET_STD),
            stride=10,
            last_frames=103,
        ),
        # torchvision's Video Swin: the weights' `transforms`, frame rate and clip length from their documentation
        _square("kinetics-vst", 15, 32, 256, "shorter", 224, IMAGENET_MEAN, IMAGENET_STD),
        # the same for torchvision's R3D, MC3 and R(2+1)D with 18 layers, and S3D
        _square("torchvision-resnet18", 15, 16, (128, 171), "both", 112, KINETICS_MEAN, KINETICS_STD),
        _square("torchvision-s3d", 15, 128, (256, 256), "both", 224, KINETICS_MEAN, KINETICS_STD),
        # pytorchvideo's model zoo, named after the frames of a clip and their distance at 30 frames per second
        _square("pytorchvideo-8x8", 30 / 8, 8, 256, "shorter", 256, FAIR_MEAN, FAIR_STD),
        _square("pytorchvideo-16x4", 30 / 4, 16, 256, "shorter", 256, FAIR_MEAN, FAIR_STD),
        _square("pytorchvideo-32x2", 30 / 2, 32, 256, "shorter", 256, FAIR_MEAN, FAIR_STD),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: there is no recipe of that name.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
