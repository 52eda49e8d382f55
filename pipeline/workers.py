"""Where the backbone runs: in this process, or on the nodes of a Ray cluster."""

from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from ..extractors import i3d
from ..extractors.backbone import Backbone, resolve_backbone
from ..extractors.catalogue import CATALOGUE
from ..extractors.extract import Finished, OnProgress, extract_many, suitable_readers
from ..extractors.reading import Video
from ..extractors.work import Extract, Work
from .console import print_message, waiting
from .manifest import manifest_of
from .options import ExtractorOptions


def load_backbone(
    device: str,
    *,
    backbone: str,
    recipe: str | None,
    weights: str | None,
    classes: bool,
    options: ExtractorOptions,
    place: str,
) -> tuple[Backbone, dict[str, Any]]:
    """Load the backbone on a device; return the store's manifest too."""
    options = replace(options, device=device)
    name, reason = resolve_backbone(backbone, device)
    if reason:
        print_message(f"backbone {name}, {reason}")
    if classes and recipe is None:
        recipe = CATALOGUE[name].kinetics_recipe
    with waiting(f"loading {name}"):
        network = options.load_backbone(name, recipe=recipe, weights=weights)
    if classes and network.num_classes != len(i3d.class_names()):
        raise ValueError(
            f"--classes names the 400 classes of Kinetics-400, but these weights have {network.num_classes} classes"
        )
    return network, manifest_of(network, weights, place) | {"backbone_choice": reason}


@contextmanager
def in_this_process(work: Work, device: str) -> Iterator[tuple[dict[str, Any], Extract]]:
    """Load the backbone in this process; yield the store's manifest, and what extracts videos."""
    network, manifest = work.load(device)
    with ExitStack() as stack:

        def extract(
            videos: Collection[Video],
            *,
            on_progress: OnProgress,
            tries: Callable[[Video], int],
            on_death: Callable[[Video], None],  # never called: if this process dies, the store tells the next run
        ) -> Generator[Finished, None, None]:
            num_readers = min(work.num_readers or suitable_readers(network), len(videos))
            readers = [stack.enter_context(work.make_reader(num_readers)) for _ in range(num_readers)]
            for together in _apart(videos, tries):
                run = extract_many(
                    together,
                    network,
                    readers=readers[: len(together)],
                    batch_clips=work.batch_clips,
                    classify=work.classify,
                    on_progress=on_progress,
                )
                with closing(run):
                    yield from run

        yield manifest, extract


@contextmanager
def on_cluster(address: str, work: Work, device: str, num_videos: int) -> Iterator[tuple[dict[str, Any], Extract]]:
    """Start the workers of a Ray cluster; yield the same as `in_this_process`."""
    try:
        from ..extractors.ray_cluster import RayCluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ValueError("--ray needs Ray: pip install 'cofinal[ray]'") from error

    with ExitStack() as stack:
        with waiting("starting the workers of the Ray cluster"):
            cluster = stack.enter_context(RayCluster(address, work, device=device, most_workers=num_videos))
        manifest = cluster.made_with
        assert manifest is not None, "a worker is ready"
        if manifest["backbone_choice"] is not None:
            print_message(f"backbone {manifest['backbone']}, {manifest['backbone_choice']}")
        yield manifest, cluster.extract_many


def _apart(videos: Collection[Video], tries: Callable[[Video], int]) -> Iterator[list[Video]]:
    """Yield the videos in groups to extract together: all, but those that a run did not survive last and alone.

    So whatever ended that run ends no run with the others on the way, and only itself is blamed.
    """
    if others := [video for video in videos if not tries(video)]:
        yield others
    for suspect in sorted(filter(tries, videos), key=tries):  # the most suspect last
        yield [suspect]
