"""Which videos a command means and what they are called."""

import os
from pathlib import Path

import pytest

from cofinal.pipeline.sources import find_videos


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folder_is_searched_recursively_and_others_are_counted(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.mp4", tmp_path / "b/deep/y.MKV", tmp_path / "z.avi", tmp_path / "notes.txt")
    sources = find_videos(tmp_path)
    assert list(sources.paths) == ["a/x", "b/deep/y", "z"]
    assert sources.num_others == 1


def test_hidden_files_and_folders_are_no_videos(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("x.mp4", "._x.mp4", "a/.y.mp4", ".Trash-1000/files/x.mp4")))
    touch(*(tmp_path / name for name in ("__MACOSX/._x.mp4", "@eaDir/x.mp4", "$RECYCLE.BIN/x.mp4")))
    sources = find_videos(tmp_path)
    assert (list(sources.paths), sources.num_others) == (["x"], 2)
    assert list(find_videos(tmp_path / ".Trash-1000").paths) == ["files/x"]  # a folder that is named is searched
    assert list(find_videos(tmp_path / "a/.y.mp4").paths) == [".y"]
    with pytest.raises(ValueError, match=r"holds no video \(1 files, none with a suffix .* that is not hidden\)"):
        find_videos(tmp_path / "a")


def test_named_file_is_tried_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "routine.dat")
    assert find_videos(tmp_path / "routine.dat").paths == {"routine": tmp_path / "routine.dat"}


def test_list_keeps_subfolders_and_takes_paths_from_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path / "lists/a/x.mp4", tmp_path / "elsewhere/y.mp4", tmp_path / "other/y.mp4")
    listing = tmp_path / "lists/all.txt"
    listing.write_text(f"a/x.mp4\n\n{tmp_path / 'elsewhere/y.mp4'}\n../other/y.mp4\n", encoding="utf-8-sig")
    with pytest.raises(ValueError, match=r"both become y.npy"):
        find_videos(listing)
    listing.write_text(f"a/x.mp4\na/x.mp4\n{tmp_path / 'elsewhere/y.mp4'}\n../elsewhere/y.mp4\n")
    assert list(find_videos(listing).paths) == ["a/x", "y"]


def test_two_sources_of_one_name_are_both_named(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.mkv", tmp_path / "a/x.mp4")
    with pytest.raises(ValueError, match=r"x\.mkv and .*x\.mp4 would both become a/x\.npy"):
        find_videos(tmp_path)


def test_odd_names_and_link_loops(tmp_path: Path) -> None:
    odd = [
        "-x.mp4",
        os.fsdecode(b"latin-\xe9.mp4"),
        "a\u2028b.mp4",
        "\u00e9.mp4",
        "e\u0301.mp4",
        "A.mp4",
        "a.mp4",
        "two words.mp4",
        "línea\n2.mp4",
        "v1.2.mp4",
        "x" * 200 + ".mp4",
    ]
    touch(*(tmp_path / "videos" / name for name in odd))
    os.symlink(tmp_path / "videos", tmp_path / "videos/loop")
    os.symlink("itself.mp4", tmp_path / "videos/itself.mp4")
    found = find_videos(tmp_path / "videos").paths
    assert set(found) == {name.removesuffix(".mp4") for name in [*odd, "itself.mp4"]}


def test_of_two_ways_to_a_folder_the_first_by_name_is_taken(tmp_path: Path) -> None:
    touch(tmp_path / "videos/b/x.mp4")
    os.symlink("b", tmp_path / "videos/a")
    os.symlink("b", tmp_path / "videos/c")
    assert list(find_videos(tmp_path / "videos").paths) == ["a/x"]


def test_no_line_of_a_list_names_features_outside_the_store(tmp_path: Path) -> None:
    touch(tmp_path / "x.mp4", tmp_path / "lists/sub/y.mp4", tmp_path / "..mp4")
    listing = tmp_path / "lists/all.txt"
    listing.write_text(f"../x.mp4\nsub/../sub/y.mp4\n../..mp4\n{tmp_path}/lists/../lists/sub/y.mp4\r\n")
    assert list(find_videos(listing).paths) == ["x", "sub/y", "."]
    for line in ("..", ".", "/"):
        listing.write_text(f"{line}\n")
        with pytest.raises(ValueError, match="is a folder; list the videos in it"):
            find_videos(listing)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "gone", "does not exist"),
        (lambda root: (root / "empty").mkdir() or root / "empty", "holds no video"),
        (lambda root: (root / "l.txt").write_text("\n") and root / "l.txt", "lists no video"),
        (lambda root: (root / "l.txt").write_text("x.mp4") and root / "l.txt", "x.mp4, which does not exist"),
        (lambda root: (root / "l.txt").write_bytes(b"\xff\xfe\xfa") and root / "l.txt", "not a text file"),
    ],
)
def test_bad_arguments(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_videos(make(tmp_path))
