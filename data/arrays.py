"""Arrays of clip features: the `.npy` files of a feature store, and of the public feature folders."""

from pathlib import Path

import numpy as np

MAX_ARRAY_BYTES = 1 << 30
"""Over 90 hours of video at 4096 features per clip; a larger file cannot be an array of clip features."""


def load_features(path: Path) -> np.ndarray:
    """Read one `.npy` of clip features, `(clips, C)` as float32.

    Nothing is unpickled or decompressed, and no more memory is allocated than the file's size.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if (size := path.stat().st_size) > MAX_ARRAY_BYTES:
        raise ValueError(f"{path} has {size} bytes; arrays of clip features have at most {MAX_ARRAY_BYTES}")
    try:
        with np.errstate(over="ignore"):  # a header may claim any size, also one that overflows
            # a memory map, because np.load would first allocate whatever size the header claims
            features = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TypeError, OverflowError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as a .npy array ({reason}); delete it and extract it again") from error
    if features.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"{path} does not hold a float array of clip features; expected shape (clips, C)")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{path} has shape {features.shape}; expected (clips, C) with at least one clip")
    array = np.array(features, np.float32)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array).all(axis=1)).sum())
        raise ValueError(f"{path} holds NaN or infinity in {bad} of {len(array)} clips; delete it and extract it again")
    return array
