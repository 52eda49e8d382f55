"""A Ray cluster of three nodes on this machine: its videos are those of one machine, whatever dies."""

import os
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cheap_backbone import colours
from mortal_backbone import load, write_white_video

from cofinal.extractors.extract import Extraction, Finished, extract_many
from cofinal.extractors.reader import Reader
from cofinal.extractors.reading import Video
from cofinal.extractors.video import VideoError
from cofinal.extractors.work import Work

ray = pytest.importorskip("ray", reason="NOT TESTED: the Ray cluster, because Ray is not installed (the extra `ray`)")
NodeAffinitySchedulingStrategy = pytest.importorskip("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of three nodes with a core each; tests put back what they take from it."""
    import cheap_backbone
    import mortal_backbone
    from ray.cluster_utils import Cluster

    for module in (cheap_backbone, mortal_backbone):
        ray.cloudpickle.register_pickle_by_value(module)  # the workers do not find the tests' modules
    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**small)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def births(tmp_path: Path) -> Path:
    """The folder in which each worker leaves a file of its process's number."""
    folder = tmp_path / "births"
    folder.mkdir()
    return folder


@pytest.fixture
def films(render: Callable[..., Path]) -> list[Path]:
    """Sixteen videos of 4 to 8 clips of 4 frames, which differ in size and so in picture."""
    return [render(f"{n:02}.mp4", num_frames=16 + 4 * (n % 5), size=(64, 96 + 16 * n)) for n in range(16)]


@pytest.fixture
def connect(cluster: Any, births: Path) -> Callable[..., Any]:
    """Return what connects to the cluster's workers, which load backbones that white clips kill."""
    from cofinal.extractors.ray_cluster import RayCluster

    def connect(most_workers: int = 16, **how: Any) -> RayCluster:
        work = Work(load=partial(load, births=births, **how), make_reader=lambda _: Reader())
        return RayCluster(cluster.address, work, device="auto", most_workers=most_workers)

    return connect


def outcomes(run: Iterator[Finished]) -> dict[str, Any]:
    """Features, times of clips and record, or the error, of each video."""
    ended: dict[str, Any] = {}
    for finished in run:
        name, outcome = Path(finished.video.path).name, finished.outcome
        assert name not in ended
        if isinstance(outcome, Extraction):
            record = {key: value for key, value in outcome.record.items() if key != "stage_seconds"}
            ended[name] = (outcome.features.tobytes(), outcome.clip_times.tobytes(), record)
        else:
            ended[name] = (type(outcome), str(outcome))
        assert finished.facts in ({"name": name}, {})
    return ended


def videos_of(paths: list[Path]) -> list[Video]:
    return [Video(path, find_facts=partial(dict, name=path.name)) for path in paths]


def run(cluster: Any, videos: Iterable[Video], **how: Any) -> Generator[Finished, None, None]:
    """Extract videos on the cluster; unless it is said in `how`, none was tried before."""
    return cluster.extract_many(videos, **{"tries": lambda _: 0, "on_death": lambda _: None} | how)


def alone(paths: list[Path]) -> dict[str, Any]:
    """What this process makes of the videos."""
    with Reader() as reader:
        return outcomes(extract_many(videos_of(paths), colours(clip_frames=4), readers=[reader]))


def test_videos_are_the_same_as_on_one_machine(films, births, connect, tmp_path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    paths = [tmp_path / "text.mp4", *films, tmp_path / "absent.mp4"]
    with connect() as cluster:
        assert cluster.made_with == {"backbone": "colours", "device": "cpu"}
        left, ended = videos_of(paths), []
        for finished in run(cluster, iter(lambda: left.pop(0) if left else None, None)):
            ended.append(finished)
            assert len(paths) - len(left) <= len(ended) + 2 * 3  # few videos are under way
        many = outcomes(iter(ended))
    assert many == alone(paths)
    assert many["text.mp4"][0] is VideoError
    assert len(list(births.iterdir())) == 3


@pytest.fixture
def many_films(films: list[Path]) -> list[Path]:
    """Each of the videos under three names."""
    names = [path.with_name(f"{copy}-{path.name}") for path in films for copy in range(3)]
    for name in names:
        name.hardlink_to(name.with_name(name.name[2:]))
    return names


def until_all_work(cluster: Any, run: Iterator[Finished], num_workers: int) -> list[Finished]:
    """Take what is finished until all workers have videos."""
    ended = [next(run)]
    while len([worker for worker in cluster._workers.values() if worker.jobs]) < num_workers:
        ended.append(next(run))
    return ended


def test_a_worker_that_is_killed_costs_no_video(many_films, births, connect, capfd) -> None:
    seen: list[tuple[Video, float, float]] = []
    with connect() as cluster:
        under_way = run(cluster, videos_of(many_films), on_progress=lambda *part: seen.append(part))
        ended = until_all_work(cluster, under_way, 3)
        os.kill(int(next(births.iterdir()).name), signal.SIGKILL)
        ended += under_way
    assert outcomes(iter(ended)) == alone(many_films)
    assert capfd.readouterr().out == ""  # Ray would print there that a worker died
    assert seen
    assert all(video.path in many_films and 0 < done_s <= total_s for video, done_s, total_s in seen)


def test_a_node_that_is_lost_costs_no_video(many_films, connect, cluster) -> None:
    lost = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    with connect() as connected:
        under_way = run(connected, videos_of(many_films))
        ended = until_all_work(connected, under_way, 4)
        cluster.remove_node(lost, allow_graceful=False)
        ended += under_way
        assert connected.num_ready == 3
    assert outcomes(iter(ended)) == alone(many_films)


def test_deaths_of_earlier_runs_count(films, births, connect, tmp_path) -> None:
    poison = tmp_path / "poison.mp4"
    write_white_video(poison, seconds=1)
    died = []
    with connect() as cluster:
        ended = outcomes(
            run(
                cluster,
                videos_of([*films, poison]),
                tries=lambda video: 2 if video.path in (poison, films[0]) else 0,
                on_death=lambda video: died.append(video.path),
            )
        )
    assert "3 workers died while they had it" in ended.pop("poison.mp4")[1]
    assert died == [poison]
    assert ended == alone(films)


def test_a_video_that_kills_its_workers_fails_alone(films, births, connect, tmp_path) -> None:
    poison = tmp_path / "poison.mp4"
    write_white_video(poison, seconds=1)
    with connect() as cluster:
        ended = outcomes(run(cluster, videos_of([*films[:4], poison, *films[4:]])))
    kind, message = ended.pop("poison.mp4")
    assert issubclass(kind, VideoError)
    assert message.startswith(
        f"{poison} is given up: 3 workers died while they had it, the last by the end of its process on node "
    )
    assert ended == alone(films)
    assert 3 <= len(list(births.iterdir())) <= 3 + 3  # the last ones may still be loading


@pytest.mark.parametrize("claim", ["another", ValueError("no weights here")])
def test_a_node_that_cannot_make_the_same_features_gets_no_videos(claim, films, births, connect, caplog) -> None:
    with connect(bad={1: claim}) as cluster:
        time.sleep(1)
        ended = outcomes(run(cluster, videos_of(films)))
    assert ended == alone(films)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    reason = "backbone is 'another' there and 'colours' elsewhere" if claim == "another" else "no weights here"
    assert "gets no videos: " in warning
    assert warning.endswith(reason)


def test_no_worker_can_load_the_backbone(connect) -> None:
    no_weights = dict.fromkeys(range(3), ValueError("no weights here"))
    with (
        pytest.raises(ValueError, match=r"^the Ray cluster has no workers \(node .*: no weights here\)$"),
        connect(bad=no_weights),
    ):
        pass


@pytest.fixture
def busy_node(cluster: Any) -> Iterator[str]:
    """The first node, whose core another program uses; its address."""

    class Busy:
        def address(self) -> str:
            return ray.util.get_node_ip_address()

    ray.init(cluster.address, namespace="others", log_to_driver=False)
    node = NodeAffinitySchedulingStrategy(ray.nodes()[0]["NodeID"], soft=False)
    busy = ray.remote(Busy).options(num_cpus=1, name="busy", lifetime="detached", scheduling_strategy=node).remote()
    address = ray.get(busy.address.remote())
    ray.shutdown()
    yield address
    ray.init(cluster.address, namespace="others", log_to_driver=False)
    ray.kill(ray.get_actor("busy"))
    ray.shutdown()


def test_a_worker_that_waits_for_its_core_holds_nothing_up(
    films, births, connect, busy_node, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("cofinal.extractors.ray_cluster.NEW_NODES_S", 0.5)
    monkeypatch.setattr("cofinal.extractors.ray_cluster.PATIENCE_S", 3.0)
    with connect(most_workers=1) as cluster:
        ended = outcomes(run(cluster, videos_of(films)))
    assert ended == alone(films)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert (
        f"node {busy_node} gets no videos yet: a worker needs 1 of its cores, and Ray has not started it" in warnings[0]
    )
    assert len(warnings) <= 3  # one a node: on a busy machine the others start slowly too


def test_a_program_that_uses_ray_keeps_its_connection(cluster, connect) -> None:
    ray.init(cluster.address, log_to_driver=False)
    try:
        with pytest.raises(ValueError, match="this program uses Ray already"), connect():
            pass
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_there_is_no_such_cluster_or_device(cluster) -> None:
    from cofinal.extractors.ray_cluster import RayCluster

    work = Work(load=colours, make_reader=lambda _: Reader())
    with (
        pytest.raises(ValueError, match=r"there is no Ray cluster to use at 127\.0\.0\.1:1 "),
        RayCluster("127.0.0.1:1", work, device="auto", most_workers=1),
    ):
        pass
    with (
        pytest.raises(ValueError, match="the Ray cluster has no GPU: use --device cpu"),
        RayCluster(cluster.address, work, device="cuda", most_workers=1),
    ):
        pass
    with pytest.raises(ValueError, match="the device is auto, cpu or cuda, not cuda:1"):
        RayCluster("local", work, device="cuda:1", most_workers=1)
