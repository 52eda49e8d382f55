"""The house rules that a machine can hold: imports run downward, and one package is installed."""

import ast
import configparser
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"pipeline", "extractors", "models", "data"}
ALLOWED = {"pipeline": ROOMS, "extractors": {"extractors"}, "models": {"models"}, "data": {"data"}}


def imported_rooms(file: Path) -> set[str]:
    """The rooms that a file of a room imports from, relatively as all of them must."""
    names = set()
    depth = len(file.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {*ROOMS, "cofinal"}, file
        elif isinstance(node, ast.ImportFrom):
            first = (node.module or "").split(".")[0]
            assert node.level or first not in {*ROOMS, "cofinal"}, f"{file} imports {node.module} absolutely"
            if node.level == depth:
                names |= {first} if first else {alias.name for alias in node.names}
            elif node.level:
                names.add(file.relative_to(ROOT).parts[0])
    return names & ROOMS


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_run_downward(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        assert imported_rooms(file) <= ALLOWED[room], file


def test_help_comes_without_torch() -> None:
    program = "import sys, cofinal.pipeline.cli; sys.exit(bool({'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_models_know_no_video_and_data_knows_no_network() -> None:
    for room, strangers in {"models": {"av", "decord", "torchvision"}, "data": {"torch"}}.items():
        for file in (ROOT / room).rglob("*.py"):
            imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import)]
            assert not {alias.name.split(".")[0] for node in imports for alias in node.names} & strangers, file


def test_setup_names_every_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {file.parent.relative_to(ROOT) for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    assert set(setup["options"]["packages"].split()) == {"cofinal", *(f"cofinal.{'.'.join(x.parts)}" for x in folders)}


@pytest.mark.slow
def test_a_wheel_works_beside_foreign_data_and_models_folders(tmp_path: Path) -> None:
    """Installed in an environment of its own, which sees only the libraries of this one."""
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    scripts = tmp_path / "env" / "bin"
    python = scripts / "python"
    subprocess.run([*pip, "--python", str(python), "install", "-q", "--no-deps", str(wheel)], check=True)
    (installed,) = (tmp_path / "env").glob("lib/python*/site-packages")
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (installed / "libraries.pth").write_text(f"{libraries}\n")
    assert {p.name for p in installed.iterdir() if not p.name.startswith("cofinal-")} == {"cofinal", "libraries.pth"}

    foreign = tmp_path / "research"
    for room in ROOMS:
        (foreign / room).mkdir(parents=True)
        (foreign / room / "__init__.py").write_text("raise ImportError('a foreign package')\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def output_of(*command: object) -> str:
        run = subprocess.run(list(map(str, command)), cwd=foreign, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout

    for name in ("extract-features", "train-head", "score-video"):
        assert "Examples:" in output_of(scripts / name, "--help")
        assert output_of(scripts / name, "--version").startswith("cofinal ")
        assert name in output_of(python, "-m", "cofinal")
    assert "Usage:" in output_of(python, "-m", "cofinal.pipeline.demo", "--help")
    program = "import cofinal; from cofinal import extract_features, train_head, score_video; print(cofinal.__file__)"
    assert Path(output_of(python, "-c", program).strip()).is_relative_to(installed)
