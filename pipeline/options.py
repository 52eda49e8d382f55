"""Options that several commands and Python functions share, each written once: name, type, default and help text.

A frozen dataclass holds the options. `takes_fields_of` lets a function take the fields as keyword arguments, so that
typer makes console options of them and Python callers need not build the dataclass.
"""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from typer.models import OptionInfo

from ..data.score_tables import TableOptions
from ..extractors.decoders import check_decoder
from ..extractors.memory import suitable_decoder_bytes
from ..extractors.reader import STALL_TIMEOUT_S, Reader
from ..extractors.video import Limits

if TYPE_CHECKING:
    from ..extractors.backbone import Backbone

T = TypeVar("T")

PROTOCOLS = ("auto", "official", "cv")


class Option(OptionInfo):
    """The help text (and the console names, if they are not typer's usual ones) of a field, for `Annotated`."""

    def __init__(self, help: str, *names: str, metavar: str | None = None) -> None:
        super().__init__(default=..., param_decls=names, help=help, metavar=metavar)

    def __repr__(self) -> str:  # Python's help() prints it with the signature
        return repr(self.help)


def takes_fields_of(options_class: type) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Let a function take a dataclass's fields as keyword arguments, in place of its one argument of that dataclass.

    Args:
        options_class: the dataclass; it is built from the fields that the caller gives.
    """
    names = [field.name for field in fields(options_class)]

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            given = {name: kwargs.pop(name) for name in names if name in kwargs}
            return function(*args, **{replaced.name: options_class(**given)}, **kwargs)

        signature = inspect.signature(function)
        (replaced,) = (p for p in signature.parameters.values() if p.annotation is options_class)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            is_replaced = parameter is replaced
            parameters += inspect.signature(options_class).parameters.values() if is_replaced else [parameter]
        # typer and help() read these two, not the wrapper's own arguments
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": signature.return_annotation}
        return wrapper

    return decorate


@dataclass(frozen=True, kw_only=True)
class ExtractorOptions:
    """How videos are read and in what the backbone runs; what changes a video's frames is recorded with it.

    Raises:
        ValueError: the decoder is unknown or not installed, or a limit or the frame rate is not positive.
    """

    device: Annotated[str, Option("auto, cpu, cuda or cuda:N.")] = "auto"
    precision: Annotated[str, Option("auto, fp32, bf16 or fp16.")] = "auto"
    engine: Annotated[str, Option("On a CPU: torch, openvino, or auto, which is OpenVINO if it is installed.")] = "auto"
    decoder: Annotated[str, Option("auto, decord or pyav.")] = "auto"
    decoder_memory: Annotated[
        int | None,
        Option("MiB that decord may decode at once, in each reader; by default by the free memory and the readers."),
    ] = None
    allow_partial: Annotated[
        bool, Option("Of a damaged video, use the clips before the damage.", "--allow-partial")
    ] = False
    allow_gaps: Annotated[
        bool, Option("Take a pause in a video that otherwise keeps its pace as a still.", "--allow-gaps")
    ] = False
    deinterlace: Annotated[bool, Option("Deinterlace interlaced video, with FFmpeg's bwdif.", "--deinterlace")] = False
    display_aspect: Annotated[
        bool, Option("Stretch frames whose pixels are not square, as a player does.", "--display-aspect")
    ] = False
    fps: Annotated[
        float | None, Option("Frames per second of folders of numbered frames (0001.jpg, 0002.jpg, ...).")
    ] = None
    stall_timeout: Annotated[float, Option("Give up a video after so many seconds without a frame.")] = STALL_TIMEOUT_S
    max_pixels: Annotated[int, Option("Refuse videos with more pixels (width times height).")] = Limits.max_pixels
    max_duration: Annotated[float, Option("Refuse videos with more seconds.")] = Limits.max_duration_s

    def __post_init__(self) -> None:
        check_decoder(self.decoder)
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be more than 0, not {self.fps:g}")
        self.reader()  # checks the limits; it starts no process until it reads

    def reader(self, num_readers: int = 1) -> Reader:
        """Return a new reader with these limits, one of several."""
        return Reader(
            Limits(self.max_pixels, self.max_duration),
            stall_timeout_s=self.stall_timeout,
            decoder_bytes=(
                suitable_decoder_bytes(num_readers) if self.decoder_memory is None else self.decoder_memory * 2**20
            ),
        )

    def extract_options(self) -> dict[str, Any]:
        """Return what `extractors.extract.extract` takes of these options."""
        names = ("decoder", "allow_partial", "allow_gaps", "deinterlace", "display_aspect", "fps")
        return {name: getattr(self, name) for name in names}

    def load_backbone(self, name: str, *, recipe: str | None, weights: str | None) -> "Backbone":
        """Build a backbone on this device; see `extractors.backbone.load_backbone`."""
        from ..extractors.backbone import load_backbone  # imports torch, for which --help must not wait

        return load_backbone(
            name, recipe=recipe, weights=weights, device=self.device, precision=self.precision, engine=self.engine
        )


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What a head file may not say of itself."""

    target: Annotated[str | None, Option("For a .pkl head: the score it predicts, for example Total.")] = None
    weight_type: Annotated[
        int | None, Option("For a .pkl head: the activate_regular_restrictions of its training, 0 to 3.")
    ] = None
    extractor: Annotated[
        str | None,
        Option(
            "What made the training features of a head that does not record it; WEIGHTS is a file or published.",
            metavar="BACKBONE:RECIPE:WEIGHTS",
        ),
    ] = None
    weights: Annotated[
        str | None, Option("The backbone's weights file, if it has moved since the training.", metavar="FILE")
    ] = None


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How train-head reads the labels; all but the ranges are for tables (`--dataset csv`).

    `data.target_rules` says how the texts are written.
    """

    video_column: Annotated[
        str | None, Option("The table's column of video names; by default video, file, filename, clip or name.")
    ] = None
    sheet: Annotated[str | None, Option("The sheet of an Excel file; by default the first.", metavar="NAME")] = None
    ranges: Annotated[
        list[str] | None,
        Option(
            "Lowest and highest possible score, for example Final=0:30 (may be repeated).",
            "--range",
            metavar="TARGET=LOW:HIGH",
        ),
    ] = None
    panels: Annotated[
        list[str] | None,
        Option(
            "Judges' columns that make a target, for example Execution=E1,E2,E3,E4 (may be repeated).",
            "--panel",
            metavar="TARGET=JUDGE,...",
        ),
    ] = None
    panel_score: Annotated[
        str,
        Option("How marks become a score: mean, trimmed (no highest, no lowest) or middle (the middle three)."),
    ] = TableOptions.panel_score
    sums: Annotated[
        list[str] | None,
        Option(
            "A score that is a sum of others, for example Total=Difficulty+Execution-Penalty: it is checked on every "
            "row and learnt through its parts (may be repeated).",
            "--sum",
            metavar="TARGET=PARTS",
        ),
    ] = None

    def table(self, targets: Sequence[str] | None) -> TableOptions:
        """Return what they say of a table, of which these targets are wanted (None: all)."""
        return TableOptions(
            self.video_column, self.sheet, targets, self.panels or (), self.panel_score, self.sums or ()
        )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What train-head trains and how it evaluates it.

    Raises:
        ValueError: the protocol is unknown, or a number is too small or too large.
    """

    head_type: Annotated[
        str, Option("cofinal; cofinal-paper, the paper's own head; or gdlt, its baseline without fine grades.")
    ] = "cofinal"
    grades: Annotated[int | None, Option("Coarse grades of each target; by default the head's own number.")] = None
    subgrades: Annotated[int | None, Option("Fine grades of each coarse grade; by default the head's own.")] = None
    grade_edges: Annotated[
        list[str] | None,
        Option(
            "Where a target's grades meet, in points, for example Final=10,20,25 for 4 grades; by default each grade "
            "holds equally many training videos (may be repeated).",
            "--grade-edges",
            metavar="TARGET=POINTS",
        ),
    ] = None
    epochs: Annotated[int | None, Option("Passes over the training videos; by default the head's own number.")] = None
    lr: Annotated[float | None, Option("Learning rate; by default the head's own.")] = None
    settings: Annotated[
        list[str] | None,
        Option("Any other setting of the head or its training (may be repeated).", "--set", metavar="NAME=VALUE"),
    ] = None
    seed: Annotated[int, Option("Of folds and training: same seed, same numbers on the same machine.")] = 0
    seeds: Annotated[int, Option("Repeat with this many seeds: figures are means and deviations.")] = 1
    protocol: Annotated[str, Option("auto, official (train on train, test once) or cv (cross-validation).")] = "auto"
    folds: Annotated[int | None, Option("Folds of the cross-validation, or of --intervals; 5 by default.")] = None
    groups: Annotated[
        str | None,
        Option(
            "Keep videos with one value in this column in one fold, for example skaters.csv:skater; "
            "the file also has a column `video`.",
            metavar="FILE:COLUMN",
        ),
    ] = None
    events: Annotated[
        str | None,
        Option("Each video's competition, for the rank correlation within competitions.", metavar="FILE:COLUMN"),
    ] = None
    intervals: Annotated[
        bool,
        Option(
            "Predict intervals too and report their coverage; 5 folds then take 16 trainings instead of 6.",
            "--intervals",
        ),
    ] = False
    anonymous: Annotated[
        bool, Option("Leave the names of the training videos out of the head file.", "--anonymous")
    ] = False
    device: Annotated[str, Option("auto, cpu, cuda or cuda:N.")] = "auto"
    workers: Annotated[
        int | None,
        Option("Processes that train at once, on a CPU; by default one a core. The results are the same."),
    ] = None
    resume: Annotated[
        bool, Option("Go on with the finished trainings that an interrupted run of this command kept.", "--resume")
    ] = False

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {self.protocol!r}; known are {', '.join(PROTOCOLS)}")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, not {self.seeds}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")
