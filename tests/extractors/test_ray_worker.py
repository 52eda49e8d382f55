"""A worker of a Ray cluster, without Ray: whatever breaks it, no call waits forever."""

from collections.abc import Iterator
from contextlib import closing
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
from cheap_backbone import colours

from cofinal.extractors.extract import Extraction
from cofinal.extractors.ray_worker import RayWorker
from cofinal.extractors.reader import Reader
from cofinal.extractors.reading import Video
from cofinal.extractors.work import Work


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader() as reader:
        yield reader


def worker(make_reader: Any, **how: Any) -> RayWorker:
    work = Work(load=lambda _: (colours(clip_frames=4), {"backbone": "colours"}), make_reader=make_reader, **how)
    return RayWorker(work, "cpu", 1)


def test_a_worker_extracts(render, reader) -> None:
    able = worker(lambda _: reader)
    assert able.load() == ({"backbone": "colours"}, 1)
    facts, outcome = able.extract(1, Video(render("v.mp4", num_frames=16), find_facts=lambda: {"size": 1}))
    assert facts == {"size": 1}
    assert isinstance(outcome, Extraction)
    assert outcome.features.shape == (4, 12)


def test_a_worker_that_cannot_make_its_readers_does_not_load() -> None:
    with pytest.raises(ValueError, match="decoder-memory must be from 0 to"):
        worker(lambda _: Reader(decoder_bytes=2**60)).load()


def test_a_worker_that_does_not_see_the_videos_does_not_load(reader) -> None:
    with pytest.raises(ValueError, match="it does not see the videos' folder /no/such/folder"):
        worker(lambda _: reader, folder=Path("/no/such/folder")).load()


def test_a_worker_whose_extraction_breaks_off_fails_all_calls(reader) -> None:
    broken = worker(lambda _: reader, batch_clips=0)
    broken.load()
    with closing(ThreadPool(4)) as pool:
        calls = [pool.apply_async(broken.extract, (number, Video(Path(f"v{number}.mp4")))) for number in range(4)]
        for call in calls:
            with pytest.raises(RuntimeError, match=r"extraction broke off: .*batch-clips must be at least 1, not 0"):
                call.get(timeout=30)
