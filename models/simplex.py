"""The simplex equiangular tight frame (ETF): the fixed sub-grade prototypes of fine-grained scoring (paper, FGS)."""

import torch
from torch import Tensor


def simplex_etf(dim: int, num_vectors: int, *, seed: int = 0) -> Tensor:
    """Return `E = sqrt(K/(K-1)) U (I - 11^T/K)`: unit columns whose pairwise cosine is -1/(K-1), the lowest possible.

    Args:
        dim: dimension of the columns, at least `num_vectors`.
        num_vectors: K, at least 2.
        seed: of the random orthonormal U; always the same frame for the same sizes.

    Returns:
        (dim, K).
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(dim, num_vectors)  # only the size is asked for
    generator = torch.Generator("cpu").manual_seed(seed)
    gaussian = torch.randn(dim, num_vectors, generator=generator, dtype=torch.float64, device="cpu")
    basis = torch.linalg.qr(gaussian).Q
    centred = torch.eye(num_vectors, dtype=torch.float64, device="cpu") - 1 / num_vectors
    return ((num_vectors / (num_vectors - 1)) ** 0.5 * basis @ centred).float()
