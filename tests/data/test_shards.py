"""Shards: balanced by bytes, stable when videos are added, and agreed on by all that start at once."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofinal.data.shards import Assignment, Shard, distribute, own_files, remove_shards, shard_files

SIZES = st.dictionaries(st.text(max_size=8), st.integers(0, 10**10), max_size=40)


def loads_of(sizes: dict[str, int], shard_of: dict[str, int], count: int) -> list[int]:
    return [sum(sizes[video] for video in sizes if shard_of[video] == index) for index in range(1, count + 1)]


@given(SIZES, st.integers(1, 9), st.data())
def test_no_shard_has_more_than_the_mean_and_one_video(sizes: dict[str, int], count: int, data: st.DataObject) -> None:
    shard_of = distribute(sizes, [0] * count)
    assert shard_of.keys() == sizes.keys()
    loads = loads_of(sizes, shard_of, count)
    assert max(loads) <= sum(loads) / count + max(sizes.values(), default=0)
    later = data.draw(SIZES.map(lambda more: {name: size for name, size in more.items() if name not in sizes}))
    everything = sizes | later
    shard_of |= distribute(later, loads)
    loads = loads_of(everything, shard_of, count)
    assert max(loads) <= sum(loads) / count + max(everything.values(), default=0)


@given(SIZES, st.integers(1, 9))
def test_the_order_in_which_videos_are_found_does_not_matter(sizes: dict[str, int], count: int) -> None:
    backwards = dict(reversed(sizes.items()))
    assert distribute(sizes, [0] * count) == distribute(backwards, [0] * count)


@given(SIZES, st.integers(1, 9), st.data())
def test_what_is_left_to_do_is_balanced_by_itself(sizes: dict[str, int], count: int, data: st.DataObject) -> None:
    done = data.draw(st.sets(st.sampled_from(sorted(sizes)))) if sizes else set()
    left = {video: size for video, size in sizes.items() if video not in done}
    loads = loads_of(left, distribute(sizes, [0] * count, last=done), count)
    assert max(loads) <= sum(loads) / count + max(left.values(), default=0)


def test_videos_of_one_size_are_spread_evenly() -> None:
    for size in (0, 7):
        shard_of = distribute({f"v{n}": size for n in range(22)}, [0] * 4)
        assert sorted(list(shard_of.values()).count(index) for index in range(1, 5)) == [5, 5, 6, 6]


@given(st.lists(SIZES, min_size=1, max_size=4), st.integers(1, 5))
def test_a_video_keeps_its_shard_when_others_appear_or_go(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[dict[str, int]], count: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    before: dict[str, int] = {}
    for number, sizes in enumerate(rounds):
        assignment = Assignment(folder)
        assert assignment.begin(Shard(1, count))
        assignment.add(sizes, Shard(number % count + 1, count))
        assert assignment.shard_of.keys() == before.keys() | sizes.keys()
        assert {video: assignment.shard_of[video] for video in before} == before
        before = dict(assignment.shard_of)
    assert Assignment(folder).shard_of == before


def test_shards_that_start_at_once_agree(tmp_path: Path) -> None:
    """Sixteen at once, each of which finds other videos."""
    sizes = {f"v{n}": n * n for n in range(60)}
    rng = random.Random(0)
    found = [{name: sizes[name] for name in rng.sample(sorted(sizes), 40)} for _ in range(16)]

    def start(index: int) -> Assignment:
        assignment = Assignment(tmp_path)
        assert assignment.begin(Shard(index + 1, 16))
        assignment.add(found[index], Shard(index + 1, 16))
        return assignment

    with ThreadPoolExecutor(16) as pool:
        assignments = list(pool.map(start, range(16)))
    last = Assignment(tmp_path)
    assert last.loads == loads_of(sizes, last.shard_of, 16)
    for assignment, seen in zip(assignments, found, strict=True):
        assert {name: assignment.shard_of[name] for name in seen} == {name: last.shard_of[name] for name in seen}


def test_another_count_is_noticed_and_removal_leaves_what_is_not_the_shards(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    assert Assignment(folder).begin(Shard(2, 3))
    assert not Assignment(folder).begin(Shard(2, 4))
    Assignment(folder).add({"a": 1}, Shard(2, 3))
    for name in ("2-of-3.jsonl", "2-of-3.lock", "12-of-3.attempts"):
        (folder / name).touch()
    (folder / "0-of-3.jsonl").touch()
    (folder / "x.npy").touch()
    assert [path.name for path in shard_files(folder, ".jsonl")] == ["2-of-3.jsonl"]
    # a removal that is killed leaves the first assignments, which hold without the later ones
    assert [path.name for path in own_files(folder)][-2:] == ["assignment-1.json", "assignment-0.json"]
    remove_shards(folder)
    assert {path.name for path in folder.iterdir()} == {"0-of-3.jsonl", "x.npy"}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"shards": 2, "bytes": [0], "videos": {}}', '{"shards": 1, "bytes": [0], "videos": {"a": 2}}'],
)
def test_what_is_no_assignment_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "assignment-0.json").write_text(content)
    with pytest.raises(ValueError, match=r"assignment-0.json is not an assignment .* run once without --shard"):
        Assignment(tmp_path)
