"""The files of the shared folder's `videos/awkward`, readable and broken."""

# file -> frames, first and last time in s, (height, width), decoder
READABLE = {
    "74_claimed_56_decode.mp4": (56, 0.0, 2.2, (360, 640), "pyav"),
    "av1.mkv": (125, 0.0, 4.96, (360, 640), "pyav"),
    "bt709_full_range.mp4": (30, 0.0, 29 / 30, (720, 1280), "pyav"),
    "edit_list_30_claimed_25_decode.mp4": (25, 0.0, 0.96, (64, 64), "pyav"),
    "hevc_10bit.mp4": (30, 0.0, 29 / 30, (200, 200), "pyav"),
    "mp4_named_avi.avi": (280, 0.0, 279 / 28, (256, 340), "decord"),
    "odd_size_vp9.mp4": (25, 0.0, 0.96, (241, 321), "pyav"),
    "rotated_90.mov": (3, 0.0, 2 / 30, (568, 320), "decord"),
    "starts_at_8s.mp4": (12, 8.333, 8.6997, (112, 200), "decord"),
    "two_video_streams.mp4": (390, 0.0, 12.9796, (270, 480), "decord"),
    "unordered_timestamps.mov": (4, 0.0, 0.09375, (50, 50), "decord"),
    "variable_frame_rate_1080p.mp4": (72, 0.0, 2.5333, (1080, 1920), "pyav"),
}
BROKEN = {
    "corrupted_midway.mp4": r"breaks off after \d+ frames, at 2\.\d\d s \(Invalid data",
    "empty.mp4": "cannot be read as a video: Invalid data",
    "text.mp4": "cannot be read as a video: Invalid data",
    "truncated.mkv": r"breaks off: it can be read up to 9\.40 s of 10\.33 s",
    "truncated_mp4_maybe_no_index.mp4": "cannot be read as a video: Invalid data",
}
"""File -> the reason, as a pattern."""
