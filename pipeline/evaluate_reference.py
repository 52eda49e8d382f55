"""Evaluate a public CoFInAl head (`.pkl`) on features with labels.

    python -m cofinal.pipeline.evaluate_reference STORE HEAD.pkl --dataset rg --action Ball --target Total \\
        --weight-type 2

Such a file records neither what it scores nor its table of grade values, so the user names both. The test split is
evaluated where it has features, otherwise every labelled video; the output says which.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..data.feature_store import FeatureStore, describe_identity
from ..data.labels import read_labels
from ..models.predict import predict_reference
from ..models.reference import ReferenceCoFInAl
from .console import ends_well, print_message, print_result
from .evaluation import average, evaluate
from .examples import label_places, load_dataset, select_labels
from .heads import head_warnings, open_head


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
    """Evaluate a public head on a feature store with labels.

    Args:
        store: the feature store.
        head: a `.pkl` that the public CoFInAl code saved.
        dataset: the format of the label files, as of train-head.
        target: the score that the head predicts, one of the dataset's.
        weight_type: the `activate_regular_restrictions` that it was trained with.
        action: the apparatus that it was trained for; needed where the dataset has several, refused elsewhere.
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
        raise ValueError(
            f"{head} is not a .pkl of the public code; heads of train-head have their accuracy in their results"
        )
    opened, path = open_head(head, target=target, weight_type=weight_type, action=action)
    assert isinstance(opened.network, ReferenceCoFInAl), "open_head takes a target for public heads only"
    feature_store = FeatureStore(folder)
    all_labels = read_labels(dataset, [Path(labels)] if labels is not None else label_places(feature_store, folder))
    if all_labels.actions and action is None:
        raise ValueError(f"{path} was trained for one of {', '.join(all_labels.actions)}; name it with --action")
    selected = select_labels(all_labels, [target], None if action is None else [action])
    examples = load_dataset(feature_store, all_labels, selected).examples
    width = examples.features[0].shape[1]
    if width != opened.network.config.feature_dim:
        raise ValueError(
            f"{folder} holds features of width {width}; {path} was trained on width {opened.network.config.feature_dim}"
        )

    warnings = head_warnings(opened.metadata)
    stored = describe_identity(feature_store.identity)
    warnings.append(f"the store holds {stored}; {path.name} does not record what made its training features")
    in_test = np.array([row.split == "test" for row in examples.rows])
    if in_test.any():
        examples = examples.at(np.flatnonzero(in_test))
        warnings.append("the public code keeps the epoch that is best on the test split: this flatters its heads")
    else:
        warnings.append("no test video has features: all are evaluated, and the head may have been trained on them")
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
    dataset: Annotated[str, typer.Option(help="The format of the label files, as of train-head.")],
    target: Annotated[str, typer.Option(help="The score that the head predicts, say Total.")],
    weight_type: Annotated[int, typer.Option(help="The activate_regular_restrictions of its training, 0 to 3.")],
    action: Annotated[str | None, typer.Option(help="The apparatus that it was trained for.")] = None,
    labels: Annotated[Path | None, typer.Option(help="The label file or its folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Evaluate a public head on features with labels."""
    results = evaluate_reference(
        store, head, dataset, target=target, weight_type=weight_type, action=action, labels=labels
    )
    if as_json:
        typer.echo(json.dumps(results, indent=2, allow_nan=False))
        return
    for warning in results["warnings"]:
        print_message(f"warning: {warning}")
    for name, figures in results["targets"].items():
        low, high = figures["intervals"]["srcc"]
        print_result(
            f"{name}: SRCC {figures['srcc']:.3f} (95%: {low:.2f} to {high:.2f}), R-l2 {figures['r_l2']:.2f}, "
            f"MAE {figures['mae']:.2f}, RMSE {figures['rmse']:.2f} points, {figures['n']} videos "
            f"({results['evaluated']})"
        )


if __name__ == "__main__":
    typer.run(ends_well(_main))
