"""Fine-Grained Scoring (CoFInAl, section 3.4): where within its grade does the routine stand?

Each grade's embedding becomes a unit vector and is matched against K fixed sub-grade prototypes, the columns of a
simplex equiangular tight frame (ETF): equally long, equally far apart, as far apart as K vectors can be.
The frame does not learn; the feature has to come to it.

Shape legend: D model width, K sub-grades, E dimension of the fine feature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def simplex_etf(dim: int, num_vectors: int, *, seed: int = 0) -> Tensor:
    """The simplex equiangular tight frame `sqrt(K/(K-1)) U (I - 11^T/K)`, U a random orthonormal basis.

    Args:
        dim: dimension of the vectors, at least `num_vectors`.
        num_vectors: K, at least 2.
        seed: chooses U; the global random state is neither read nor changed.

    Returns:
        (dim, K): unit columns whose pairwise cosine is -1/(K-1).

    Raises:
        ValueError: there is no such frame for these sizes.
    """
    if not 2 <= num_vectors <= dim:
        raise ValueError(f"a simplex frame needs 2 <= vectors <= dimension, not {num_vectors} vectors in {dim}")
    generator = torch.Generator("cpu").manual_seed(seed)  # and on the CPU, wherever the network is built
    gaussian = torch.randn(dim, num_vectors, generator=generator, dtype=torch.float64, device="cpu")
    basis = torch.linalg.qr(gaussian).Q  # (dim, K)
    centred = torch.eye(num_vectors, dtype=torch.float64, device="cpu") - 1 / num_vectors
    return ((num_vectors / (num_vectors - 1)) ** 0.5 * basis @ centred).float()


class FineScoring(nn.Module):
    """Match each grade's embedding against the sub-grade prototypes of a simplex ETF."""

    etf: Tensor

    def __init__(self, width: int, num_subgrades: int, *, temperature: float, dropout: float) -> None:
        super().__init__()
        dim = max(width, num_subgrades)
        self.temperature = temperature
        self.encode = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim))
        self.register_buffer("etf", simplex_etf(dim, num_subgrades))  # (E, K)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Sub-grade logits (..., K), cosines over the temperature, from grade embeddings (..., D)."""
        fine = F.normalize(self.encode(embeddings), dim=-1)  # (..., E)
        return fine @ self.etf / self.temperature
