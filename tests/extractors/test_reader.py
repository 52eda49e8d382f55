"""Reading in another process: the frames are the same, and no fault of that process reaches this one."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from cofinal.extractors import memory
from cofinal.extractors import reader as reader_module
from cofinal.extractors.decoders import read_frames
from cofinal.extractors.probing import probe
from cofinal.extractors.reader import MAX_SLOTS, Reader, ReaderError
from cofinal.extractors.video import Limits, VideoError

ROOT = Path(__file__).parent.parent.parent


def read(reader: Reader, path: Path, decoder: str = "pyav") -> list[np.ndarray]:
    facts = reader.probe(path)
    return [frame.copy() for frame in reader.read_frames(facts, decoder, wanted=np.arange(len(facts.times)))]


@pytest.fixture(scope="module")
def faulty() -> Iterator[Reader]:
    """A reader whose process has faults; see faulty_video.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "SOURCE", "faulty_video")
        with Reader(stall_timeout_s=1.0) as reader:
            yield reader


def test_the_other_process_gives_the_same_facts_and_frames(render, reader: Reader) -> None:
    path = render("video.mp4", num_frames=50)
    here, there = probe(path), reader.probe(path)
    assert np.array_equal(here.times, there.times)
    assert (here.to_json(), here.path) == (there.to_json(), there.path)
    wanted = np.arange(3, 50, 2)
    for decoder in ("pyav", "auto"):
        expected = [frame for _, frame in read_frames(path, decoder, wanted=wanted)]
        got = [frame.copy() for frame in reader.read_frames(there, decoder, wanted=wanted)]
        assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash_in_probe", r"crashed the process that read it \(SIGSEGV\)"),
        ("crash_at_0", r"crashed the process that read it \(SIGSEGV\)"),
        ("crash_at_20", r"crashed the process that read it \(SIGSEGV\)"),
        ("abort_at_20", r"crashed the process that read it \(SIGABRT\)"),
        ("exit_at_20", r"crashed the process that read it \(exit code 3\)"),
        ("hang_in_probe", r"no frame came for 1 s \(--stall-timeout\)"),
        ("hang_at_20", r"no frame came for 1 s \(--stall-timeout\)"),
        ("raise_in_probe", "cannot be read .RuntimeError: a fault"),
        ("raise_at_20", "cannot be read .RuntimeError: a fault"),
        ("garbage_in_probe", "send invalid answers"),
        ("garbage_at_20", "send invalid answers"),
        ("float_at_20", "cannot be read .TypeError"),
        ("flat_at_20", "cannot be read .IndexError"),
        ("huge_at_20", "send invalid answers"),
        ("fewer_at_20", "send invalid answers"),
    ],
)
def test_a_fault_costs_only_its_own_video(name: str, message: str, render, faulty: Reader) -> None:
    bad, good = render(f"{name}.mp4"), render("good.mp4")
    started = time.perf_counter()
    with pytest.raises(ReaderError, match=message) as raised:
        read(faulty, bad)
    assert str(raised.value).startswith(str(bad))
    assert len(read(faulty, good)) == 30
    assert time.perf_counter() - started < 30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits what a process allocates")
@pytest.mark.parametrize("name", ["leak_in_probe", "leak_at_20"])
def test_a_leak_ends_at_the_limit(name: str, render, faulty: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulty, "stall_timeout_s", 60.0)
    with pytest.raises(ReaderError, match=r"takes more than \d+ MiB of memory to read"):
        read(faulty, render(f"{name}.mp4"))
    assert len(read(faulty, render("good.mp4"))) == 30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says what a process allocates")
def test_what_one_video_leaks_is_not_counted_against_the_next(render, faulty: Reader) -> None:
    for _ in range(4):  # each leaks a third of the limit
        assert len(read(faulty, render("keep_in_probe.mp4"))) == 30
    first = faulty.pid
    assert len(read(faulty, render("good.mp4"))) == 30
    assert faulty.pid != first
    first = faulty.pid
    assert len(read(faulty, render("good.mp4"))) == 30
    assert faulty.pid == first


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says what a process allocates")
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_reading_leaks_nothing(decoder: str, render) -> None:
    path = render("video.mp4")
    with Reader() as reader:
        for _ in range(3):
            read(reader, path, decoder)
        assert reader._process is not None
        before = reader._process.leaked_bytes()
        for _ in range(10):
            read(reader, path, decoder)
        assert reader._process.leaked_bytes() < before + 64 * 2**20


def test_the_process_has_no_torch_in_it(render, faulty: Reader, reader: Reader) -> None:
    with pytest.raises(VideoError, match="torch=False"):
        faulty.probe(render("modules_in_probe.mp4"))
    read(reader, render("video.mp4"), "auto")
    maps = Path(f"/proc/{reader.pid}/maps")
    if maps.exists():
        assert "libav" in maps.read_text()
        assert "torch" not in maps.read_text()


def test_the_process_waits_for_a_slow_consumer(render, faulty: Reader) -> None:
    facts = faulty.probe(render("count.mp4", num_frames=100))
    frames = faulty.read_frames(facts, "pyav", wanted=np.arange(100))
    for taken in range(1, 20):
        first = next(frames)
        before = first.copy()
        time.sleep(0.05)
        assert np.array_equal(first, before)
        assert facts.path.with_suffix(".count").stat().st_size <= 1 + taken + MAX_SLOTS
    assert sum(1 for _ in frames) == 81


def test_one_process_serves_many_videos_and_is_replaced_in_time(render, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "VIDEOS_A_PROCESS", 3)
    path = render("video.mp4")
    with Reader() as reader:
        pids = [reader.pid for _ in range(6) if read(reader, path)]
    assert len(set(pids[:3])) == len(set(pids[3:])) == 1
    assert pids[2] != pids[3]


def test_an_abandoned_reading_leaves_nothing_behind(render) -> None:
    path = render("video.mp4", num_frames=200)
    with Reader() as reader:
        frames = reader.read_frames(reader.probe(path), "pyav", wanted=np.arange(200))
        next(frames)
        pid = reader.pid
        frames.close()
        assert not alive(pid)
        assert len(read(reader, path)) == 200
        pid, ring = reader.pid, reader._ring
    assert not alive(pid)
    with pytest.raises(FileNotFoundError):
        SharedMemory(ring.name)


def test_frames_that_grow_keep_their_size(render, tmp_path: Path, reader: Reader) -> None:
    """A broadcast changes its size; a ring for 96 x 64 has no room for two frames of the larger size."""
    sizes = (64, 96), (2400, 3840)
    small, large = (render(f"{size[0]}.h264", num_frames=5, size=size, format="h264") for size in sizes)
    path = tmp_path / "grows.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes() + small.read_bytes())
    frames = read(reader, path)
    assert [frame.shape[0] for frame in frames] == [64] * 5 + [2400] * 5 + [64] * 5
    for frame, (_, expected) in zip(frames, read_frames(path), strict=True):
        assert np.array_equal(frame, expected)


def test_ctrl_c_does_not_reach_the_process(render, reader: Reader) -> None:
    path = render("video.mp4")
    read(reader, path)
    pid = reader.pid
    os.kill(pid, signal.SIGINT)
    assert len(read(reader, path)) == 30
    assert reader.pid == pid


@pytest.mark.parametrize("name", ["hang_in_probe", "good"])
def test_the_process_ends_when_its_parent_is_killed(name: str, render) -> None:
    script = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from cofinal.extractors import reader
        reader.SOURCE = "faulty_video"
        ours = reader.Reader()
        ours._send(None, {{"probe": {str(render(name + ".mp4"))!r}, "by_decoding": False, "allow_partial": False,
                           "allow_gaps": False, "limits": {{}}}})
        print(ours.pid, flush=True)
        time.sleep(3600)
    """
    # the script has no main guard, and the reading process must not run it
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.2)
    assert alive(pid)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_a_script_without_a_main_guard_can_read(render, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('run')\n"
        "from cofinal.extractors.reader import Reader\n"
        f"with Reader() as reader: print(reader.probe({str(render('video.mp4'))!r}).width)\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout.split() == ["run", "96"]
    assert ran.stderr == ""


def test_a_path_in_sys_path_is_ignored_as_import_does(render, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [Path("notebooks"), *sys.path])
    with Reader() as reader:
        assert reader.probe(render("video.mp4")).width == 96


def test_what_is_too_large_or_too_long_is_refused(render) -> None:
    path = render("video.mp4")
    with Reader(Limits(max_pixels=96 * 64 - 1)) as small, Reader(Limits(max_duration_s=1)) as short:
        with pytest.raises(VideoError, match=r"frames of 96 x 64, 6144 pixels, and 6143 are allowed \(--max-pixels\)"):
            small.probe(path)
        with pytest.raises(VideoError, match=r"lasts 1\.20 s, and 1 s are allowed \(--max-duration\)"):
            short.probe(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limits": Limits, "max_pixels": 0}, "max-pixels must be at least 1, not 0"),
        ({"limits": Limits, "max_duration_s": 0.0}, "max-duration must be more than 0 seconds, not 0"),
        ({"limits": Reader, "stall_timeout_s": -1.0}, "stall-timeout must be more than 0 seconds, not -1"),
    ],
)
def test_invalid_limits(arguments: dict, message: str) -> None:
    make: Callable = arguments.pop("limits")
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_too_little_shared_memory_is_reported(render, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("this system has no /dev/shm")
    monkeypatch.setattr(reader_module, "RING_BYTES", 2**60)
    facts = reader.probe(render("video.mp4"))
    with pytest.raises(ValueError, match="MiB of shared memory, and /dev/shm has"):
        next(reader.read_frames(facts, "pyav", wanted=np.arange(30)))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only on Linux shared memory is a file")
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (2**20, r"needs 32 MiB of shared memory, and the system gives none \(File too large\): .* ulimit -f"),
        (300, r"cannot hold the features of .* \(File too large\): make room there, or set TMPDIR to another folder"),
    ],
)
def test_a_limit_on_the_file_size_is_reported(limit: int, message: str, render) -> None:
    """300 bytes is set when the ring exists; they hold the features of six clips, 48 bytes each."""
    code = f"""
        import resource, sys
        sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
        from cheap_backbone import colours
        from cofinal.extractors.extract import extract
        from cofinal.extractors.reader import Reader
        with Reader() as reader:
            if {limit} < 1000:
                extract({str(render("video.mp4"))!r}, colours(clip_frames=4), reader=reader)
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
            extract({str(render("video.mp4", num_frames=100))!r}, colours(clip_frames=4), reader=reader)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert re.search(f"ValueError: .* {message}", ran.stderr), ran.stderr


def test_the_memory_limit_is_no_more_than_half_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROCESS_BYTES", 2**60)
    if hasattr(os, "sysconf"):
        assert 0 < memory.process_limit_bytes() < 2**50


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
