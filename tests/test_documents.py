"""The documents: links lead somewhere, commands exist with their options, and what is shown as run is run.

Commands that are cheap are run. The others are parsed by the program itself, options and arguments, and go no further.
"""

import argparse
import configparser
import importlib.util
import inspect
import json
import pickle
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import scipy.io
import typer.core
from markdown_it import MarkdownIt
from markdown_it.token import Token

import cofinal
from cofinal import score_video, train_head
from cofinal.data.labels import read_labels
from cofinal.extractors.catalogue import ALIASES, CATALOGUE
from cofinal.extractors.recipes import RECIPES
from cofinal.models.head_types import HEAD_TYPES
from cofinal.pipeline.evidence import TargetEvidence
from cofinal.pipeline.extraction_summary import ExtractionSummary
from cofinal.pipeline.head_training import TrainingResult
from cofinal.pipeline.scoring_many import ScoringResult
from cofinal.pipeline.verdict import Score

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
README = ROOT / "README.md"
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
SCRIPTS = dict(line.split(" = ") for line in SETUP["options.entry_points"]["console_scripts"].strip().splitlines())
PROGRAMS = {*SCRIPTS, "python", "python3", "make", "pip", ".venv/bin/pip", "conda", "source", "ray"}
FOREIGN_OPTIONS = {"--index-url"} | {
    *("--array", "--cpus-per-task", "--gpus", "--gpus-per-task", "--job-name", "--kill-on-bad-exit"),
    *("--mem", "--ntasks", "--requeue"),
    *("--signal", "--time", "--no-python", "--nproc-per-node", "--head", "--address"),
}
"""Of pip, Slurm, torchrun and Ray."""

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # a module is run twice

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def parse(document: Path) -> list[Token]:
    """Return the tokens of a document."""
    return MarkdownIt("commonmark").enable("table").parse(document.read_text())


def inline(tokens: list[Token]) -> Iterator[Token]:
    """Yield what stands inside the lines of text: links, images, pieces of code."""
    for token in tokens:
        yield from token.children or ()


def code_blocks(document: Path, language: str = "") -> list[str]:
    """Return the code blocks of a language; those without one are of ""."""
    blocks = [token for token in parse(document) if token.type in ("code_block", "fence")]
    return [block.content for block in blocks if block.info.strip() == language]


def commands(document: Path) -> list[str]:
    """Return the command lines of the code blocks: those after `$`, or else those that name a program."""
    found = []
    for block in code_blocks(document):
        lines = block.splitlines()
        typed = [line[2:] for line in lines if line.startswith("$ ")]
        found += typed or [line for line in lines if line.split(" ")[0] in PROGRAMS]
    return found


def inline_commands(document: Path) -> list[str]:
    """Return the pieces of code in the text that name a program and something more."""
    pieces = [token.content for token in inline(parse(document)) if token.type == "code_inline"]
    return [piece for piece in pieces if len(words := piece.split()) > 1 and words[0] in PROGRAMS]


def shown_output(document: Path, command: str) -> list[str]:
    """Return the lines that a document shows below a command."""
    for block in code_blocks(document):
        lines = block.splitlines()
        if f"$ {command}" in lines:
            return lines[lines.index(f"$ {command}") + 1 :]
    raise AssertionError(f"{document} does not show {command}")


def first_cells(document: Path, heading: str) -> list[list[list[str]]]:
    """Return the code in the first cell of each row, of each table below a heading."""
    tokens = parse(document)
    start = next(
        i for i, token in enumerate(tokens) if token.type == "heading_open" and tokens[i + 1].content == heading
    )
    tables: list[list[list[str]]] = []
    for i, token in enumerate(tokens[start + 1 :], start + 1):
        if token.type == "heading_open":
            break
        if token.type == "tbody_open":
            tables.append([])
        if token.type == "tr_open" and tokens[i + 1].type == "td_open":
            tables[-1].append([x.content for x in tokens[i + 2].children or () if x.type == "code_inline"])
    return tables


def flat(rows: list[list[str]]) -> list[str]:
    """Return all code of the rows."""
    return [name for row in rows for name in row]


# --- links --------------------------------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    tokens = parse(document)
    found: set[str] = set()
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            text = "".join(part.content for part in tokens[i + 1].children or ())
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            assert anchor not in found, f"{document} has two headings {text!r}"
            found.add(anchor)
    return found


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    links = [str(token.attrs["href"]) for token in inline(parse(document)) if token.type == "link_open"]
    links += [str(token.attrs["src"]) for token in inline(parse(document)) if token.type == "image"]
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = document if not place else document.parent / place
        assert target.is_file(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


def test_every_document_is_reached_from_the_readme() -> None:
    seen, ahead = {README}, [README]
    while ahead:
        document = ahead.pop()
        links = [str(token.attrs["href"]) for token in inline(parse(document)) if token.type == "link_open"]
        for link in links:
            target = (document.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file() and target not in seen:
                seen.add(target)
                ahead.append(target)
    assert {path.resolve() for path in DOCUMENTS} - seen <= {(ROOT / "CONTRIBUTING.md").resolve()}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def parser_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Any]:
    """Return what gives a program's own parser: of a console script's name, or of `python -m MODULE`."""
    monkeypatch.syspath_prepend(str(ROOT))  # as `python -m` in the root of the checkout has it

    def build(words: list[str]) -> Any:
        built: list[Any] = []

        def stop(parser: Any, *_: Any, **__: Any) -> None:
            built.append(parser)
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(typer.core.TyperCommand, "main", stop)
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            patch.setattr(sys, "argv", words[:1])
            with suppress(SystemExit):
                if words[0] in SCRIPTS:
                    pkgutil.resolve_name(SCRIPTS[words[0]])()
                else:
                    runpy.run_module(words[2], run_name="__main__")
        return built[0]

    return build


def options_of(parser: Any) -> set[str]:
    """Return the options that a parser knows."""
    if isinstance(parser, argparse.ArgumentParser):
        return {option for option in parser._option_string_actions if option.startswith("--")}
    return {option for parameter in parser.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "--version",
    }


def is_own_program(words: list[str]) -> bool:
    """Whether a command runs a console script, or a module with options of its own."""
    return words[0] in SCRIPTS or (
        words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("cofinal", "benchmarks") and "." in words[2]
    )


def check_foreign(words: list[str]) -> None:
    """Check a command of make, pip, conda, pytest or the shell by what it names."""
    match words:
        case ["make", *targets]:
            dry = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)
            assert dry.returncode == 0, dry.stderr
        case ["python", "-m", "pytest", "-m", marker, *paths]:
            settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
            assert marker in {line.split(":")[0] for line in settings["markers"]}
            assert all((ROOT / path).is_file() for path in paths)
        case ["python", "-m", "cofinal"]:
            subprocess.run([sys.executable, "-m", "cofinal"], check=True, capture_output=True)
        case ["python3", "-m", module, ".venv"]:
            assert importlib.util.find_spec(module)
        case ["pip", "install", extra]:
            assert extra.removeprefix(".[").removesuffix("]") in SETUP["options.extras_require"]
        case [".venv/bin/pip", "install", *libraries, "--index-url", address]:
            required = {re.split(r"\W", line)[0] for line in SETUP["options"]["install_requires"].split("\n")}
            assert set(libraries) <= required
            assert address.startswith("https://")
        case ["conda", "env", "create", "-f", file]:
            assert (ROOT / file).is_file()
        case ["conda", "activate", name]:
            assert f"name: {name}\n" in (ROOT / "environment.yml").read_text()
        case ["ray", "start", "--head"]:
            pass
        case ["ray", "start", address]:
            assert re.fullmatch(r"--address=[\d.]+:\d+", address)
        case ["source", script]:
            assert script == ".venv/bin/activate"
        case _:
            raise AssertionError(f"nobody knows how to check {words}")


@each_document
def test_commands_are_ones_that_the_programs_take(document: Path, parser_of: Callable[[list[str]], Any]) -> None:
    for command in commands(document):
        words = shlex.split(command, comments=True)
        if not is_own_program(words):
            check_foreign(words)
            continue
        parser = parser_of(words)
        arguments = words[1 if words[0] in SCRIPTS else 3 :]
        if isinstance(parser, argparse.ArgumentParser):
            parser.parse_args(arguments)  # ends the test where it does not like them
        else:
            parser.make_context(words[0], arguments)


def test_scripts_are_ones_that_the_shell_and_the_programs_take(parser_of: Callable[[list[str]], Any]) -> None:
    scripts = [script for document in DOCUMENTS for script in code_blocks(document, "bash")]
    assert scripts
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        for line in script.splitlines():
            words = shlex.split(line, comments=True)
            for start in (i for i, word in enumerate(words) if word in SCRIPTS):  # after what starts it, as srun
                command = [word for word in words[start:] if word != "&"]
                parser_of(command).make_context(command[0], command[1:])


@each_document
def test_commands_in_the_text_name_programs_and_options_that_exist(
    document: Path, parser_of: Callable[[list[str]], Any]
) -> None:
    for command in inline_commands(document):
        words = shlex.split(command)
        if is_own_program(words):
            assert {word for word in words if word.startswith("--")} <= options_of(parser_of(words)), command
        else:
            check_foreign(words)


def test_every_console_script_is_shown_and_every_option_named_exists(parser_of: Callable[[list[str]], Any]) -> None:
    shown = [shlex.split(command, comments=True) for document in DOCUMENTS for command in commands(document)]
    assert set(SCRIPTS) <= {words[0] for words in shown}
    programs = {tuple(words[: 1 if words[0] in SCRIPTS else 3]) for words in shown if is_own_program(words)}
    known = FOREIGN_OPTIONS.union(*(options_of(parser_of(list(words))) for words in programs))
    for document in DOCUMENTS:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", document.read_text()):
            assert option in known, f"{document.name} names {option}"


def test_every_benchmark_has_its_command() -> None:
    programs = [path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()]
    shown = {token.content for token in inline(parse(ROOT / "benchmarks/README.md")) if token.type == "code_inline"}
    assert {f"python -m benchmarks.{name}" for name in programs} <= shown


@each_document
def test_names_of_python_and_of_the_environment_exist(document: Path) -> None:
    for token in inline(parse(document)):
        if token.type == "code_inline" and re.fullmatch(r"cofinal(\.\w+)+(\(.*\))?", token.content):
            assert pkgutil.resolve_name(token.content.partition("(")[0])
    rooms = ("pipeline", "extractors", "data", "tests")
    source = "".join(path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py"))
    for variable in re.findall(r"COFINAL_[A-Z_]+", document.read_text()):
        assert variable in source


# --- tables that say what the program has ---------------------------------------------------------------------------


def test_recipes_and_backbones_are_those_of_the_program() -> None:
    document = ROOT / "docs/extraction.md"
    (rows,) = first_cells(document, "Recipes")
    assert flat(rows) == list(RECIPES)
    text = document.read_text()
    for recipe in RECIPES.values():
        sides = {"shorter": f"shorter side {recipe.resize}", "height": f"height {recipe.resize}"}
        resize = sides.get(recipe.resize_side) or "{} x {}".format(*recipe.resize)
        sizes = f"{resize} | {recipe.crop[0]} x {recipe.crop[1]} | {recipe.size[0]} x {recipe.size[1]}"
        timeline = f"at {recipe.fps:g} a second" if recipe.fps else f"of the last {recipe.last_frames}"
        assert f"| `{recipe.name}` | {recipe.clip_frames} {timeline} | {sizes} |" in text
        assert recipe.antialias == (list(RECIPES).index(recipe.name) < 5)
    (rows,) = first_cells(document, "Backbones and weights")
    assert set(flat(rows)) == {*CATALOGUE, *ALIASES}
    assert f"There are {len(CATALOGUE)} backbones" in README.read_text()


def test_python_functions_take_the_options_of_the_commands(parser_of: Callable[[list[str]], Any]) -> None:
    renamed = {
        "train_head": {
            "target": "targets",
            "action": "actions",
            "range": "ranges",
            "panel": "panels",
            "sum": "sums",
            "set": "settings",
        },
        "score_videos": {"range": "ranges", "panel": "panels", "sum": "sums"},
    }
    of_the_command_alone = {"--help", "--version", "-h", "--json", "--debug", "--verify"}
    for script in ("extract-features", "train-head", "score-video"):
        name = {"score-video": "score_videos"}.get(script, script.replace("-", "_"))
        parser = parser_of([script])
        positive = {option for parameter in parser.params for option in parameter.opts if option.startswith("--")}
        keywords = {option[2:].replace("-", "_") for option in positive - of_the_command_alone}
        keywords = {renamed.get(name, {}).get(keyword, keyword) for keyword in keywords}
        parameters = inspect.signature(getattr(cofinal, name)).parameters
        assert keywords == parameters.keys() - {"videos", "store", "on_score"}
    assert inspect.signature(cofinal.train_head).parameters["set_default"].default is False


def test_fields_of_results_are_those_of_the_program() -> None:
    document = ROOT / "docs/python.md"
    results = {"extract_features": ExtractionSummary, "train_head": TrainingResult, "score_video": ScoringResult}
    for heading, result in results.items():
        (rows,) = first_cells(document, heading)
        assert set(flat(rows)) == {field.name for field in fields(result)}
    top, _, evidence = first_cells(ROOT / "docs/scoring.md", "The JSON")
    assert set(flat(top)) == {"format", *(field.name for field in fields(Score))}
    assert set(flat(evidence)) == {field.name for field in fields(TargetEvidence)}


# --- what is run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """How a command line went."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[[str], Ran]:
    """Return what runs a line of a document that names a console script, in the current folder."""

    def ran(line: str) -> Ran:
        words = shlex.split(line, comments=True)
        monkeypatch.setattr(sys, "argv", words)
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            pkgutil.resolve_name(SCRIPTS[words[0]])()
        said = capfd.readouterr()
        return Ran(int(end.value.code or 0), said.out, said.err)

    return ran


def write_video(path: Path, seed: int) -> None:
    """Write a video of 1.4 seconds, a pattern that moves."""
    pattern = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for shift in range(35):
            image = np.roll(pattern, shift * (seed + 1), axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def judged_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder as the README wants it: `videos`, their scores in `videos/labels.csv`, and `routine.mp4`."""
    (tmp_path / "videos").mkdir()
    for seed in range(10):
        write_video(tmp_path / f"videos/routine{seed:02}.mp4", seed)
    header = next(block for block in code_blocks(README) if block.startswith("video,")).splitlines()[0]
    rows = [f"routine{seed:02}.mp4,{20 + seed}" for seed in range(10)]
    (tmp_path / "videos/labels.csv").write_text("\n".join([header, *rows]) + "\n")
    write_video(tmp_path / "routine.mp4", 10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_user_reaches_a_score_by_the_three_commands_and_again_from_python(
    run: Callable[[str], Ran], judged_videos: Path, capfd: pytest.CaptureFixture
) -> None:
    three = next(block for block in code_blocks(README) if block.startswith("extract-features")).splitlines()
    assert [line.split()[0] for line in three] == ["extract-features", "train-head", "score-video"]
    for line in three:
        ran = run(line)
        assert ran.code == 0, ran.err
    assert ran.out.startswith("routine.mp4")
    assert "coarse grade" in ran.out

    verdict = json.loads(run("score-video routine.mp4 --json").out)
    top, of_target, _ = first_cells(ROOT / "docs/scoring.md", "The JSON")
    assert set(flat(top)) == set(verdict)
    documented = {row[0]: set(row[1:]) for row in of_target}
    target = verdict["targets"]["score"]
    assert set(documented) == set(target)

    cells = code_blocks(ROOT / "docs/python.md", "python")
    space: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, "docs/python.md", "exec"), space)
    printed = capfd.readouterr().out.splitlines()
    assert printed[0] == "0 extracted, 10 done before, 0 failed"
    assert space["trained"].head == Path("head.safetensors")
    assert f"score: {space['score'].targets['score'].score:.2f} points" in "\n".join(printed)
    assert "routine00 (1, 1024)" in printed
    assert any(line.split()[1:3] == ["head", "score"] for line in printed)  # of the table of results


@pytest.fixture
def club_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with `features` and with `cup.csv`, whose header and first row are those of training.md."""
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    block = next(block for block in code_blocks(ROOT / "docs/training.md") if block.startswith("Clip;"))
    header, first = block.splitlines()
    lines = [header, first]
    for number in range(1, 13):
        features = np.random.default_rng(number).standard_normal((20, 64)).astype(np.float32)
        np.save(f"features/{number:03}.npy", features)
        if number > 1:
            penalty = number % 2 / 2
            scores = [4 + number / 10, *(7 + number / 20 + judge / 10 for judge in range(4)), penalty]
            total = scores[0] + 7 + number / 20 + 0.15 - penalty  # the middle two of the marks
            numbers = ";".join(f"{score:.2f}".replace(".", ",") for score in (*scores, total))
            lines.append(f"{number:03}.mp4;A{number};03.02.2024;{numbers}")
    Path("cup.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_club_reaches_a_first_head_from_its_table(run: Callable[[str], Ran], club_table: Path) -> None:
    blocks = code_blocks(ROOT / "docs/training.md")
    command = next(
        line for block in blocks for line in block.splitlines() if line.startswith("train-head features/ --dataset csv")
    )
    ran = run(f"{command} --epochs 1 --folds 3")
    assert ran.code == 0, ran.err
    shown = next(block for block in blocks if block.startswith("table: cup.csv")).splitlines()
    assert [line for line in ran.err.splitlines() if line in shown] == shown
    assert "Execution: one judge of 4 against the others" in ran.out
    assert run("score-video features/001.npy --head club.safetensors").code == 0


def test_lines_that_make_tables_of_other_datasets_give_tables_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On made-up files of the form that the datasets' descriptions and loaders have."""
    monkeypatch.chdir(tmp_path)
    keys = {"train": [("Cup", 1), ("Cup", 2)], "test": [("Cup", 3)]}
    for part, of_part in keys.items():
        Path(f"{part}_split.pkl").write_bytes(pickle.dumps(of_part, protocol=3))
        listed = np.array([[sport, len(of_part), 60.5] for sport in range(1, 8)])
        scipy.io.savemat(f"split_4_{part}_list.mat", {f"consolidated_{part}_list": listed})
    dives = {key: ["107B", 80.5, 3.1, np.array([3, 7])] for of_part in keys.values() for key in of_part}
    Path("fine-grained_annotation_aqa.pkl").write_bytes(pickle.dumps(dives, protocol=3))
    swims = {key: ["tech", 90.25, 0.0, [76, 141], [12, 12]] for key in dives}
    Path("anno_dict.pkl").write_bytes(pickle.dumps(swims, protocol=3))
    for name in ("train_fs800.txt", "val_fs800.txt"):
        Path(name).write_text(f"{name[:3]}_A 30.5 28 7 7.25 7 7 7 0.8\n")
    Path("annotation").mkdir()
    for number in (0, 1166):
        elements = {"element1": {"score_of_pannel": 9.5}, "element2": {"score_of_pannel": 4}}
        programme = {"executed_element": elements, "total_program_component_score(factored)": 38.2}
        Path(f"annotation/{number}.json").write_text(json.dumps(programme))

    cells = code_blocks(ROOT / "docs/training.md", "python")
    for cell in cells:
        exec(compile(cell, "docs/training.md", "exec"), {})
    expected = {"finediving": ("score",), "logo": ("score",), "aqa7": ("score",), "finefs": ("TES", "PCS"),
                "fs1000": ("TES", "PCS", "SS", "TR", "PE", "CO", "IN")}  # fmt: skip
    assert len(cells) == len(expected)
    for name, targets in expected.items():
        labels = read_labels("csv", [Path(f"{name}.csv")])
        assert labels.targets == targets
        assert {row.split for row in labels.rows} <= {None, "train", "test"}
    assert read_labels("csv", [Path("finefs.csv")]).rows[0].scores == {"TES": 13.5, "PCS": 38.2}


def test_the_new_head_of_development_trains_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEAD_TYPES, "linear", None)  # so that the example's own entry is taken out again
    (cell,) = code_blocks(ROOT / "docs/development.md", "python")
    exec(compile(cell, "docs/development.md", "exec"), {"__name__": "linear"})
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    for number in range(8):
        np.save(f"features/v{number}.npy", np.random.default_rng(number).normal(number, 1, (5, 8)).astype(np.float32))
    Path("labels.csv").write_text("video,score\n" + "".join(f"v{number},{number}.5\n" for number in range(8)))
    trained = train_head("features", "csv", head_type="linear", epochs=2, folds=2, out="h.safetensors")
    assert trained.results["training"]["head_type"] == "linear"
    verdict = score_video("features/v1.npy", "h.safetensors").targets["score"]
    assert verdict.fine is None
    assert verdict.coarse.span[0] <= verdict.score <= verdict.coarse.span[1]


def test_the_list_of_backbones_is_as_shown(run: Callable[[str], Ran]) -> None:
    """But for the last column, which says what this machine has."""
    shown = shown_output(ROOT / "docs/extraction.md", "list-backbones")
    printed = run("list-backbones").out.splitlines()
    assert [line.split()[:-1] for line in printed] == [line.split()[:-1] for line in shown]


@pytest.mark.slow
@pytest.mark.shared
def test_classes_are_as_shown(
    run: Callable[[str], Ran], shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "videos").symlink_to(shared / "videos")
    monkeypatch.chdir(tmp_path)
    command = "extract-features videos/action out/ --classes"
    for line, shown in zip(run(command).out.splitlines(), shown_output(README, command), strict=True):
        assert line.rsplit(" ", 1)[0] == shown.rsplit(" ", 1)[0]
        assert float(line.rsplit(" ", 1)[1]) == pytest.approx(float(shown.rsplit(" ", 1)[1]), abs=0.01)


@pytest.mark.slow
@pytest.mark.shared
def test_scores_of_the_demos_head_are_as_shown(
    run: Callable[[str], Ran], shared: Path, demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo runs; then the same lines come, their numbers within half a point, as processors differ."""
    (tmp_path / "demo").symlink_to(demo_folder)
    shutil.copy(shared / "videos/action/juggling_soccer_ball.mp4", tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = [line for document in (README, ROOT / "docs/scoring.md") for line in commands(document)]
    of_the_demo = [line for line in shown if "--head demo/head.safetensors" in line]
    assert len(of_the_demo) == 3
    for command in of_the_demo:
        document = README if command in commands(README) else ROOT / "docs/scoring.md"
        ran = run(command)
        assert ran.code == 0, ran.err
        expected = {line.rstrip() for line in shown_output(document, command)} - {"", "..."}
        printed = [line.rstrip() for line in (ran.out + ran.err).splitlines()]
        for line in expected:
            assert any(is_like(line, other) for other in printed), line


def is_like(line: str, other: str) -> bool:
    """Whether two lines have the same words, and numbers that differ by half a point at most."""
    number = r"-?\d+(?:\.\d+)?"
    if re.sub(number, "#", line).split() != re.sub(number, "#", other).split():
        return False
    pairs = zip(re.findall(number, line), re.findall(number, other), strict=True)
    return all(abs(float(a) - float(b)) <= 0.5 for a, b in pairs)
