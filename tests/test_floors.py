"""Imports go down the floors only, so that every room can be read without the rooms above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "speak"

# The first match names the floor; a folder's modules may import each other sideways.
FLOORS = {
    "speak.errors": 0,
    "speak.version": 0,
    "speak.config": 0,
    "speak.config_animate": 0,
    "speak.config_models": 0,
    "speak.config_training": 0,
    "speak.allocator": 0,
    "speak.precision": 0,
    "speak.ops": 0,
    "speak.media": 0,
    "speak.models": 1,
    "speak.synthetic": 1,
    "speak.datasets": 2,
    "speak.losses": 2,
    "speak.metrics": 2,
    "speak.foreign_weights": 2,
    "speak.checkpoint": 2,
    "speak.shipped": 2,
    "speak.safetensors": 2,
    "speak.foreign_pickles": 2,
    "speak.foreign_wav2vec2": 2,
    "speak.train": 3,
    "speak.prepare": 3,
    "speak.animate": 3,
    "speak.adapt": 3,
    "speak.clip_generation": 3,
    "speak.batch_file": 3,
    "speak.drivers": 3,
    "speak.generation": 3,
    "speak.pose_tables": 3,
    "speak.speech": 3,
    "speak.disentanglement": 3,
    "speak.disentanglement_exchanges": 3,
    "speak.disentanglement_probes": 3,
    "speak.evaluate": 3,
    "speak.evaluate_ablations": 3,
    "speak.evaluate_clips": 3,
    "speak.evaluate_instruments": 3,
    "speak.evaluate_page": 3,
    "speak.evaluate_pairs": 3,
    "speak.evaluate_report": 3,
    "speak.evaluate_sync": 3,
    "speak.bench": 4,
    "speak.bench_animate": 4,
    "speak.bench_data": 4,
    "speak.bench_ops": 4,
    "speak.bench_train": 4,
    "speak.doctor": 4,
    "speak.cli": 4,
    "speak.__main__": 4,
    "speak": 4,
}
# Seen by every room: they import nothing of the project but each other.
BASEMENT = {
    "speak.errors", "speak.version", "speak.config", "speak.config_animate", "speak.config_models",
    "speak.config_training",
}  # fmt: skip


def room_of(module: str) -> str:
    """The entry of FLOORS that `module` belongs to."""
    return next(room for room in FLOORS if module == room or (room != "speak" and module.startswith(room + ".")))


def modules() -> list[str]:
    paths = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def imports_of(module: str) -> set[str]:
    path = PACKAGE.parent / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the floor"
            names = {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "speak" else {node.module}
            found |= {name for name in names if name and name.split(".")[0] == "speak"}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "speak"}
    return found


@pytest.mark.parametrize("module", modules())
def test_every_import_goes_down_or_stays_in_the_room(module: str) -> None:
    room = room_of(module)
    for imported in imports_of(module):
        other = room_of(imported)
        allowed = other in BASEMENT or other == room or FLOORS[other] < FLOORS[room]
        if FLOORS[room] >= 2 and FLOORS[other] == FLOORS[room]:
            allowed = True  # rooms on floors 2 to 4 are neighbours: a loss may use a metric, evaluate may use animate
        assert allowed, f"{module} (floor {FLOORS[room]}) imports {imported} (floor {FLOORS[other]})"


def test_the_code_is_clean() -> None:
    """ruff, with the rules of pyproject.toml."""
    pytest.importorskip("ruff", reason="ruff is in the test extra")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", str(PACKAGE.parent)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
