"""Generated routines: scores, motion, the plan of a set, and its files."""

import dataclasses
import hashlib
import json

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from cofinal.data.gymnastics.choreography import (
    APPARATUS,
    ELEMENT_VALUES,
    LOST_PENALTY,
    LOST_SPEED,
    Element,
    compose,
    execution_loss,
    judge,
)
from cofinal.data.gymnastics.drawing import draw_routine
from cofinal.data.gymnastics.filming import FRAME_SIZE, camera_windows, project
from cofinal.data.gymnastics.motion import FRAME_RATE, Body, perform
from cofinal.data.labels import read_labels
from cofinal.data.routines import NUM_TEST, NUM_TRAIN, confounds, plan_routines, render_routines
from cofinal.data.text_labels import RG_RANGES
from cofinal.extractors.probing import probe

SEEDS = range(200, 206)
RG_HEADER = "Video_Name Difficulty_Score Execution_Score Total_Score Penalty Video_length"
FAULTS = ("slack", "tremble", "wobble", "pause_s")

unit = st.floats(0, 1)
elements = st.builds(
    Element,
    kind=st.sampled_from(list(ELEMENT_VALUES)),
    duration_s=st.floats(0.8, 1.5),
    reach=unit,
    slack=unit,
    tremble=unit,
    wobble=unit,
    pause_s=st.floats(0, 0.4),
    drop_speed=st.none() | st.floats(0.5, 2),
)
routines = st.lists(elements, min_size=1, max_size=5).map(tuple)


def shown(kind: str, **faults) -> tuple[Element, ...]:
    return (Element(kind, 1.2, **{"reach": 0.6, **faults}),)


# --- scores ---


@given(routines)
def test_judge_keeps_to_the_ranges_and_the_sum(routine):
    scores = judge(routine)
    assert 0 <= scores.execution <= 10
    assert scores.difficulty >= 0
    assert scores.penalty >= 0
    assert scores.total == pytest.approx(scores.difficulty + scores.execution - scores.penalty, abs=1e-6)


@given(elements, unit, unit)
def test_reach_raises_difficulty_alone(element, one, other):
    low, high = (judge((dataclasses.replace(element, reach=reach),)) for reach in sorted((one, other)))
    assert low.difficulty <= high.difficulty
    assert (low.execution, low.penalty) == (high.execution, high.penalty)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_execution_alone(fault):
    clean, slight, bad = (judge(shown("balance", **{fault: size})) for size in (0.0, 0.2, 0.4))
    assert clean.execution == 10
    assert clean.execution > slight.execution > bad.execution
    assert clean.difficulty == slight.difficulty == bad.difficulty
    assert bad.penalty == 0


def test_a_drop_costs_execution_and_a_lost_apparatus_a_penalty():
    held, dropped, lost = (
        judge(shown("throw", drop_speed=speed)) for speed in (None, LOST_SPEED - 0.1, LOST_SPEED + 0.1)
    )
    assert held.execution > dropped.execution == lost.execution
    assert (held.penalty, dropped.penalty, lost.penalty) == (0, 0, LOST_PENALTY)
    assert lost.total == pytest.approx(dropped.total - LOST_PENALTY)


def test_skill_raises_both_scores():
    rng = np.random.default_rng(3)
    low, high = ([judge(compose(skill, 5.0, rng)) for _ in range(20)] for skill in (0.2, 0.8))
    assert np.mean([g.difficulty for g in high]) > np.mean([g.difficulty for g in low]) + 3
    assert np.mean([g.execution for g in high]) > np.mean([g.execution for g in low]) + 2


# --- everything that is scored is visible ---


def height(motion, name):
    return motion.joint(name)[:, 2]


@pytest.mark.parametrize(
    ("kind", "measure"),
    [
        ("leap", lambda motion: motion.joints[:, :, 2].min(axis=1).max()),
        ("leap", lambda motion: np.linalg.norm(motion.joint("ankle_l") - motion.joint("ankle_r"), axis=-1).max()),
        ("turn", lambda motion: height(motion, "ankle_l").max()),
        ("balance", lambda motion: height(motion, "ankle_l").max()),
        ("throw", lambda motion: motion.apparatus[~motion.held, 2].max()),
        ("wave", lambda motion: -height(motion, "head")[15:21].min()),
    ],
)
def test_reach_is_visible(kind, measure):
    small, large = (measure(perform(shown(kind, reach=reach), Body())) for reach in (0.3, 0.9))
    assert large > small + 0.15  # metres


def test_higher_turns_go_round_more_often():
    def turns(reach):
        motion = perform(shown("turn", reach=reach), Body())
        x, y, _ = (motion.joint("hip_l") - motion.joint("hip_r")).T
        angles = np.unwrap(np.arctan2(y, x))
        return (angles[-1] - angles[0]) / (2 * np.pi)

    assert turns(0.1) == pytest.approx(1, abs=0.1)
    assert turns(0.9) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("kind", ELEMENT_VALUES)
def test_slack_bends_the_limbs(kind):
    def stretched(slack):
        motion = perform(shown(kind, slack=slack), Body())
        pairs = (("shoulder_l", "hand_l"), ("shoulder_r", "hand_r"), ("hip_l", "ankle_l"), ("hip_r", "ankle_r"))
        return [np.linalg.norm(motion.joint(a) - motion.joint(b), axis=-1).mean() for a, b in pairs]

    assert (np.array(stretched(0.8)) < np.array(stretched(0)) - 0.01).all()


@pytest.mark.parametrize("kind", ELEMENT_VALUES)
def test_tremble_shakes_the_limbs(kind):
    steady, slight, bad = (perform(shown(kind, tremble=size), Body(), seed=1).joints for size in (0, 0.4, 0.8))
    assert np.abs(bad - steady).mean() > 1.5 * np.abs(slight - steady).mean() > 0.01  # metres
    assert np.abs(np.diff(bad, n=3, axis=0)).mean() > 1.1 * np.abs(np.diff(steady, n=3, axis=0)).mean()


@pytest.mark.parametrize("kind", ELEMENT_VALUES)
def test_wobble_sways_and_steps(kind):
    steady, wobbling = (perform(shown(kind, wobble=size), Body(), seed=1) for size in (0, 0.8))
    for joint in ("chest", "toe_r"):
        assert np.abs(wobbling.joint(joint) - steady.joint(joint))[..., 0].max() > 0.03


@pytest.mark.parametrize("kind", ELEMENT_VALUES)
def test_a_pause_stops_all_motion(kind):
    def still_frames(pause_s):
        joints = perform(shown(kind, pause_s=pause_s), Body()).joints
        still = np.abs(np.diff(joints, axis=0)).max(axis=(1, 2)) < 1e-9
        return int(still[:9].sum())  # before any pose is held

    assert still_frames(0) == 0
    assert still_frames(0.4) >= 4


@pytest.mark.parametrize("kind", ELEMENT_VALUES)
def test_a_dropped_apparatus_is_away_from_the_hand_until_it_is_picked_up(kind):
    routine = (*shown(kind, drop_speed=1.5), *shown("wave"))
    motion = perform(routine, Body())
    lying = ~motion.held & (motion.apparatus[:, 2] < 0.35)
    assert lying.sum() >= 5
    apart = np.linalg.norm(motion.apparatus - motion.joint("hand_r"), axis=-1)
    assert apart[lying].max() > 0.5
    assert motion.held[-1]
    assert apart[motion.held].max() == 0


def test_a_faultless_routine_keeps_its_apparatus():
    motion = perform(shown("leap"), Body())
    assert motion.held.all()


@given(routines)
def test_the_lowest_joint_is_never_below_the_floor(routine):
    motion = perform(routine, Body())
    assert np.isfinite(motion.joints).all()
    assert motion.joints[..., 2].min() > -1e-6
    assert motion.apparatus[:, 2].min() > -1e-6


# --- the plan of a set ---


@pytest.mark.parametrize("seed", SEEDS)
def test_a_set_is_large_enough_and_spans_the_scores(seed):
    planned = plan_routines(seed=seed)
    assert (len(planned), NUM_TRAIN + NUM_TEST) == (NUM_TRAIN + NUM_TEST, len(planned))
    assert len(planned) >= 80
    unseen = [routine for routine in planned if routine.part == "test"]
    assert len(unseen) >= 30
    for part in (planned, unseen):
        totals = [routine.judgement.total for routine in part]
        assert min(totals) < 7
        assert max(totals) > 21
    assert len({routine.name for routine in planned}) == len(planned)
    for routine in planned:
        assert routine.apparatus in APPARATUS
        assert 4 <= routine.duration_s <= 6.01
        assert routine.judgement == judge(routine.elements)
        for target, value in dataclasses.asdict(routine.judgement).items():
            low, high = RG_RANGES.get(target.title(), (0, 1.2))
            assert low <= value <= high


@pytest.mark.parametrize("seed", SEEDS)
def test_every_apparatus_meets_every_level(seed):
    for part in ("train", "test"):
        for apparatus in APPARATUS:
            totals = [r.judgement.total for r in plan_routines(seed=seed) if (r.part, r.apparatus) == (part, apparatus)]
            assert len(totals) >= 8
            assert min(totals) < 11
            assert max(totals) > 17


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_are_spread_over_the_routine(seed):
    for routine in plan_routines(seed=seed):
        losses = np.array([execution_loss(element) for element in routine.elements])
        without_drops = np.array(
            [execution_loss(dataclasses.replace(element, drop_speed=None)) for element in routine.elements]
        )
        assert without_drops.max() < 0.35 * without_drops.sum()
        assert (without_drops > 0).all()
        assert losses.max() < 0.6 * losses.sum()


def test_test_routines_share_no_hall_camera_or_proportion_with_training():
    planned = [routine for seed in SEEDS for routine in plan_routines(seed=seed)]
    sides = {part: [r.setting for r in planned if r.part == part] for part in ("train", "test")}
    for field in ("wall", "floor", "camera"):
        train, test = ({getattr(setting, field) for setting in sides[part]} for part in ("train", "test"))
        assert len(train) == len(test) >= 2
        assert not train & test

    def gap(get):
        train, test = (np.array([get(setting) for setting in sides[part]]) for part in ("train", "test"))
        return np.abs(train[:, None] - test[None]).min() / (train.max() - train.min())

    for field in ("wall_hue", "floor_hue", "leotard_hue", "skin"):
        assert gap(lambda setting, field=field: getattr(setting, field)) > 0.02
    for field in ("height_m", "leg_share", "arm_share", "width"):
        assert gap(lambda setting, field=field: getattr(setting.body, field)) > 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_filming_and_duration_do_not_correlate_with_the_score(seed):
    planned = plan_routines(seed=seed)
    for part in ("train", "test"):
        routines = [routine for routine in planned if routine.part == part]
        totals = [routine.judgement.total for routine in routines]
        fields = ("brightness", "detail", "camera_travel", "grain", "zoom")
        measures = {field: [getattr(routine.setting, field) for routine in routines] for field in fields}
        measures["duration"] = [routine.duration_s for routine in routines]
        for name, values in measures.items():
            assert abs(spearmanr(values, totals).statistic) < 0.2, name


def test_a_part_of_one_routine_is_refused():
    with pytest.raises(ValueError, match="1 test routines are too few"):
        plan_routines(num_test=1)


# --- pictures ---


def test_the_figure_stays_in_the_recipes_crop():
    planned = plan_routines(seed=200)
    lost, seen = 0, 0
    for routine in planned[::5]:
        setting = routine.setting
        motion = perform(
            routine.elements, setting.body, facing_deg=setting.facing_deg, mirrored=setting.mirrored, seed=routine.seed
        )
        windows = camera_windows(setting, motion.joint("pelvis")[:, 0], np.random.default_rng(routine.seed))
        scale = FRAME_SIZE[0] / (windows[:, 2] - windows[:, 0])
        pixels = (project(motion.joints) - windows[:, None, :2]) * scale[:, None, None]
        inside = (np.abs(pixels - np.array(FRAME_SIZE) / 2) < (150, 112)).all(axis=-1)
        lost, seen = lost + (~inside).sum(), seen + inside.size
    assert lost < 0.02 * seen


@pytest.mark.parametrize("apparatus", APPARATUS)
def test_every_apparatus_is_drawn_held_and_dropped(apparatus):
    setting = plan_routines(seed=200)[0].setting
    setting = dataclasses.replace(setting, grain=0.0, camera="still")
    motion = perform(shown("wave", drop_speed=0.8), setting.body)
    without = dataclasses.replace(motion, apparatus=motion.apparatus + np.array([0, 0, 50.0]))  # out of sight
    pairs = list(zip(draw_routine(motion, apparatus, setting), draw_routine(without, apparatus, setting), strict=True))
    changed = np.array([(np.abs(a.astype(int) - b).max(axis=-1) > 20).sum() for a, b in pairs])
    assert all(a.shape == (FRAME_SIZE[1], FRAME_SIZE[0], 3) for a, _ in pairs)
    assert changed[motion.held].min() > 20
    assert changed[~motion.held].min() > 20


# --- files ---


def sums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routines")
    return folder, render_routines(folder, seed=5, num_train=4, num_test=3, workers=1)


def test_the_same_seed_gives_the_same_bytes(small_set, tmp_path):
    folder, planned = small_set
    progress = []
    again = render_routines(
        tmp_path, seed=5, num_train=4, num_test=3, workers=2, on_progress=lambda *done: progress.append(done)
    )
    assert again == planned
    assert sums(tmp_path) == sums(folder)
    assert progress == [(done, 7) for done in range(8)]


def test_a_video_says_that_it_is_generated_wherever_it_lies(small_set, tmp_path):
    video = next((small_set[0] / "videos").iterdir())
    assert probe(video).is_generated
    with av.open(str(video)) as source, av.open(str(tmp_path / "copy.mkv"), "w") as copy:
        copy.metadata.update(source.metadata)
        copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy.streams.video[0]
                copy.mux(packet)
    assert probe(tmp_path / "copy.mkv").is_generated


def test_videos_have_the_planned_codec_size_and_duration(small_set):
    folder, planned = small_set
    assert {path.stem for path in (folder / "videos").iterdir()} == {routine.name for routine in planned}
    for routine in planned:
        with av.open(str(folder / "videos" / f"{routine.name}.mp4")) as container:
            stream = container.streams.video[0]
            frames = sum(1 for _ in container.decode(stream))
            assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 25)
            assert (stream.width, stream.height) == FRAME_SIZE
            assert frames / FRAME_RATE == pytest.approx(routine.duration_s, abs=0.03)


def test_label_files_have_rgs_format(small_set):
    folder, planned = small_set
    labels = read_labels("rg", [folder])
    assert {row.video: row.split for row in labels.rows} == {routine.name: routine.part for routine in planned}
    for file in ("train.txt", "test.txt"):
        header, *lines = (folder / file).read_text().splitlines()
        assert " ".join(header.split()) == RG_HEADER
        for line in lines:
            difficulty, execution, total, penalty, duration_s = map(float, line.split()[1:])
            assert total == pytest.approx(difficulty + execution - penalty, abs=0.005)
            assert 4 <= duration_s <= 6


def test_the_records_hold_performance_and_filming(small_set):
    folder, planned = small_set
    records = [json.loads(line) for line in (folder / "routines.jsonl").read_text().splitlines()]
    assert [record["name"] for record in records] == [routine.name for routine in planned]
    for record, routine in zip(records, planned, strict=True):
        assert tuple(Element(**element) for element in record["elements"]) == routine.elements
        assert record["setting"]["wall"] == routine.setting.wall
        assert record["judgement"]["total"] == routine.judgement.total


def test_an_interrupted_set_is_completed_and_another_plan_replaces_it(tmp_path):
    def stop_early(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_routines(tmp_path, seed=6, num_train=2, num_test=2, workers=1, on_progress=stop_early)
    left = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").iterdir()}
    assert len(left) == 2
    planned = render_routines(tmp_path, seed=6, num_train=2, num_test=2, workers=1)
    assert {path: path.stat().st_mtime_ns for path in left} == left
    assert len(list((tmp_path / "videos").iterdir())) == 4

    first = sums(tmp_path)
    others = render_routines(tmp_path, seed=7, num_train=2, num_test=2, workers=1)
    assert {path.stem for path in (tmp_path / "videos").iterdir()} == {routine.name for routine in others}
    shared_names = {routine.name for routine in planned} & {routine.name for routine in others}
    assert all(sums(tmp_path)[f"{name}.mp4"] != first[f"{name}.mp4"] for name in shared_names)


def grey_video(path, levels):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_confounds_find_what_correlates_with_the_score(tmp_path):
    (tmp_path / "videos").mkdir()
    rows = [RG_HEADER]
    for i in range(5):  # the higher the total, the brighter, the longer and the less flickering
        levels = [40 + 20 * i + 4 * (5 - i) * (frame % 2) for frame in range(30 + 10 * i)]
        grey_video(tmp_path / "videos" / f"Ball_{i:03d}.mp4", levels)
        rows.append(f"Ball_{i:03d} {i} {i} {2 * i} 0 1")
    (tmp_path / "test.txt").write_text("\n".join(rows) + "\n")
    srcc = confounds(tmp_path)
    assert srcc["brightness"] == pytest.approx(1)
    assert srcc["duration"] == pytest.approx(1)
    assert srcc["frame_difference"] == pytest.approx(-1)
    sizes = [(tmp_path / "videos" / f"Ball_{i:03d}.mp4").stat().st_size for i in range(5)]
    assert srcc["file_size"] == pytest.approx(spearmanr(sizes, range(5)).statistic)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trivial_measures_do_not_predict_the_score(seed, tmp_path):
    render_routines(tmp_path, seed=seed, num_train=2)
    assert all(abs(srcc) < 0.4 for srcc in confounds(tmp_path).values())
