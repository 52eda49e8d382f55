"""Reading weights files of every kind: all tensors come out, no code runs, and no file fills the memory."""

import os
import pickle
import resource
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from cofinal.extractors.safe_load import only_network, read_tensors

ARRAYS = {"params": {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "bias": np.ones(4, np.float32)}}


def test_files_of_torch_give_their_tensors_and_nothing_else(tmp_path) -> None:
    content = {"epoch": 3, "meta": {"name": "x"}, "state_dict": {"a.weight": torch.ones(2), "b": [torch.ones(1)]}}
    for new in (True, False):
        torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=new)
        tensors = read_tensors(tmp_path / "weights.pth")
        assert list(tensors) == ["state_dict/a.weight"]
        assert tensors["state_dict/a.weight"].tolist() == [1, 1]


def test_the_log_in_a_trained_file_is_ignored(tmp_path, monkeypatch) -> None:
    class HistoryBuffer:  # like mmengine's, which mmaction2 saves beside the weights
        def __init__(self) -> None:
            self.values = np.ones(3)

        def mean(self) -> float:
            return self.values.mean()

        def __getstate__(self) -> dict:
            return {"values": self.values, "methods": {"mean": HistoryBuffer.mean}}

    module = ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    for named in (HistoryBuffer, HistoryBuffer.mean):
        named.__module__, named.__qualname__ = module.__name__, named.__qualname__.rpartition("<locals>.")[2]
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(2), "message_hub": {"loss": HistoryBuffer()}, "best": np.float32(3)}, path)
    monkeypatch.undo()
    assert list(read_tensors(path)) == ["weight"]


@pytest.mark.parametrize("new", [True, False])
def test_a_malicious_file_of_torch_runs_nothing(new: bool, tmp_path) -> None:
    path = tmp_path / "weights.pth"
    content = {"weight": torch.ones(2), "log": Malicious(tmp_path / "witness")}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"it asks for posix\.mkdir, and only tensors are read") as raised:
        read_tensors(path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "witness").exists()
    torch.load(path, weights_only=False)  # the file is malicious indeed
    assert (tmp_path / "witness").exists()


@pytest.mark.parametrize("new", [True, False])
def test_a_truncated_file_of_torch_is_refused_in_one_sentence(new: bool, tmp_path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(200)}, path, _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match="cannot be read") as raised:
        read_tensors(path)
    assert "\n" not in str(raised.value)


class Terabyte:
    def __reduce__(self):
        return bytearray, (1 << 40,)


def nested_laughs() -> dict:
    """Sixty dicts, each with the previous one in it twice: 2**60 names for one tensor."""
    tree: dict = {"weight": torch.ones(1)}
    for _ in range(60):
        tree = {"ha": tree, "he": tree}
    return tree


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.ones(1).expand(1 << 40)}, "weight claims more numbers than the file has"),
        ({"weight": torch.ones(2).to_sparse()}, "weight is not a plain tensor"),
        ({"weight": torch.ones(1 << 40, device="meta")}, "weight is not a plain tensor"),
        ({"weight": torch.ones(1), "log": Terabyte()}, r"it asks for builtins\.bytearray"),
    ],
)
def test_a_file_of_torch_cannot_claim_more_than_it_has(new: bool, content: dict, message: str, tmp_path) -> None:
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "weights.pth")


def test_dicts_that_contain_each_other_are_read_once(tmp_path) -> None:
    tree = nested_laughs()
    tree["itself"] = tree
    torch.save(tree, tmp_path / "weights.pth")
    assert list(read_tensors(tmp_path / "weights.pth")) == ["/".join(["ha"] * 60 + ["weight"])]


def test_a_file_of_torch_that_inflates_is_refused(tmp_path) -> None:
    torch.save({"weight": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "weights.pth", "w") as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="its records claim more bytes than the file has"):
        read_tensors(tmp_path / "weights.pth")


def test_a_whole_network_in_a_file_is_refused(tmp_path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth")
    with pytest.raises(ValueError, match=r"asks for torch\.nn\.modules\.linear\.Linear, and only tensors"):
        read_tensors(tmp_path / "network.pth")


def test_the_one_network_of_a_file() -> None:
    tensors = dict.fromkeys(("model/a.conv.weight", "model/a.bn.weight", "other.weight"), torch.ones(1))
    prefix, inside = only_network(tensors, "conv.weight", "file", "Some")
    assert (prefix, sorted(inside)) == ("model/a.", ["bn.weight", "conv.weight"])
    with pytest.raises(ValueError, match=r"file holds no Some weights of a known kind: expected one key onv\.weight"):
        only_network(tensors, "onv.weight", "file", "Some")
    with pytest.raises(ValueError, match=r"found 2 of them, under model/a\. and b\."):
        only_network(tensors | {"b.conv.weight": torch.ones(1)}, "conv.weight", "file", "Some")


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def test_a_malicious_pickle_runs_nothing(tmp_path) -> None:
    path = tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps({"params": Malicious(tmp_path / "witness")}))
    with pytest.raises(ValueError, match=r"it asks for posix\.mkdir, and only numpy arrays are read"):
        read_tensors(path)
    assert not (tmp_path / "witness").exists()
    pickle.loads(path.read_bytes())  # the pickle is malicious indeed
    assert (tmp_path / "witness").exists()


class Claimed:
    """Pickles as an array with any claimed shape, dtype and content."""

    def __init__(self, shape: tuple, code: str, content: object):
        self.state = (1, shape, ClaimedDtype(code), False, content)

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


class ClaimedDtype:
    def __init__(self, code: str):
        self.code = code

    def __reduce__(self):
        return np.dtype, (self.code, False, True), (3, "<", None, None, None, -1, -1, 0)


def reconstructed(shape: tuple, code: str, content: object, times: int = 1) -> bytes:
    """A pickle of arrays as numpy writes them, but with these claims; all arrays share one content."""
    return pickle.dumps({str(i): Claimed(shape, code, content) for i in range(times)})


def billion_laughs() -> dict:
    """Sixty dicts, each with the previous one in it twice: 2**60 names."""
    tree: dict = {}
    for _ in range(60):
        tree = {"ha": tree, "he": tree}
    return tree


def holds_itself() -> dict:
    tree: dict = {}
    tree["again"] = tree
    return tree


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle at all",
        pickle.dumps(ARRAYS)[:100],
        pickle.dumps({"params": np.array([{}, []], dtype=object)}),
        pickle.dumps({"params": "text"}),
        pickle.dumps([1, 2]),
        pickle.dumps(os.system),
        b"cnumpy\nndarray\n(I1000000000000000\ntR.",
        b"cnumpy\nndarray\n(I2000000000\nVO\ntR.",  # numpy would fill 16 GB with None
        reconstructed(shape=(10**9,), code="O8", content=[]),
        reconstructed(shape=(10**12,), code="f4", content=b""),
        reconstructed(shape=(10**12, 0), code="V1", content=b""),
        reconstructed(shape=(4000,), code="f4", content=b"0" * 16_000, times=1000),
        b"}r\xff\xff\xff\x7f.",  # pickle would make a table of 2 billion rows
        pickle.dumps(billion_laughs()),
        pickle.dumps(holds_itself()),
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"a terabyte.",
        (1 << 62).to_bytes(8, "little") + b"{}",
        (99).to_bytes(8, "little")
        + b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'.ljust(99),
    ],
)
def test_pickles_of_anything_but_dicts_of_arrays_are_refused(content: bytes, tmp_path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("weights.ckpt", "weights.safetensors"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read") as raised:
            read_tensors(path)
        assert str(path) in str(raised.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_pickles_of_both_numpy_generations_are_read(tmp_path) -> None:
    now = pickle.dumps(ARRAYS, protocol=3)
    before = now.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert now != before
    for content in (now, before):
        (tmp_path / "weights.ckpt").write_bytes(content)
        assert sorted(read_tensors(tmp_path / "weights.ckpt")) == ["params/bias", "params/layer/kernel"]


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"none\.ckpt cannot be read: No such file"):
        read_tensors(tmp_path / "none.ckpt")
