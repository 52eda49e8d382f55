"""Labels joined to features by name."""

import pytest

from data.datasets import join
from data.labels import LabelRow, LabelSet


def labels(*videos: str) -> LabelSet:
    rows = tuple(LabelRow(video, {"score": 1.0}, f"labels.csv line {i + 2}") for i, video in enumerate(videos))
    return LabelSet("csv", ("score",), {}, (), rows, ())


NAMES = ["a/x", "b/x", "deep/er/y", "b/z", "v1.2", "w"]


def test_relative_name_then_unique_stem_then_suffix() -> None:
    joined = join(labels("a/x", "y", "b/z.mp4", "v1.2", "vids/w.MP4"), NAMES, {".mp4"})
    assert [name for _, name in joined.pairs] == ["a/x", "deep/er/y", "b/z", "v1.2", "w"]
    assert joined.features_without_label == ("b/x",)
    assert joined.rows_without_features == ()


def test_only_a_videos_suffix_is_taken_off() -> None:
    with pytest.raises(ValueError, match="none of the 1 labels"):
        join(labels("clip.1"), ["clip"], {".mp4"})


def test_ambiguous_stem_names_both() -> None:
    with pytest.raises(ValueError, match=r"line 2: 'x' fits 'a/x' and 'b/x'"):
        join(labels("x"), ["a/x", "b/x"])


def test_two_rows_for_one_feature() -> None:
    with pytest.raises(ValueError, match=r"line 3 and .*line 2 both mean the features 'a/x'"):
        join(labels("x", "a/x.mp4"), ["a/x"], {".mp4"})


def test_no_match_shows_an_example_of_each_side() -> None:
    with pytest.raises(ValueError, match=r"none of the 2 labels \('p'.*3 feature files \('1'"):
        join(labels("p", "q"), ["1", "2", "3"])


def test_leftovers_are_counted_and_the_first_ten_named() -> None:
    joined = join(labels("x", *(f"gone{i}" for i in range(12))), ["x", "extra"])
    rows, features = joined.leftovers()
    assert rows.startswith("12 label rows have no feature file: gone0, ")
    assert rows.endswith("gone9, ...")
    assert features == "1 feature files have no label: extra"
