"""What becomes of each video of an extraction: its state in the store, its features, its failure, and what is shown."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ..data.feature_store import MAX_ATTEMPTS, FeatureStore, Status, array_path
from ..data.files import WriteError
from ..data.remote import RemoteFile
from ..data.scratch import Scratch
from ..data.source_files import source_facts, source_version
from ..extractors import i3d
from ..extractors.extract import Extraction, Finished
from ..extractors.reading import Video
from ..extractors.video import VideoError
from .console import err, one_sentence, print_message, printable
from .extraction_summary import ExtractionSummary
from .options import ExtractorOptions
from .sources import Sources

logger = logging.getLogger(__name__)


class Outcomes:
    """Writes the outcome of each video to the store, counts it and shows it.

    Args:
        store: opened.
        sources: the videos.
        summary: counts them.
        bar: shows the progress on a terminal; elsewhere a line is printed for each video.
    """

    def __init__(self, store: FeatureStore, sources: Sources, summary: ExtractionSummary, bar: Progress) -> None:
        self._store, self._sources, self._summary, self._bar = store, sources, summary, bar
        self._num_over = 0
        self._task = bar.add_task("extracting", total=len(sources.paths))
        self._parts: dict[str, float] = {}
        """How much is done of each video that is being extracted."""

    def left_to_do(self, *, overwrite: bool, retry_failed: bool, classes: bool) -> list[str]:
        """Count the videos that are done or failed in an earlier run; return the names of the others.

        Args:
            overwrite: all videos are to do.
            retry_failed: those that failed are to do.
            classes: those without a class are to do.
        """
        names = []
        for name in self._sources.paths:
            source = self._sources.source(name)
            status = Status.TO_DO if overwrite else self._store.status(name, source)
            lacks_class = classes and status is Status.DONE and "class" not in self._store.records[name]
            if lacks_class or (retry_failed and status is Status.FAILED):
                status = Status.TO_DO
            if status is Status.TO_DO and self._store.attempts(name, source) < MAX_ATTEMPTS:
                names.append(name)
                continue
            if status is Status.TO_DO:
                reason = f"{source} is given up: it was being extracted when {MAX_ATTEMPTS} runs crashed or were killed"
                self._fail(name, source_facts(source), VideoError(reason))
            elif status is Status.DONE:
                self._store.update_source_facts(name, source)
                self._summary.already_done += 1
            else:
                error = f"{self._store.records[name]['error']} (failed in an earlier run; --retry-failed tries again)"
                self._summary.failed.append({"video": self._sources.describe(name), "error": error})
            self._over(name, is_news=status is not Status.DONE)
        return names

    def video(self, name: str, scratch: Scratch, options: ExtractorOptions, *, is_here: bool) -> Video:
        """Return what is to be read of a video.

        Args:
            name: of the video.
            scratch: holds the copies of remote files.
            options: how videos are read.
            is_here: whether this process reads it; if it ends because of it, the next run knows.
        """
        path, source = self._sources.paths[name], self._sources.source(name)
        segment = self._sources.segments[name].span if name in self._sources.segments else None
        fetch = partial(scratch.fetch, source) if isinstance(source, RemoteFile) else partial(source_facts, source)
        find_facts = partial(_find_facts, self._store.folder.absolute(), name, fetch)
        video = Video(
            path,
            segment=segment,
            find_facts=partial(self._begin, name, find_facts) if is_here else find_facts,
            **options.extract_options(),
        )
        if not isinstance(source, RemoteFile):
            return video
        scratch.num_reads[source] += 1
        return replace(video, release=partial(scratch.release, source))

    def _begin(self, name: str, find_facts: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        facts = find_facts()
        self._store.begin(name, facts)
        return facts

    def attempts(self, name: str) -> int:
        """Return how many attempts at a video had no outcome."""
        return self._store.attempts(name, self._sources.source(name))

    def count_death(self, name: str) -> None:
        """Note that another process died while it had a video."""
        with suppress(OSError):  # the file may have gone
            # its content is not read: other workers would wait for their next videos
            size, mtime_ns = source_version(self._sources.paths[name])
            self._store.count_attempt(name, {"size": size, "mtime_ns": mtime_ns})

    def show_part(self, name: str, done_s: float, total_s: float) -> None:
        """Show that a part of a video is done."""
        self._parts[name] = min(done_s / total_s, 1) if total_s else 0
        under_way = (printable(Path(self._sources.describe(part)).name) for part in self._parts)
        self._update(f"extracting {', '.join(under_way)}")

    def keep(self, name: str, finished: Finished) -> None:
        """Write the features of a video; a failure is recorded and does not stop the run."""
        source = self._sources.source(name)
        facts = {"source": str(source.absolute() if isinstance(source, Path) else source), **finished.facts}
        try:
            extraction = finished.extraction()
            record = {**facts, **extraction.record, "seconds": extraction.record["stage_seconds"]["wall"]}
            self._store.write(name, extraction.features, record | _top_class(extraction))
        except WriteError:
            raise  # the disk has failed, so all other videos would fail too
        except Exception as error:  # whatever goes wrong with one video, the others are still extracted
            logger.debug("", exc_info=True)
            self._fail(name, facts, error)
        else:
            self._summary.extracted += 1
            self._summary.clips += len(extraction.features)
            for warning in extraction.record["warnings"]:
                self._summary.warnings.append(f"{self._sources.describe(name)}: {warning}")
                print_message(f"warning: {self._summary.warnings[-1]}")
        self._over(name)

    def recorded_classes(self) -> dict[str, dict[str, Any]]:
        """Return the most probable class of each video whose record has one, and its probability."""
        records = {name: self._store.records.get(name, {}) for name in self._sources.paths}
        return {
            name: {key: record[key] for key in ("class", "probability")}
            for name, record in records.items()
            if "class" in record
        }

    def _fail(self, name: str, facts: dict[str, Any], error: Exception) -> None:
        """Record, count and print a failure; a message about the copy of a remote file names the file."""
        message = one_sentence(error).replace(str(self._sources.paths[name]), str(self._sources.source(name)))
        self._store.append({"video": name, **facts, "error": message, "unusable": isinstance(error, VideoError)})
        self._summary.failed.append({"video": self._sources.describe(name), "error": message})
        print_message(f"failed: {message}")

    def _over(self, name: str, *, is_news: bool = True) -> None:
        """Show that nothing is left to do for a video."""
        self._parts.pop(name, None)
        self._num_over += 1
        self._update()
        if is_news and not err.is_terminal:
            video = Path(self._sources.describe(name)).name
            print_message(f"[{self._num_over}/{len(self._sources.paths)}] {video}")

    def _update(self, description: str | None = None) -> None:
        self._bar.update(self._task, completed=self._num_over + sum(self._parts.values()), description=description)


def _find_facts(folder: Path, name: str, fetch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    array_path(folder, name)  # refuses a name that cannot be stored before hours are spent on its video
    return fetch()


def _top_class(extraction: Extraction) -> dict[str, Any]:
    """Return the record's entries for the most probable class, if classes were asked for."""
    if extraction.probabilities is None:
        return {}
    mean = extraction.probabilities.mean(axis=0)
    top = int(mean.argmax())
    return {"class": i3d.class_names()[top], "probability": round(float(mean[top]), 4)}
