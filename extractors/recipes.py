"""Recipes: everything between a video's frames and a backbone's input, frozen under a name.

Features are comparable only if rate, clip length, resize, crop and normalisation agree to the pixel, so a backbone
cannot be run without a recipe and a feature store remembers its name. Each recipe is the published preprocessing it is
named after: the resize is PIL's antialiased bilinear one unless it says otherwise, the crop torchvision's `CenterCrop`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RGB = tuple[float, float, float]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # as mean and as standard deviation: values in [-1, 1]
KINETICS_MEAN, KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
FAIR_MEAN, FAIR_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


@dataclass(frozen=True)
class Recipe:
    """How frames become clips; clips never overlap, and what is left over is dropped evenly from head and tail."""

    name: str
    fps: float
    """Frames a second, chosen by presentation time (`extractors.clips`)."""
    clip_frames: int
    """Consecutive frames in a clip."""
    resize: int | tuple[int, int]
    """Pixels of the resized side, the other one following in proportion; or height and width."""
    resize_side: str
    """Which side that is: "shorter", "height" or "both"."""
    crop: tuple[int, int]
    """Height and width cut out of the middle; a smaller frame is first padded with black."""
    mean: RGB
    """Subtracted from values in [0, 1]."""
    std: RGB
    size: tuple[int, int] = (224, 224)
    """Height and width of the backbone's input, to which the crop is resized."""
    antialias: bool = True
    """Whether shrinking averages over all pixels, as PIL does, or interpolates between the nearest four."""
    colours: str = "tagged"
    """"tagged": RGB by the colour space that the file states; "bt601": by BT.601 whatever it states, as the OpenCV of
    2022 did, through which published features came."""

    @property
    def clip_s(self) -> float:
        """Seconds a clip lasts."""
        return self.clip_frames / self.fps

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a frame after the first resize."""
        if isinstance(self.resize, tuple):
            return self.resize
        if self.resize_side == "shorter" and width < height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)

    def pads(self, height: int, width: int) -> bool:
        """Whether frames of this size are smaller than the crop, so that black is added around them."""
        resized = self.resized(height, width)
        return resized[0] < self.crop[0] or resized[1] < self.crop[1]

    def apply(self, frame: np.ndarray) -> Tensor:
        """Resize, crop and resize one frame.

        Args:
            frame: (H, W, 3) uint8, RGB.

        Returns:
            (*size, 3) uint8; normalisation is left to the device.
        """
        from torchvision.transforms.v2.functional import center_crop  # here, because it takes a second to import

        image = torch.from_numpy(frame).permute(2, 0, 1)  # (3, H, W), channels last in memory: the fast layout
        image = self._resize(image, self.resized(*frame.shape[:2]))
        image = self._resize(center_crop(image, list(self.crop)), self.size)
        return image.permute(1, 2, 0)

    def _resize(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        from torchvision.transforms.v2.functional import InterpolationMode, resize

        return resize(image, list(size), InterpolationMode.BILINEAR, antialias=self.antialias)

    def normalise(self, clips: Tensor) -> Tensor:
        """Clips (B, F, H, W, 3) uint8 -> (B, 3, F, H, W) float32, channels last in memory."""
        std = clips.new_tensor(self.std, dtype=torch.float32)
        mean = clips.new_tensor(self.mean, dtype=torch.float32)
        return clips.float().sub_(255 * mean).div_(255 * std).permute(0, 4, 1, 2, 3)


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
    """A recipe of torch's own: a square crop as it is, and no antialiasing."""
    size = side, side
    return Recipe(name, fps, clip_frames, resize, resize_side, size, mean, std, size, antialias=False)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # GDLT (CVPR 2022) and CoFInAl (IJCAI 2024): the Video Swin features of both papers
        Recipe("gdlt-vst", 25, 32, 256, "shorter", (224, 300), IMAGENET_MEAN, IMAGENET_STD),
        # the same frames, scaled for I3D
        Recipe("gdlt-i3d", 25, 32, 256, "shorter", (224, 300), HALF, HALF),
        # ACTION-NET (ACM MM 2020)
        Recipe("actionnet-i3d", 5, 16, 224, "height", (224, 300), HALF, HALF),
        # Kinetics evaluation of I3D (CVPR 2017)
        Recipe("kinetics-i3d", 25, 64, 256, "shorter", (224, 224), HALF, HALF),
        # what torchvision's weights of Video Swin carry (`transforms`, and rate and length in their documentation)
        _square("kinetics-vst", 15, 32, 256, "shorter", 224, IMAGENET_MEAN, IMAGENET_STD),
        # likewise R3D, MC3 and R(2+1)D with 18 layers, and S3D
        _square("torchvision-resnet18", 15, 16, (128, 171), "both", 112, KINETICS_MEAN, KINETICS_STD),
        _square("torchvision-s3d", 15, 128, (256, 256), "both", 224, KINETICS_MEAN, KINETICS_STD),
        # pytorchvideo's model zoo, by frames and their distance at 30 a second
        _square("pytorchvideo-8x8", 30 / 8, 8, 256, "shorter", 256, FAIR_MEAN, FAIR_STD),
        _square("pytorchvideo-16x4", 30 / 4, 16, 256, "shorter", 256, FAIR_MEAN, FAIR_STD),
        _square("pytorchvideo-32x2", 30 / 2, 32, 256, "shorter", 256, FAIR_MEAN, FAIR_STD),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: No recipe is called so.
    """
    if name not in RECIPES:
        raise ValueError(f'There is no recipe "{name}"; known are {", ".join(sorted(RECIPES))}.')
    return RECIPES[name]
