"""The console commands. Each parses its options and calls the function of the same name.

The functions are imported inside the commands, so that `--help` is quick.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .. import __version__
from .console import ends_well, print_result, stops_on_sigterm
from .options import ExtractorOptions, HeadOptions, LabelOptions, TrainingOptions, takes_fields_of

RAY_ADDRESS = r"auto|local|[^/]+:\d+"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print_result(f"cofinal {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


class _Command(TyperCommand):
    """A command of whose options `--ray` may stand without its value, which typer does not offer."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with `local` after a `--ray` without an address."""
        complete, no_address = [], ""
        for word, following in zip(args, [*args[1:], ""], strict=False):
            complete.append(word)
            if word == "--ray" and not re.fullmatch(RAY_ADDRESS, following):
                complete.append("local")
                no_address = "" if following.startswith("-") else following
        too_many = self.make_parser(ctx).parse_args(list(complete))[1]
        if len(too_many) == 1 and no_address:
            ctx.fail(f"{no_address} is not the address of a Ray cluster: an address is host:port, auto or local")
        return super().parse_args(ctx, complete)


def _run(command: Any) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})(ends_well(command))
    app()


def extract_features_command() -> None:
    """Run `extract-features`."""
    _run(_extract_features)


def train_head_command() -> None:
    """Run `train-head`."""
    _run(_train_head)


def score_video_command() -> None:
    """Run `score-video`."""
    _run(_score_video)


def serve_scores_command() -> None:
    """Run `serve-scores`."""
    _run(_serve_scores)


def list_backbones_command() -> None:
    """Run `list-backbones`."""
    _run(_list_backbones)


@takes_fields_of(ExtractorOptions)
def _extract_features(
    context: typer.Context,
    videos: Annotated[
        str | None,
        typer.Argument(
            metavar="VIDEOS",
            help="A video, a folder (searched recursively), frames (--fps) or a .txt list of paths; also by URL.",
        ),
    ] = None,
    store: Annotated[str | None, typer.Argument(metavar="OUT", help="The feature store's folder, or its URL.")] = None,
    *,
    backbone: Annotated[
        str,
        typer.Option(help="A name of list-backbones; auto is vst-b on a GPU, i3d on a CPU."),
    ] = "auto",
    recipe: Annotated[
        str | None,
        typer.Option(help="How frames become clips, a recipe of docs/extraction.md; by default the backbone's own."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME|random", help="A weights file, or a name of list-backbones; by default the first."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Cut the segments of these labels out of the videos; the formats are those of train-head."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="With --dataset: the label file or its folder; by default beside the features or videos."),
    ] = None,
    options: ExtractorOptions,
    readers: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Processes that read videos; auto is 1 for a backbone on a CPU, otherwise the cores less one, at "
            "most 16.",
        ),
    ] = "auto",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N|auto",
            help="Extract only part I of N, beside the other parts; auto asks Slurm, torchrun or MPI.",
        ),
    ] = None,
    batch_clips: Annotated[
        int | None, typer.Option(help="Clips in a batch; by default what suits the device. OpenVINO takes one by one.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Extract all videos again.")] = False,
    classes: Annotated[
        bool, typer.Option("--classes", help="Print each video's most probable Kinetics-400 class.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Extract nothing: check each array in OUT against its record, and VIDEOS, if given, by content.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed videos again, even if their files have not changed.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Extract on the nodes of a Ray cluster: host:port, auto, or none to start one on this machine.",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
    version: Version = False,
) -> int:
    """Turn videos into cached clip features.

    The same command continues an interrupted run where it stopped.

    \b
    Examples:
      extract-features videos/ out/
      extract-features routine.mp4 out/ --recipe kinetics-i3d
      extract-features videos/ out-classes/ --classes
      extract-features videos/ out/ --readers 4
      extract-features videos/ out/ --shard 2/8
      extract-features frames/ out/ --fps 25
      extract-features videos/ out/ --recipe musdl-i3d --dataset mtl-aqa --labels labels/
      extract-features videos/ out/ --ray
      extract-features /shared/videos /shared/out --ray 10.0.0.1:6379
      extract-features s3://bucket/videos s3://bucket/out
      extract-features --verify out/
    """
    if verify:
        return _verify(context, videos, store, options.fps, as_json)
    if videos is None or store is None:
        raise ValueError("name the videos and the folder for their features: extract-features VIDEOS OUT")
    from .extraction import extract_features
    from .extraction_summary import print_summary

    with stops_on_sigterm():
        summary = extract_features(
            videos,
            store,
            dataset=dataset,
            labels=labels,
            backbone=backbone,
            recipe=recipe,
            weights=weights,
            readers=readers,
            shard=shard,
            batch_clips=batch_clips,
            overwrite=overwrite,
            classes=classes,
            retry_failed=retry_failed,
            ray=ray,
            **vars(options),
        )
    if as_json:
        _print_json(summary.as_json())
    else:
        print_summary(summary)
    return 1 if summary.failed else 0


def _verify(context: typer.Context, videos: str | None, store: str | None, fps: float | None, as_json: bool) -> int:
    allowed = {"videos", "store", "fps", "verify", "as_json", "debug", "version"}
    for option in context.params.keys() - allowed:
        source = context.get_parameter_source(option)
        if source is not None and source.name != "DEFAULT":
            raise ValueError(f"--{option.replace('_', '-')} has no effect with --verify; leave it out")
    if store is None:
        videos, store = None, videos
    if store is None:
        raise ValueError("name the store to check: extract-features --verify OUT")
    from .verification import verify_store

    checked = verify_store(store, videos, fps=fps)
    if as_json:
        _print_json(checked.as_json())
    else:
        for entry in checked.problems:
            print_result(f"{entry['what']} {entry['problem']}")
        videos_note = f", {checked.videos} videos compared" if videos is not None else ""
        failed_note = f" ({checked.failed_videos} videos are recorded as failed)" if checked.failed_videos else ""
        print_result(
            f"{checked.arrays} arrays checked{videos_note}, {len(checked.problems)} problems{failed_note}: "
            f"{checked.store}"
        )
    return 1 if checked.problems else 0


@takes_fields_of(TrainingOptions)
@takes_fields_of(LabelOptions)
def _train_head(
    source: Annotated[
        Path, typer.Argument(metavar="STORE|VIDEOS", help="A feature store, or videos to extract first.")
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="The format of the label files: csv (your own table), rg, fisv, mtl-aqa, unlv-dive or jigsaws."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="The label file or its folder; by default beside the features or videos."),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Train this target only (may be repeated).")
    ] = None,
    action: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Train this action only (may be repeated).")
    ] = None,
    *,
    label_options: LabelOptions,
    options: TrainingOptions,
    head: Annotated[
        Path | None,
        typer.Option("--out", metavar="HEAD", help="The head file; by default heads/<dataset>-<date>.safetensors."),
    ] = None,
    set_default: Annotated[
        bool | None,
        typer.Option(
            "--set-default/--no-set-default",
            help="Make it score-video's default head; by default only if there is none and the head has no warning.",
        ),
    ] = None,
    extractor: Annotated[
        str | None,
        typer.Option(
            metavar="BACKBONE:RECIPE:WEIGHTS",
            help="What made features that came without a manifest; WEIGHTS is a file or published.",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
    version: Version = False,
) -> int:
    """Train a head on videos with scores, and evaluate it on videos that it did not see.

    \b
    Examples:
      train-head out/ --dataset rg
      train-head out/ --dataset csv --labels scores.xlsx --target Execution --range Execution=0:10
      train-head out/ --dataset csv --labels scores.csv --out club.safetensors --set-default
      train-head videos/ --dataset fisv --labels labels/
      train-head out/ --dataset fisv --protocol cv --groups skaters.csv:skater --seeds 5 --intervals
    """
    from .head_training import print_training, train_head

    result = train_head(
        source,
        dataset,
        labels=labels,
        targets=target,
        actions=action,
        out=head,
        set_default=set_default,
        extractor=extractor,
        **vars(label_options),
        **vars(options),
    )
    if as_json:
        _print_json(result.results)
    else:
        print_training(result)
    return 1 if result.failed_videos else 0


@takes_fields_of(LabelOptions)
@takes_fields_of(HeadOptions)
@takes_fields_of(ExtractorOptions)
def _score_video(
    videos: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEO...|FOLDER|LIST",
            help="Videos, a folder of them, a .txt list of paths, folders of frames (--fps), .npy files, or stores.",
        ),
    ],
    head: Annotated[
        Path | None,
        typer.Option(help="The head file, or a .pkl of the public CoFInAl code; by default the default head."),
    ] = None,
    *,
    action: Annotated[str | None, typer.Option(help="The apparatus or event, where the head has several.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the ranking to this table.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE.html", help="Write a page for each routine and an index; of one video also a file."
        ),
    ] = None,
    rank_by: Annotated[
        str | None,
        typer.Option(metavar="TARGET", help="The target to rank by; by default Total, or else the first."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Compare with judges' scores in label files of this format, as of train-head."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="The label file or its folder; by default beside the features or videos."),
    ] = None,
    label_options: LabelOptions,
    head_options: HeadOptions,
    options: ExtractorOptions,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object on stdout; of several videos one a line, as they come."),
    ] = False,
    debug: Debug = False,
    version: Version = False,
) -> int:
    """Score routines: coarse grade, fine grade and final score of each target, and a ranking of several.

    With --csv or a folder for --report, the same command continues an interrupted run, and scores only what changed.

    \b
    Examples:
      score-video routine.mp4
      score-video routine.mp4 --head heads/rg.safetensors --action Ball --report routine.html
      score-video videos/ --csv scores.csv --report reports/
      score-video videos/ --dataset csv --labels judged.csv
      score-video out/Ball_001.npy --head Ball_best.pkl --target Total --action Ball --weight-type 2
    """
    from .score_output import ScorePrinter
    from .scoring_many import score_videos
    from .sources import is_one_routine

    with ScorePrinter(alone=is_one_routine(videos), as_json=as_json) as printer:
        result = score_videos(
            videos,
            head,
            action=action,
            csv=csv,
            report=report,
            rank_by=rank_by,
            dataset=dataset,
            labels=labels,
            on_score=printer.take,
            **vars(label_options),
            **vars(head_options),
            **vars(options),
        )
    printer.finish(result)
    return 1 if result.failed else 0


@takes_fields_of(ExtractorOptions)
def _serve_scores(
    head: Annotated[
        Path | None, typer.Option(help="The head file, from train-head; by default the default head.")
    ] = None,
    *,
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8000,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where videos, reports and scores are kept; by default in the user's data folder."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="COFINAL_TOKEN", show_envvar=True, help="Ask everyone for this token first."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets the network in, and needs --token.")
    ] = "127.0.0.1",
    max_upload: Annotated[float, typer.Option(metavar="GB", help="Refuse larger videos.")] = 4.0,
    options: ExtractorOptions,
    debug: Debug = False,
    version: Version = False,
) -> int:
    """Score videos in a browser: upload them, see each report beside its video, keep the panel's scores.

    Ctrl-C stops it. What is in the queue goes on when the same command runs again.

    \b
    Examples:
      serve-scores
      serve-scores --head club.safetensors --data scores/ --port 9000
      serve-scores --host 0.0.0.0 --token three-long-words
    """
    try:
        from .serving.server import serve_scores
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ValueError(f"serve-scores needs {error.name}: pip install 'cofinal[serve]'") from error

    serve_scores(head, port=port, data=data, token=token, host=host, max_upload=max_upload, **vars(options))
    return 0


def _list_backbones(as_json: Json = False, debug: Debug = False, version: Version = False) -> int:
    """List the backbones: what each is, what it costs, where its weights come from and whether they are here.

    \b
    Examples:
      list-backbones
      extract-features videos/ out/ --backbone vst-b --weights KINETICS400_V1
    """
    from .backbones import list_backbones, print_backbones

    backbones = list_backbones()
    if as_json:
        _print_json({"format": 1, "backbones": backbones})
    else:
        print_backbones(backbones)
    return 0


COMMANDS: dict[str, tuple[Callable[[], None], str]] = {
    "extract-features": (extract_features_command, "videos -> cached clip features"),
    "train-head": (train_head_command, "features and judges' scores -> a head"),
    "score-video": (score_video_command, "a video -> coarse grade, fine grade and final score"),
    "serve-scores": (serve_scores_command, "the same in a browser, with a list of results and the panel's scores"),
    "list-backbones": (list_backbones_command, "the known backbones, their cost and their weights"),
}
"""The console commands by name, each with its purpose."""
