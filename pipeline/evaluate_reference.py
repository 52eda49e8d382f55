"""How good is a public CoFInAl head (`.pkl`) on judged features?

    python -m cofinal.pipeline.evaluate_reference STORE HEAD.pkl --dataset rg --target Total --weight-type 2 --action Ball

Such a file says neither what it scores nor how its grades are valued, so the user does. The test split is evaluated
where it has features, otherwise every judged video, which the output says.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..data.datasets import join
from ..data.feature_store import FeatureStore, describe_identity
from ..data.labels import read_labels
from ..extractors.video import VIDEO_SUFFIXES
from ..models.reference import ReferenceCoFInAl
from .console import ends_well, print_message, print_result
from .evaluation import average, evaluate
from .head_training import label_places, load_examples, narrowed
from .heads import open_head, remarks
from .training import predict_reference


def evaluate_reference(
    store: str | Path,
    head: str | Path,
    dataset: str,
    *,
    target: str,
    weight_type: int,
    action: str | None = None,
    labels: str | Path | None = None,
) -> dict[str, Any]:
    """Judge a public head by the labels of a feature store.

    Args:
        store: the feature store.
        head: a `.pkl` that the public CoFInAl code saved.
        dataset: whose label files these are: "rg", "fisv" or "csv".
        target: the score that the head predicts, one of the dataset's.
        weight_type: the `activate_regular_restrictions` that it was trained with.
        action: the apparatus that it was trained for; exactly where the dataset has several.
        labels: the label file or its folder; None to look in the store, its parent and where the videos came from.

    Returns:
        `targets` and `average` as the results of train-head have them, `evaluated` ("test" or "all"), `extractor` (the
        features' identity or None) and `warnings`.

    Raises:
        ValueError: the head, the labels or the features cannot be read or do not fit each other.
    """
    folder = Path(store)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a feature store; make one with extract-features")
    if Path(head).suffix != ".pkl":
        raise ValueError(f"{head} is not a .pkl of the public code; how good train-head's heads are, their results say")
    opened, path = open_head(head, target=target, weight_type=weight_type, action=action)
    assert isinstance(opened.network, ReferenceCoFInAl), "open_head takes a target for public heads only"
    feature_store = FeatureStore(folder)
    everything = read_labels(dataset, [Path(labels)] if labels is not None else label_places(feature_store, folder))
    if everything.actions and action is None:
        raise ValueError(f"{path} was trained for one of {', '.join(everything.actions)}; name it with --action")
    wanted = narrowed(everything, [target], None if action is None else [action])
    _, examples = load_examples(feature_store, wanted, join(everything, feature_store.names(), VIDEO_SUFFIXES))

    warnings = remarks(opened.metadata)
    made = describe_identity(feature_store.identity)
    warnings.append(f"the store holds {made}; {path.name} does not say what made those it was trained on")
    in_test = np.array([row.split == "test" for row in examples.rows])
    if in_test.any():
        examples = examples.at(np.flatnonzero(in_test))
        warnings.append("the public code keeps the epoch that is best on the test split: this flatters its heads")
    else:
        warnings.append("no test video has features: all are evaluated, and the head may have been trained on them")
    width = opened.network.config.feature_dim
    if (found := examples.features[0].shape[1]) != width:
        raise ValueError(f"{folder} holds features of width {found}; {path} was trained on width {width}")
    predicted = predict_reference(opened.network, examples.features).score
    figures = evaluate(examples.scores[:, 0], predicted[None])
    return {
        "format": 1,
        "dataset": dataset,
        "head": str(path),
        "evaluated": "test" if in_test.any() else "all",
        "extractor": feature_store.identity,
        "targets": {f"{action}/{target}" if action else target: figures},
        "average": average([figures]),
        "warnings": warnings,
    }


def _main(
    store: Annotated[Path, typer.Argument(help="A feature store, or a folder of .npy files.")],
    head: Annotated[Path, typer.Argument(metavar="HEAD.pkl", help="A head that the public CoFInAl code saved.")],
    dataset: Annotated[str, typer.Option(help="Whose label files these are: rg, fisv or csv.")],
    target: Annotated[str, typer.Option(help="The score that the head predicts, say Total.")],
    weight_type: Annotated[int, typer.Option(help="The activate_regular_restrictions of its training, 0 to 3.")],
    action: Annotated[str | None, typer.Option(help="The apparatus that it was trained for.")] = None,
    labels: Annotated[Path | None, typer.Option(help="The label file or its folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Print how good a public head is on judged features."""
    results = evaluate_reference(
        store, head, dataset, target=target, weight_type=weight_type, action=action, labels=labels
    )
    if as_json:
        typer.echo(json.dumps(results, indent=2, allow_nan=False))
        return
    for warning in results["warnings"]:
        print_message(f"warning: {warning}")
    for name, found in results["targets"].items():
        low, high = found["intervals"]["srcc"]
        print_result(
            f"{name}: SRCC {found['srcc']:.3f} (95%: {low:.2f} to {high:.2f}), R-l2 {found['r_l2']:.2f}, "
            f"MAE {found['mae']:.2f}, RMSE {found['rmse']:.2f} points, {found['n']} videos ({results['evaluated']})"
        )


if __name__ == "__main__":
    typer.run(ends_well(_main))
