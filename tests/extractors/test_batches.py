"""Batches on a device: memory that runs out, numbers that overflow, and the order of work on a GPU's streams."""

import itertools
import logging
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cofinal.extractors.batches import MOST_BYTES, MOST_CLIPS, Batches, Pending, clips_that_fit

CPU = torch.device("cpu")
CLIPS = list(torch.randint(0, 256, (8, 2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


class Means:
    """Mean colours as features and two logits; memory runs out above a number of clips."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.sizes.append(len(clips))
        if len(clips) > self.most:
            raise torch.cuda.OutOfMemoryError("out of memory")
        features = clips.float().mean((1, 2, 3))
        return features, features[:, :2]


def test_memory_that_runs_out_halves_the_batch_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    compute = Means(most=3)
    batches = Batches(compute, CPU)
    expected, classes = Batches(Means(), CPU).submit(CLIPS).result()
    with caplog.at_level(logging.WARNING):
        features, probabilities = batches.submit(CLIPS).result()
    assert compute.sizes == [8, 4, 2, 2, 2, 2]
    assert "short of memory: it takes 2 clips at a time from now on" in caplog.text
    assert np.array_equal(features, expected)
    assert np.array_equal(probabilities, classes)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    compute.sizes.clear()
    assert np.array_equal(batches.submit(CLIPS[:3]).result()[0], expected[:3])
    assert compute.sizes == [2, 1]


def test_no_room_for_a_single_clip_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="too little free memory for a single clip: end other programs"):
        Batches(Means(most=0), CPU).submit(CLIPS)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def fail(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        Batches(fail, CPU).submit(CLIPS)


def test_an_overflow_is_an_error() -> None:
    with pytest.raises(ValueError, match="not finite: use --precision fp32"):
        Pending(torch.tensor([[1.0, torch.inf, 0.5]]), 2).result()


@given(free=st.integers(0, 2**37), base=st.integers(0, 2**33), each=st.integers(1, 2**33), clip=st.integers(1, 2**29))
def test_a_batch_fits_the_free_memory_and_a_larger_one_does_not(free: int, base: int, each: int, clip: int) -> None:
    each = max(each, clip)
    chosen = clips_that_fit(free, base + each, base + 2 * each, clip)
    assert chosen in {2**power for power in range(10)}
    assert chosen == 1 or (base + chosen * each <= free and chosen <= MOST_CLIPS and chosen * clip <= MOST_BYTES)
    larger = 2 * chosen
    assert base + larger * each > free or larger > MOST_CLIPS or larger * clip > MOST_BYTES


def test_a_cpu_takes_clips_one_by_one() -> None:
    assert Batches(Means(), CPU).suitable_clips((2, 4, 4, 3)) == 1


def test_a_batch_is_sized_by_what_passes_take_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass takes 3 GB and 2 GB a clip, and 20 GB are free, of which 5 are torch's own."""
    compute = Means()
    figures = {
        "memory_reserved": lambda: 6 * 10**9,
        "memory_allocated": lambda: 10**9,
        "max_memory_allocated": lambda: (1 + 3 + 2 * compute.sizes[-1]) * 10**9,
        "mem_get_info": lambda: (15 * 10**9, 80 * 10**9),
        "reset_peak_memory_stats": lambda: None,
        "device": nullcontext,
    }
    for name, figure in figures.items():
        monkeypatch.setattr(torch.cuda, name, figure)
    # 80% of 20 GB hold 3 + 6 x 2 GB: the power of two is 4
    assert Batches(compute, torch.device("meta")).suitable_clips((2, 4, 4, 3)) == 4
    assert compute.sizes == [1, 2]


class StandInGpu:
    """Records what is asked of a GPU's streams; the work itself is done by the CPU at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu, names = self, itertools.cycle(["upload", "download"])
        self.log: list[str] = []
        self.current = "compute"

        class Stream:
            def __init__(self, name: str | None = None) -> None:
                self.name = name or next(names)

            def wait_stream(self, other: "Stream") -> None:
                gpu.log.append(f"{self.name} waits for {other.name}")

        class Event:
            def __init__(self, blocking: bool) -> None:
                assert blocking

            def record(self) -> None:
                gpu.log.append(f"event in {gpu.current}")

            def synchronize(self) -> None:
                gpu.log.append("wait for event")

        @contextmanager
        def stream(chosen: Stream):
            self.current = chosen.name
            yield
            self.current = "compute"

        empty = torch.empty
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("compute"))
        monkeypatch.setattr(torch, "empty", lambda *args, pin_memory, **kwargs: empty(*args, **kwargs))

    def compute(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.log.append(f"network in {self.current}")
        return Means()(clips)


def test_the_order_of_work_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, classes = Batches(Means(), CPU).submit(CLIPS).result()
    gpu = StandInGpu(monkeypatch)
    batches = Batches(gpu.compute, CPU)
    first, second = batches._submit_to_gpu(CLIPS[:5]), batches._submit_to_gpu(CLIPS[5:])
    of_a_batch = [
        "compute waits for upload",
        "network in compute",
        "download waits for compute",
        "event in download",
    ]
    assert gpu.log == 2 * of_a_batch
    results = [first.result(), second.result()]
    assert gpu.log[8:] == 2 * ["wait for event"]
    assert np.array_equal(np.concatenate([features for features, _ in results]), expected)
    assert np.array_equal(np.concatenate([probabilities for _, probabilities in results]), classes)
    assert first.result()[0].shape == (5, 3)  # asked again, it does not wait
    assert len(gpu.log) == 10
