"""Attempts: those of a run that was killed are counted, those of a run that ends are taken back."""

import os
from pathlib import Path

import pytest

from cofinal.data.attempts import LINES, Attempts


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"frames")
    return path


def facts_of(video: Path) -> dict[str, int]:
    return {"size": video.stat().st_size, "mtime_ns": video.stat().st_mtime_ns}


def test_attempts_without_an_outcome_are_counted_until_the_file_changes(tmp_path: Path, video: Path) -> None:
    path, facts = tmp_path / ".attempts", facts_of(video)
    for attempt in (1, 2, 3):
        attempts = Attempts(path)  # the one before was killed: nobody closed it
        assert attempts.count("x", video) == attempt - 1
        assert attempts.begin("x", facts) == attempt
        attempts.begin("y", facts)
        attempts.end("y")
    attempts = Attempts(path)
    assert attempts.count("x", video) == 3
    assert attempts.count("y", video) == 0
    assert attempts.count("x", tmp_path / "gone.mp4") == 0
    os.utime(video, ns=(0, 0))
    assert attempts.count("x", video) == 0
    assert attempts.begin("x", facts_of(video)) == 1
    attempts.end("x")
    attempts.end("x")
    attempts.close()
    assert not path.exists()


def test_a_run_that_ends_takes_back_what_is_under_way(tmp_path: Path, video: Path) -> None:
    path = tmp_path / ".attempts"
    killed = Attempts(path)
    killed.begin("x", facts_of(video))
    ended = Attempts(path)
    ended.begin("x", facts_of(video))
    ended.begin("y", facts_of(video))
    ended.close()
    ended.close()
    again = Attempts(path)
    assert (again.count("x", video), again.count("y", video)) == (1, 0)


def test_an_attempt_that_ended_elsewhere_is_not_taken_back(tmp_path: Path, video: Path) -> None:
    attempts = Attempts(tmp_path / ".attempts")
    attempts.begin("x", facts_of(video))
    attempts.leave("x")
    attempts.close()
    assert Attempts(tmp_path / ".attempts").count("x", video) == 1


@pytest.mark.parametrize("damage", [b"[]", b"3", b'{"video": "x"}', b'{"video": [], "attempts": 3}', b"[" * 100_000])
def test_damaged_lines_hold_nothing(tmp_path: Path, video: Path, damage: bytes) -> None:
    path = tmp_path / ".attempts"
    Attempts(path).begin("x", facts_of(video))
    path.write_bytes(path.read_bytes() + damage + b"\n" + b'{"video": "x", "atte')
    assert Attempts(path).count("x", video) == 1


def test_the_file_stays_short(tmp_path: Path, video: Path) -> None:
    path = tmp_path / ".attempts"
    attempts = Attempts(path)
    attempts.begin("x", facts_of(video))
    for number in range(LINES):
        attempts.begin(f"v{number}", facts_of(video))
        attempts.end(f"v{number}")
    assert len(path.read_bytes().splitlines()) <= LINES + 1
    assert Attempts(path).count("x", video) == 1


def test_a_shard_replaces_what_the_store_says_of_its_videos(tmp_path: Path, video: Path) -> None:
    whole, first, second = tmp_path / ".attempts", tmp_path / "1-of-2.attempts", tmp_path / "2-of-2.attempts"
    for name in "xyx":
        Attempts(whole).begin(name, facts_of(video))
    for name in "xyz":
        Attempts(second, older=whole).begin(name, facts_of(video))
    assert Attempts(second, older=whole).count("x", video) == 3
    shard = Attempts(second, older=whole)
    shard.end("x")
    assert shard.count("x", video) == 0
    shard.close()
    assert Attempts(second, older=whole).count("x", video) == 0  # though the store's own file still says 2
    other = Attempts(first, older=whole)
    other.begin("w", facts_of(video))
    other.end("w")
    other.close()
    assert not first.exists()
    merged = Attempts(whole, newer=[second])
    assert [merged.count(name, video) for name in "xyz"] == [0, 2, 1]
    assert [Attempts(whole).count(name, video) for name in "xyz"] == [0, 2, 1]


def test_a_video_whose_last_attempts_were_ended_by_a_shard_starts_anew(tmp_path: Path, video: Path) -> None:
    whole, own = tmp_path / ".attempts", tmp_path / "1-of-1.attempts"
    for _ in range(3):
        Attempts(whole).begin("x", facts_of(video))
    given_up = Attempts(own, older=whole)
    given_up.end("x")
    given_up.close()
    assert Attempts(own, older=whole).begin("x", facts_of(video)) == 1
    assert Attempts(own, older=whole).count("x", video) == 1
