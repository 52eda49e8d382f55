"""The sentences that warn of what the features of a video leave out, assume or repeat."""

from .clips import Selection
from .recipes import Recipe
from .video import VideoFacts

HDR_TRANSFERS = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
MISSING_WARNING_S = 0.1
"""A shorter end that is missing is not warned of."""


def frame_warnings(
    facts: VideoFacts,
    selection: Selection,
    recipe: Recipe,
    num_concealed: int,
    concealed_s: float,
    pixel_aspect: float = 1.0,
) -> list[str]:
    """Every approximation in the frames of a video and in their times, one sentence each."""
    warnings = []
    if facts.is_partial:
        warnings.append(f"only a part of the video was used (--allow-partial): {facts.damage}")
    elif (missing_s := facts.stated_end_s - facts.end_s) > MISSING_WARNING_S:
        warnings.append(f"the last {missing_s:.2f} s of the stated duration are missing")
    if selection.num_repeated:
        cause = (
            f"there are fewer frames than the recipe's {recipe.last_frames}"
            if recipe.fps is None
            else f"the video is slower than the recipe's {recipe.fps:g} frames per second"
        )
        warnings.append(f"{cause}: {selection.num_repeated} of {selection.num_ticks} frames repeat the one before")
    if facts.paused_s and not facts.damage:
        warnings.append(f"the video pauses for {facts.paused_s:.2f} s: a pause is taken as a still (--allow-gaps)")
    if recipe.pads(facts.height, facts.width * pixel_aspect):
        warnings.append(f"the frame is narrower than the crop of {recipe.name}: black is added at its sides")
    if num_concealed:
        warnings.append(
            f"the decoder concealed damaged parts of {num_concealed} frames, the first at {concealed_s:.2f} s"
        )
    if facts.num_restarts:
        warnings.append(
            f"the file's timestamps restart {facts.num_restarts} times, as in joined recordings: each part is timed as "
            "following the one before"
        )
    if not facts.has_timestamps:
        warnings.append("the file has no timestamps: its frames are timed by the stated frame rate")
    return warnings


def signal_warnings(facts: VideoFacts, recipe: Recipe, deinterlace: bool, display_aspect: bool) -> list[str]:
    """What a player does with the signal of a video and the features do not, or were asked to do, one sentence each."""
    warnings = []
    if facts.num_video_streams > 1:
        warnings.append(
            f"the file has {facts.num_video_streams} video streams: only the one of {facts.width} x {facts.height} is "
            "read, which players choose"
        )
    if facts.pixel_aspect != 1:
        shape = f"{facts.width} x {facts.height} frames have pixels of {facts.sample_aspect_ratio}"
        done = (
            "they are stretched to square ones (--display-aspect)"
            if display_aspect
            else "they are taken as square, as for the published features (--display-aspect stretches them)"
        )
        warnings.append(f"{shape}: {done}")
    if facts.is_interlaced:
        done = (
            "its frames are deinterlaced (--deinterlace)"
            if deinterlace
            else "a frame shows two moments in alternate lines (--deinterlace interpolates one)"
        )
        warnings.append(f"the video is interlaced: {done}")
    if facts.transfer in HDR_TRANSFERS:
        warnings.append(
            f"the video is HDR ({HDR_TRANSFERS[facts.transfer]}): it is taken as SDR, so colours are paler than shown"
        )
    if facts.matrix == "bt2020c" and recipe.colours == "tagged":
        warnings.append("the colours are BT.2020 of constant luminance: they are taken as of non-constant luminance")
    return warnings
