"""Many readers: each video has the features that it has alone, and no video's fault reaches another one."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cheap_backbone import colours
from torch import Tensor, nn

from cofinal.extractors import reader as reader_module
from cofinal.extractors.backbone import Backbone
from cofinal.extractors.extract import Finished, extract, extract_many, suitable_readers
from cofinal.extractors.reader import Reader
from cofinal.extractors.reading import Video
from cofinal.extractors.reading_threads import Clip, ReadingThreads
from cofinal.extractors.recipes import Recipe
from cofinal.extractors.video import VideoError

TIMES = "stage_seconds"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "read-clips"] == []


@pytest.fixture(scope="module")
def readers() -> Iterator[list[Reader]]:
    readers = [Reader(stall_timeout_s=2) for _ in range(3)]
    yield readers
    for reader in readers:
        reader.close()


@pytest.fixture
def films(render: Callable[..., Path]) -> list[Path]:
    """Videos of 3 to 10 clips of 4 frames, which differ in size and so in picture."""
    return [render(f"{n}.mp4", num_frames=12 + 4 * n, size=(64, 96 + 16 * n)) for n in range(8)]


class LateBackbone(Backbone):
    """Stands in for a GPU: batches are computed in the background, two of them under way."""

    @property
    def batches_in_flight(self) -> int:
        return 2

    def submit(self, clips: Sequence[Tensor]) -> Any:
        is_first = not BATCHES

        def compute() -> tuple[np.ndarray, np.ndarray]:
            # during the first batch the readers get ahead, so that a later batch has clips of several videos
            time.sleep(2 if is_first else 0.02)
            return Backbone.submit(self, clips).result()

        BATCHES.append(len(clips))
        return DEVICE.submit(compute)


BATCHES: list[int] = []
DEVICE = ThreadPoolExecutor(1)  # computes one batch after the other


def late(backbone: Backbone) -> LateBackbone:
    return LateBackbone(**{field.name: getattr(backbone, field.name) for field in fields(backbone)})


def by_name(run: Iterator[Finished]) -> dict[str, Finished]:
    return {Path(finished.video.path).name: finished for finished in run}


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != TIMES}


def test_each_video_has_the_features_that_it_has_alone(films: list[Path], readers: list[Reader]) -> None:
    backbone = colours(clip_frames=4)
    alone = {path.name: extract(path, backbone, reader=readers[0], classify=True) for path in films}
    seen: list[tuple[str, float, float]] = []
    run = extract_many(
        [Video(path) for path in films],
        backbone,
        readers=readers,
        classify=True,
        on_progress=lambda video, done_s, total_s: seen.append((Path(video.path).name, done_s, total_s)),
    )
    many = by_name(run)
    assert many.keys() == alone.keys()
    for name, expected in alone.items():
        extraction = many[name].extraction()
        assert np.array_equal(extraction.features, expected.features)
        assert np.array_equal(extraction.clip_times, expected.clip_times)
        assert np.array_equal(extraction.probabilities, expected.probabilities)
        assert timeless(extraction.record) == timeless(expected.record)
        assert extraction.record[TIMES].keys() == {"read", "backbone", "wall"}
        of_the_video = [(done_s, total_s) for video, done_s, total_s in seen if video == name]
        assert len(of_the_video) == len(expected.features)
        assert of_the_video == sorted(of_the_video)
        assert of_the_video[-1][0] == pytest.approx(of_the_video[-1][1], abs=0.17)


@pytest.mark.parametrize("batch_clips", [1, 3, 16, 1000])
def test_batches_across_videos_on_a_device_that_overlaps(
    batch_clips: int, films: list[Path], readers: list[Reader]
) -> None:
    backbone = colours(clip_frames=4)
    BATCHES.clear()
    run = extract_many([Video(path) for path in films], late(backbone), readers=readers, batch_clips=batch_clips)
    many = by_name(run)
    assert sum(BATCHES) == sum(len(finished.extraction().features) for finished in many.values())
    assert max(BATCHES) <= batch_clips
    if batch_clips == 16:
        assert max(BATCHES) > 10, "no video has more than 10 clips"
    for path in films:
        expected = extract(path, backbone, reader=readers[0]).features
        np.testing.assert_allclose(many[path.name].extraction().features, expected, rtol=1e-5, atol=1e-6)


def test_with_one_reader_batches_are_those_of_each_video(films: list[Path], readers: list[Reader]) -> None:
    backbone, sizes = colours(clip_frames=4), []
    backbone.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    by_name(extract_many(map(Video, films[:2]), backbone, readers=readers[:1], batch_clips=2))
    assert sizes == [2, 1, 2, 2]  # 3 clips and 4 clips


def test_a_video_that_fails_costs_only_itself(films: list[Path], readers: list[Reader], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")

    def vanished() -> dict[str, Any]:
        raise FileNotFoundError("gone")

    videos = [Video(path, find_facts=lambda: {"size": 3}) for path in films]
    videos[3:3] = [Video(tmp_path / "text.mp4"), Video(films[0].with_name("none.mp4"), find_facts=vanished)]
    videos.append(Video(films[1], decoder="opencv"))
    ended = list(extract_many(videos, colours(clip_frames=4), readers=readers))
    assert len(ended) == len(videos)
    failed = {finished.video: str(finished.outcome) for finished in ended if isinstance(finished.outcome, Exception)}
    assert failed.keys() == {videos[3], videos[4], videos[-1]}
    assert "cannot be read as a video" in failed[videos[3]]
    assert failed[videos[4]] == "gone"
    assert "unknown decoder" in failed[videos[-1]]
    assert [finished.facts for finished in ended if finished.video not in failed] == [{"size": 3}] * len(films)


def test_crashes_and_hangs_of_a_reader_cost_only_their_videos(
    render: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "SOURCE", "faulty_video")
    bad = ("crash_at_5", "hang_at_5", "exit_in_probe", "garbage_at_7")
    names = ("a", *bad[:2], "b", "flaky_at_5", *bad[2:], "flaky_in_probe")
    film = render("film.mp4")  # once, because x264 does not always encode the same frames alike
    paths = [Path(shutil.copy(film, film.with_stem(name))) for name in names]
    readers = [Reader(stall_timeout_s=2) for _ in range(2)]
    try:
        ended = by_name(extract_many(map(Video, paths), colours(clip_frames=4), readers=readers))
    finally:
        for reader in readers:
            reader.close()
    errors = {name.removesuffix(".mp4"): f.outcome for name, f in ended.items() if isinstance(f.outcome, Exception)}
    assert errors.keys() == set(bad)
    assert all(isinstance(error, VideoError) for error in errors.values())
    assert all("(read 3 times)" in str(error) for error in errors.values())
    good = [ended[f"{name}.mp4"].extraction().features for name in ("a", "b", "flaky_at_5", "flaky_in_probe")]
    assert all(np.array_equal(features, good[0]) for features in good)


@pytest.mark.parametrize("batch_clips", [1, 4])
def test_an_error_of_the_backbone_fails_the_videos_of_its_batch(
    batch_clips: int, render: Callable[..., Path], readers: list[Reader]
) -> None:
    def refuse_black_borders(_: nn.Module, inputs: tuple[Tensor]) -> None:
        if (inputs[0][..., 0] == -1).all(-1).any():  # a whole column, as in narrow videos
            raise ValueError("too dark")

    backbone = colours(clip_frames=4)
    backbone.network.register_forward_pre_hook(refuse_black_borders)
    paths = [render(f"{n}.mp4", size=(96, 64) if n == 1 else (64, 96)) for n in range(4)]
    ended = by_name(extract_many(map(Video, paths), backbone, readers=readers[:1], batch_clips=batch_clips))
    assert {name for name, f in ended.items() if isinstance(f.outcome, Exception)} == {"1.mp4"}
    assert str(ended["1.mp4"].outcome) == "too dark"


@pytest.mark.parametrize("how", ["interrupt", "close"])
def test_ending_sooner_stops_all_readers(how: str, render: Callable[..., Path], readers: list[Reader]) -> None:
    paths = [render("short.mp4", num_frames=4), *(render(f"{n}.mp4", num_frames=2000) for n in range(3))]

    def interrupt(*_: object) -> None:
        if how == "interrupt":
            raise KeyboardInterrupt

    run = extract_many(map(Video, paths), colours(clip_frames=4), readers=readers, on_progress=interrupt)
    started = time.perf_counter()
    if how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            next(run)
    else:
        with closing(run):
            next(run)
    assert time.perf_counter() - started < 10


def test_an_error_while_videos_are_named_ends_the_run(films: list[Path], readers: list[Reader]) -> None:
    def names() -> Iterator[Video]:
        yield Video(films[0])
        raise OSError("the list is broken")

    with pytest.raises(OSError, match="the list is broken"):
        list(extract_many(names(), colours(clip_frames=4), readers=readers))


def test_threads_stay_a_few_clips_ahead(
    render: Callable[..., Path], readers: list[Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_frames, apply = [0], Recipe.apply

    def counted(self: Recipe, *arguments: Any) -> Tensor:
        num_frames[0] += 1
        return apply(self, *arguments)

    monkeypatch.setattr(Recipe, "apply", counted)
    recipe = colours(clip_frames=4).recipe
    films = [Video(render(f"{n}.mp4", num_frames=400)) for n in range(2)]
    with closing(ReadingThreads(films, readers[:2], recipe, ahead=4)) as threads:
        for taken in range(1, 11):
            assert isinstance(threads.take(wait=True), Clip)
            time.sleep(0.05)
            # those taken, those that wait, and two that each thread has in its hands
            assert num_frames[0] <= 4 * (taken + 4 + 2 * 2)


def test_suitable_readers() -> None:
    assert suitable_readers(colours()) == 1
    assert 1 <= suitable_readers(replace(colours(), device="cuda")) <= 16
