"""Read pickled labels without ever running code from them.

A pickle can name any function of Python and call it. This unpickler knows four names, those of numpy's arrays, numbers
and types, and replaces even these by stand-ins, because numpy and pickle allocate any size that a file claims. With the
stand-ins nothing grows beyond the bytes of the file.
"""

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

NUMBERS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
"""numpy's types of plain numbers."""


def read_pickle(file: Path) -> Any:
    """Read a pickle of numbers, texts and numpy arrays of numbers, in dicts, lists, tuples and sets.

    Args:
        file: also one that Python 2 wrote.

    Returns:
        The content; arrays as numpy arrays, and single numpy numbers as numbers of Python.

    Raises:
        ValueError: the file is missing or damaged, or holds anything else.
    """
    try:
        with file.open("rb") as opened:
            return _plain(_Unpickler(opened).load(), {})
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read as labels: {reason}") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")  # in which Python 2 wrote bytes
        self.unclaimed_bytes = os.fstat(file.fileno()).st_size
        for opcode, argument, _ in pickletools.genops(file):
            # pickle allocates a table of as many rows as the highest number that an object is stored under
            if opcode.name.endswith("PUT") and int(argument or 0) > self.unclaimed_bytes:
                raise pickle.UnpicklingError(f"it numbers an object {argument}, more than it can hold")
        file.seek(0)

    def find_class(self, module: str, name: str) -> Any:
        requested = (module.replace("numpy.core.", "numpy._core."), name)  # numpy 2 renamed the module
        if requested == ("numpy", "ndarray"):
            return _PickledArray
        if requested == ("numpy", "dtype"):
            return _PickledType
        if requested == ("numpy._core.multiarray", "_reconstruct"):
            return lambda *_: _PickledArray(self)
        if requested == ("numpy._core.multiarray", "scalar"):
            return lambda kind, content: self.numbers(kind, content)[0].item()
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only numbers, texts and arrays are read")

    def numbers(self, kind: Any, content: Any) -> np.ndarray:
        """Return the numbers that some bytes of the file stand for."""
        if not isinstance(kind, _PickledType):
            raise pickle.UnpicklingError("it holds an array without a type")
        content = content.encode("latin1") if isinstance(content, str) else content
        self.unclaimed_bytes -= len(content)  # many arrays may share one content, and each copies it
        if self.unclaimed_bytes < 0:
            raise pickle.UnpicklingError("its arrays claim more bytes than the file has")
        return np.frombuffer(bytearray(content), kind.code)


class _PickledType:
    """Stands for `numpy.dtype` in a pickle."""

    def __init__(self, code: str, *_: Any):
        if code not in NUMBERS:
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, and only numbers are read")
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        self.code = ("<" if state[1] == "|" else str(state[1])[:1]) + self.code


class _PickledArray:
    """Stands for `numpy.ndarray` in a pickle; `array` is made from the bytes that the pickle holds for it."""

    def __init__(self, unpickler: _Unpickler):
        self.unpickler = unpickler
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, content = state
        self.array = self.unpickler.numbers(kind, content).reshape(shape, order="F" if is_fortran else "C")


def _plain(tree: Any, done: dict[int, Any]) -> Any:
    """Replace the stand-ins; a container that occurs often is converted once."""
    if tree is None or isinstance(tree, (bool, int, float, str, bytes)):
        return tree
    if id(tree) in done:
        return done[id(tree)]
    plain: Any
    if isinstance(tree, _PickledArray) and tree.array is not None:
        plain = tree.array
    elif isinstance(tree, dict):
        plain = {_plain(key, done): _plain(value, done) for key, value in tree.items()}
    elif isinstance(tree, (list, tuple, set)):
        plain = type(tree)(_plain(entry, done) for entry in tree)
    else:
        raise pickle.UnpicklingError(f"it holds a {type(tree).__name__}, and only numbers, texts and arrays are read")
    done[id(tree)] = plain
    return plain
