"""Heads and stores from strangers run no code, exhaust no memory and reach nothing outside their folder."""

import json
import os
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from safetensors import safe_open

from cofinal.data.feature_store import FeatureStore


def one_sentence(ended) -> str:
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "a fault of this program" not in last
    return last


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.witness),)


def rewrite_metadata(head: Path, changed: Path, metadata: object) -> None:
    with safe_open(head, "pt") as file:
        record = json.loads(file.metadata()["cofinal"])
    if isinstance(metadata, dict):
        metadata = {k: v for k, v in (record["metadata"] | metadata).items() if v != "absent"}
    tensors = safetensors.torch.load_file(head)
    safetensors.torch.save_file(tensors, changed, {"cofinal": json.dumps(record | {"metadata": metadata})})


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        "text",
        {"identity": "absent", "weights": "absent"},
        {"identity": {}},
        {"identity": {"backbone": "i3d", "recipe": ["gdlt-i3d"], "weights_sha256": "0"}},
        {"weights": 7},
        {"actions": None},
        {"actions": [1]},
        {"actions": ["Ball", "Hoop"]},
        {"generated": "absent"},
        {"bounded": "absent"},
        {"intervals": []},
        {"intervals": {"level": 0.9, "radii": None}},
        {"intervals": {"level": "high", "radii": {}}},
        {"intervals": {"level": 0.9, "radii": {"score": float("nan")}}},
    ],
)
def test_heads_whose_metadata_are_not_ours(command, trained: Path, store: Path, tmp_path: Path, metadata) -> None:
    if isinstance(metadata, dict) and metadata.get("identity") == "absent":
        metadata |= {"actions": "absent"}  # without an identity alone a head is one of unknown features
    rewrite_metadata(trained, tmp_path / "h.safetensors", metadata)
    error = one_sentence(command("score-video", store / "v0.npy", "--head", tmp_path / "h.safetensors"))
    assert "does not record what it was trained on" in error


@pytest.mark.parametrize("origin", ["witness.pkl", "/dev/null", "/dev/zero", ".", "gone.pt"])
def test_a_head_that_names_strange_weights(
    command, trained: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("witness.pkl").write_bytes(pickle.dumps(Malicious(tmp_path / "witness")))
    rewrite_metadata(trained, tmp_path / "h.safetensors", {"weights": origin})
    one_sentence(command("score-video", videos / "v0.mp4", "--head", "h.safetensors"))
    assert not Path("witness").exists()


def test_a_malicious_pickle_as_weights_head_and_features_runs_nothing(
    command, trained: Path, videos: Path, store: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    for suffix in (".pt", ".pkl", ".ckpt", ".safetensors", ".npy"):
        bad.with_suffix(suffix).write_bytes(pickle.dumps(Malicious(tmp_path / "witness")))
    np.save(tmp_path / "objects.npy", np.array([Malicious(tmp_path / "witness")], object), allow_pickle=True)
    for suffix in (".pt", ".pkl", ".ckpt", ".safetensors"):
        ended = command("extract-features", videos / "v0.mp4", tmp_path / "out", "--weights", bad.with_suffix(suffix))
        assert "cannot be read" in one_sentence(ended)
    for features in (bad.with_suffix(".npy"), tmp_path / "objects.npy"):
        ended = command("score-video", features, "--head", trained)
        assert "cannot be read as a .npy array" in one_sentence(ended)
    ended = command("score-video", store / "v0.npy", "--head", bad.with_suffix(".safetensors"))
    assert "damaged or not a safetensors file" in one_sentence(ended)
    assert not (tmp_path / "witness").exists()
    pickle.loads(bad.with_suffix(".npy").read_bytes())  # the pickle does what it threatens
    assert (tmp_path / "witness").exists()


def npy(shape: str, descr: str = "'<f4'", content: bytes = b"\0" * 64) -> bytes:
    """A .npy file whose header says what it likes."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy("(268435456, 1024)"),  # a terabyte
        npy("(1099511627776, 1099511627776)"),
        npy("(4294967296, 4294967296)"),
        npy("(1099511627776, 0)"),
        npy("(-1, 4)"),
        npy("(True, 4)"),
        npy("(4.0, 4)"),
        npy("(4, 4)", "'|O'"),
        npy("(4, 4)", "[('a', '<f4', (1000000000,))]"),
        npy("(4, 4)", "'<U1000000000'"),
        npy("(4, 4)", "'>f4'"),
        npy("(4, 4)", "'<c8'"),
        npy("(16,)"),
        npy("()"),
        npy("(2, 4)", content=np.array([1, np.inf] * 4, np.float32).tobytes()),
        npy("(" * 5000 + ")" * 5000),
        npy("__import__('os').mkdir('witness')"),
    ],
)
def test_arrays_that_are_none(command, trained: Path, tmp_path: Path, monkeypatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "x.npy" in one_sentence(command("score-video", path, "--head", trained))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert not Path("witness").exists()


def test_files_that_unpack_to_gigabytes_or_never_end(command, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((25_000, 1000), np.float32))  # 100 MB in 100 KB
    (tmp_path / "bomb.npz").rename(path)
    assert path.stat().st_size < 200_000
    written = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "cannot be read as a .npy array" in one_sentence(command("score-video", path, "--head", trained))
    with path.open("wb") as file:
        file.write(npy("(268435456, 1024)", content=b""))
        file.truncate(1 << 40)  # sparse: a whole terabyte of zeros that takes no room on the disk
    assert "at most" in one_sentence(command("score-video", path, "--head", trained))
    path.unlink()
    os.mkfifo(path)
    assert "is not a file" in one_sentence(command("score-video", path, "--head", trained))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - max(before, written) < 50_000  # KiB


def test_a_record_that_leads_out_of_the_store_reaches_nothing(command, store: Path, videos: Path, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(store, out)
    np.save(tmp_path / "secret.npy", np.ones((1, 1024), np.float32))
    record = FeatureStore(out).records["v0"]
    names = ["../secret", str(tmp_path / "secret"), "link/secret", "v0\0", "\ud800", "x" * 300]
    (out / "link").symlink_to(tmp_path)
    with (out / "videos.jsonl").open("a") as file:
        for name in names:
            file.write(json.dumps({**record, "video": name}) + "\n")
        strange = '{"video": "x", "error": "y", "source": []}'
        for line in (
            '{"video": ["x"]}',
            '{"video": "x"}',
            "[" * 100_000,
            "null",
            '{"video": "x", "size": "y"}',
            strange,
        ):
            file.write(line + "\n")
    ended = command("extract-features", "--verify", out, "--json")
    problems = json.loads(ended.out)["problems"]
    assert ended.code == 1
    assert len(problems) == len(names) + 6
    assert sum("leads out of" in entry["problem"] for entry in problems) == 3
    assert sum("is torn or damaged" in entry["problem"] for entry in problems) == 6
    for name in ("../secret", str(tmp_path / "secret"), "link/secret"):
        with pytest.raises(ValueError, match="leads out"):
            FeatureStore(out).load(name)
    assert command("extract-features", videos, out).code == 0  # nor do they harm a run
    shutil.copytree(videos, tmp_path / "more/link")
    ended = command("extract-features", tmp_path / "more", out)
    assert ended.code == 1
    assert ended.err.count("leads out of") == 2 * 8
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["secret.npy"]


@pytest.mark.parametrize("name", ["manifest.json", "videos.jsonl", ".lock", ".attempts", "shards/1-of-2.jsonl"])
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe"])
def test_a_store_whose_own_files_lead_elsewhere(command, store: Path, videos: Path, tmp_path, name, kind) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    shutil.copytree(store, out)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to(elsewhere)
    if kind == "link":
        elsewhere.write_text("precious")
    for arguments in (("extract-features", videos, out), ("extract-features", "--verify", out)):
        assert f"{name} is not a plain file" in one_sentence(command(*arguments))
    assert elsewhere.exists() == (kind == "link")
    if kind == "link":
        assert elsewhere.read_text() == "precious"


@pytest.mark.parametrize(
    "manifest", ["[" * 100_000, "[]", '{"format": 1}', "\x00", '{"backbone": 1, "recipe": 2, "weights_sha256": 3}']
)
def test_manifests_that_are_none(command, videos: Path, tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    assert "manifest" in one_sentence(command("extract-features", videos, tmp_path))
    assert "manifest" in one_sentence(command("extract-features", "--verify", tmp_path))
