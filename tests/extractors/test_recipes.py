"""Each recipe against its definition in PIL or in its library, on real frames of every shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_weight

from cofinal.extractors.decoders import read_frames
from cofinal.extractors.recipes import RECIPES, Recipe, get_recipe

PIL_RECIPES = ("gdlt-vst", "gdlt-i3d", "actionnet-i3d", "kinetics-i3d", "musdl-i3d")
TORCHVISION = {
    "kinetics-vst": "Swin3D_B_Weights.KINETICS400_V1",
    "torchvision-resnet18": "R2Plus1D_18_Weights.KINETICS400_V1",
    "torchvision-s3d": "S3D_Weights.KINETICS400_V1",
}


def pytorchvideo(frame: np.ndarray) -> torch.Tensor:
    """The model zoo's preprocessing as its tutorial lists it, (3, 256, 256): normalise, scale the short side, crop."""
    image = (torch.from_numpy(frame).permute(2, 0, 1).float() / 255 - 0.45) / 0.225
    height, width = frame.shape[:2]
    size = (256, int(width / height * 256)) if height <= width else (int(height / width * 256), 256)
    image = torch.nn.functional.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    top, left = round((size[0] - 256) / 2), round((size[1] - 256) / 2)
    return image[:, top : top + 256, left : left + 256]


def plain(recipe: Recipe, frame: np.ndarray) -> np.ndarray:
    """The recipe's definition, step by step as the papers' code does it with PIL images."""
    image = Image.fromarray(frame)
    width, height = image.size
    if recipe.name == "actionnet-i3d":
        new_width, new_height = int(224 * width / height), 224
    elif recipe.name == "musdl-i3d":
        new_width, new_height = 455, 256
    else:
        short = 256
        new_width = short if width <= height else int(short * width / height)
        new_height = int(short * height / width) if width <= height else short
    image = image.resize((new_width, new_height), Image.Resampling.BILINEAR)

    crop_height, crop_width = (224, 224) if recipe.name in ("kinetics-i3d", "musdl-i3d") else (224, 300)
    canvas_size = max(new_width, crop_width), max(new_height, crop_height)
    canvas = Image.new("RGB", canvas_size)
    canvas.paste(image, ((canvas_size[0] - new_width) // 2, (canvas_size[1] - new_height) // 2))
    left, top = round((canvas_size[0] - crop_width) / 2), round((canvas_size[1] - crop_height) / 2)
    image = canvas.crop((left, top, left + crop_width, top + crop_height))
    return np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def frames(shared: Path) -> dict[str, np.ndarray]:
    """Real frames, also turned and cut into other shapes."""
    frames = {}
    for path in sorted((shared / "videos" / "action").iterdir()):
        _, frame = next(f for i, f in enumerate(read_frames(path)) if i == 60)
        frames[path.stem] = frame
    wide = frames["juggling_soccer_ball"]  # 1280 x 720
    return frames | {
        "portrait": np.rot90(wide).copy(),
        "square": wide[:, 280:1000].copy(),
        "odd": wide[:601, :1001].copy(),
        "odd portrait": np.rot90(wide[:333, :777]).copy(),
        "tiny": wide[200:248, 300:364].copy(),
        "very wide": wide[300:420].copy(),
        "just too narrow": wide[:600, :701].copy(),
    }


@pytest.mark.shared
@pytest.mark.parametrize("name", PIL_RECIPES)
def test_pixels_match_the_plain_definition(name: str, frames: dict[str, np.ndarray]) -> None:
    recipe = RECIPES[name]
    for shape, frame in frames.items():
        ours = recipe.apply(frame)
        assert ours.shape == (224, 224, 3), shape
        assert ours.dtype == torch.uint8, shape
        difference = np.abs(ours.numpy().astype(int) - plain(recipe, frame))
        assert difference.mean() <= 0.3, shape
        assert difference.max() <= 2, shape


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(PIL_RECIPES)))
def test_inputs_match_what_the_libraries_publish(name: str, frames: dict[str, np.ndarray]) -> None:
    recipe = RECIPES[name]
    transforms = get_weight(TORCHVISION[name]).transforms() if name in TORCHVISION else None
    for shape, frame in frames.items():
        ours = recipe.normalise(recipe.apply(frame)[None, None])[0, :, 0]  # (3, H, W)
        if transforms:
            expected = transforms(torch.from_numpy(frame).permute(2, 0, 1)[None])[:, 0]
        else:
            expected = pytorchvideo(frame)
        assert ours.shape == expected.shape, shape
        levels = (ours - expected).abs() * 255 * torch.tensor(recipe.std)[:, None, None]
        assert levels.mean() <= 0.3, shape
        assert levels.max() <= 2, shape


def test_rates_and_lengths_of_the_published_clips() -> None:
    for name, published in TORCHVISION.items():
        documented = get_weight(published).meta["_docs"]
        assert f"`frame_rate={RECIPES[name].fps:g}`" in documented
        assert f"`clip_len={RECIPES[name].clip_frames}`" in documented
    for frames, distance in ((8, 8), (16, 4), (32, 2)):
        recipe = RECIPES[f"pytorchvideo-{frames}x{distance}"]
        assert (recipe.clip_frames, recipe.fps, recipe.clip_s) == (frames, 30 / distance, frames * distance / 30)


def test_musdl_takes_ten_clips_of_the_last_103_frames_at_any_rate() -> None:
    recipe = RECIPES["musdl-i3d"]
    for rate in (25, 30000 / 1001):
        selection = recipe.select(np.arange(500) / rate, (350, 400))
        assert (selection.frames[:, 0] - 297).tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 87]
        assert selection.frames[-1, -1] == 399
    with pytest.raises(AssertionError):
        _ = recipe.clip_s
    assert recipe.timeline == "16 frames"


def test_normalisation() -> None:
    clips = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16, 1).expand(1, 1, 16, 16, 3)
    grey = np.arange(256).reshape(16, 16)

    halves = RECIPES["gdlt-i3d"].normalise(clips)
    assert halves.shape == (1, 3, 1, 16, 16)
    np.testing.assert_allclose(halves[0, 2, 0].numpy(), grey / 127.5 - 1, atol=1e-6)

    imagenet = RECIPES["gdlt-vst"].normalise(clips)
    np.testing.assert_allclose(imagenet[0, 0, 0].numpy(), (grey / 255 - 0.485) / 0.229, atol=1e-5)
    np.testing.assert_allclose(imagenet[0, 2, 0].numpy(), (grey / 255 - 0.406) / 0.225, atol=1e-5)


def test_frames_smaller_than_the_crop_are_padded_black_at_both_sides() -> None:
    recipe = RECIPES["gdlt-i3d"]
    white = np.full((640, 360, 3), 255, np.uint8)
    assert recipe.pads(640, 360)
    assert not recipe.pads(360, 640)
    columns = recipe.apply(white).float().mean((0, 2))
    border = (300 - 256) / 2 * 224 / 300  # pixels of black at each side after the squeeze
    assert (columns[: int(border)] == 0).all()
    assert (columns[-int(border) :] == 0).all()
    assert (columns[int(border) + 2 : -int(border) - 2] == 255).all()


def test_an_unknown_recipe_lists_the_recipes() -> None:
    with pytest.raises(ValueError, match="actionnet-i3d, gdlt-i3d, gdlt-vst, kinetics-i3d"):
        get_recipe("gdlt")
