"""The four losses of CoFInAl (section 3.5): coarse, fine, final score and prototypes. GDLT has the final one.

The last one, which needs no score, is off by default (`pipeline.training.TrainingRecipe`): it does not help.

Shape legend: B batch, J judges, M targets, G grades, K sub-grades, D model width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .coupling import decouple
from .grading import Output


def losses(output: Output, truth: Tensor, edges: Tensor, scale: Tensor, *, softness: float) -> dict[str, Tensor]:
    """The losses that know the true scores, each a mean over the judges and the known scores of a batch.

    Args:
        output: of `GradingNetwork.judge`: every judge learns by itself.
        truth: true scores (B, M) in points, NaN where unknown.
        edges: grade edges (M, G+1) in points.
        scale: spread of each target's training scores (M,) in points.
        softness: a judge's error in units of `scale`: how far coarse targets reach into neighbouring grades.

    Returns:
        Scalars by name: coarse and fine where the head has fine grades, final.
    """
    known = ~truth.isnan()  # (B, M)
    truth = torch.where(known, truth, edges[:, 0])
    each = {}
    if output.subgrade_logits is not None:
        coarse, fine = decouple(truth[:, None], edges, output.subgrade_logits.shape[-1], softness=softness * scale)
        each["coarse"] = coarse_loss(output.grade_logits, coarse)
        each["fine"] = fine_loss(output.subgrade_logits, fine, coarse)
    each["final"] = final_loss(output.score, truth[:, None], scale)
    return {name: (loss.mean(1) * known).sum() / known.sum().clamp(min=1) for name, loss in each.items()}


def coarse_loss(grade_logits: Tensor, coarse: Tensor) -> Tensor:
    """Cross-entropy (...,) of grade logits (..., G) against soft coarse targets (..., G)."""
    return -(coarse * grade_logits.log_softmax(-1)).sum(-1)


def fine_loss(subgrade_logits: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
    """Cross-entropy (...,) of sub-grade logits (..., G, K) against fine targets (..., G, K).

    Grades count by their coarse target (..., G): each answers for the scores that are, or might be, its own.
    """
    return (coarse * -(fine * subgrade_logits.log_softmax(-1)).sum(-1)).sum(-1)


def final_loss(score: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """Squared error (...,) of coupled scores (...,) in units of `scale`."""
    return ((score - truth) / scale).square()


def prototype_loss(embeddings: Tensor, *, margin: float) -> Tensor:
    """Batch-hard triplet loss on cosine distance: embeddings of one grade lie closer than those of another.

    Args:
        embeddings: (B, J, G, D), grade g of every routine in the same column; judges do not meet.
        margin: least difference between the nearest foreign and the farthest own embedding.

    Returns:
        Scalar.
    """
    batch, _, grades, _ = embeddings.shape
    x = F.normalize(embeddings, dim=-1).transpose(0, 1).flatten(1, 2)  # (J, B*G, D)
    distance = 1 - x @ x.mT
    label = torch.arange(grades, device=x.device).repeat(batch)
    same = label[:, None] == label
    farthest_own = distance.masked_fill(~same, -1).amax(-1)
    nearest_foreign = distance.masked_fill(same, 3).amin(-1)
    return F.relu(farthest_own - nearest_foreign + margin).mean()
