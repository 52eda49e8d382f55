"""The house rules that a machine can hold: imports run downward, and nothing else is installed at top level."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"pipeline", "extractors", "models", "data"}
ALLOWED = {"pipeline": ROOMS, "extractors": {"extractors"}, "models": {"models"}, "data": {"data"}}


def imported_rooms(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names.add((node.module or "").split(".")[0])
    return names & ROOMS


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_run_downward(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        assert imported_rooms(file) <= ALLOWED[room], file


def test_help_comes_without_torch() -> None:
    program = "import sys, pipeline.cli; sys.exit(bool({'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_models_know_no_video_and_data_knows_no_network() -> None:
    for room, strangers in {"models": {"av", "decord", "torchvision"}, "data": {"torch"}}.items():
        for file in (ROOT / room).rglob("*.py"):
            imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import)]
            assert not {alias.name.split(".")[0] for node in imports for alias in node.names} & strangers, file


@pytest.mark.slow
def test_the_wheel_installs_the_four_rooms_and_nothing_else_at_top_level(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == ROOMS
    assert "pipeline/report.html.j2" in names
