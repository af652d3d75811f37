"""The repository tests itself: imports run one way, names are what they seem, docs are true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import wwfunc

PACKAGES = ("wwfunc", "loaders")
FLOORS = [
    {"errors", "dtypes", "status", "plain", "provenance", "columns.column"},
    {f"columns.{n}" for n in ("identity", "fits", "trust", "sizes", "scale", "ending")}
    | {"columns.change", "columns.randommatrix", "files"}
    | {"comparison.rankcorrelation"},
    {"columns", "checkpoint", "checks", "precision", "layers.names", "layers.coverage", "cli.text"},
    {"options", "pytrees", "lowrank", "matrices", "opening", "layers.layer", "layers.rules"},
    {"spectrum", "sources", "layers.find", "layers.select", "layers.views", "fits.expintegral"}
    | {"comparison.matrixdistances", "comparison.layouts"}
    | {"keys", "localization", "randommatrix.tracywidom", "randommatrix.density"}
    | {"trust.bisection", "trust.likelihoodratio"},
    {"comparison.pairing", "comparison.biases", "comparison.distancerecords"}
    | {"host", "levels", "crosslayer", "saving", "fits.tail", "fits.truncatedlikelihood"}
    | {f"randommatrix.{n}" for n in ("kernelfit", "noisefit", "randomised", "randomvectors")}
    | {"randommatrix.permutation", "randommatrix.tracelog", "transforms.handles"},
    {"comparison.differences", "comparison.intruders", "comparison.spectraldistances"}
    | {"fits.fingers", "fits.ksdistance", "trust.lognormal", "trust.stretched", "convolution"}
    | {"randommatrix.marchenkopastur", "randommatrix.shuffling", "trust.randomspectra"},
    {"comparison.change", "comparison.tasks", "comparison.twomodels"}
    | {"fits.nearest", "fits.truncatedks", "fits.hillestimator", "trust.resampling"}
    | {"randommatrix.spikes", "randommatrix.slices"},
    {"fits.powerlaw", "fits.truncated", "randommatrix.traps"},
    {"fits.submatrices", "trust.alternatives", "trust.bootstrapping", "trust.goodness"}
    | {"transforms.sharpening"},
    {"metrics", "trust.null"},
    {"softranks", "vectors", "trust.statistics"},
    {"measures", "spectra", "randommatrix.gaussianranks"},
    {"extras", "trust.verdict"},
    {"records", "onelayer"},
    {"document", "execution"},
    {"analysis", "transforms.smoothing"},
    {"tables", "pipeline"},
    {"comparison.labelled"},
    {"transforms.models", "comparison.manymodels", "cli.arguments", "cli.common"},
    {"cli.parser", "cli.show"},
    {"cli.analyze", "cli.describe", "cli.transform", "cli.compare", "cli.distances"},
    {"cli"},
    {"__main__"},
]
"""From the ground up: a module imports from floors under its own alone."""

ROOMS = {"layers", "fits", "trust", "randommatrix", "transforms", "comparison"}
"""Folders that hold modules and nothing else."""

HEAVY = ["jax", "torch", "tensorflow", "keras", "flax", "h5py", "matplotlib", "pandas"]


def modules(package: str) -> dict[str, Path]:
    root = REPOSITORY / package
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


def imported(path: Path, package: str) -> set[str]:
    """Modules of `package` that a file imports, at its top or inside a function."""
    known = modules(package)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            inside = node.module.removeprefix(package).lstrip(".")
            below = {f"{inside}.{alias.name}".lstrip(".") for alias in node.names}
            found |= (below & set(known)) or {inside}
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            found |= {n.removeprefix(f"{package}.") for n in names if n.startswith(f"{package}.")}
    return found


def test_imports_run_one_way():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    own = {n: p for n, p in modules("wwfunc").items() if n not in {"__init__", *ROOMS}}
    assert set(own) == set(floor), "every module has a floor"
    for name, path in own.items():
        for below in imported(path, "wwfunc") - ROOMS:
            assert floor[below] < floor[name], f"{name} imports {below}"


def test_loaders_know_files_and_no_statistics():
    for name, path in modules("loaders").items():
        assert imported(path, "wwfunc") <= {"checkpoint", "dtypes", "errors", "files", "lowrank"}, (
            name
        )
        source = path.read_text()
        assert "from loaders" not in source, f"{name}: relative imports, the package is renamed"


def test_nothing_reaches_for_loaders():
    for name, path in modules("wwfunc").items():
        assert not re.search(r"^\s*(import|from) loaders", path.read_text(), re.M), name


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_a_module(package):
    names = {n.split(".")[0] for n in modules(package)}
    public = set(__import__(package).__all__)
    assert not names & public


def test_public_names_are_one_list():
    assert wwfunc.__all__ == sorted(wwfunc.__all__, key=lambda n: (not n.isupper(), n))
    assert set(wwfunc.__all__) == set(wwfunc._HOMES)
    tree = ast.parse((REPOSITORY / "wwfunc" / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in guarded.body for alias in node.names}
    assert typed == set(wwfunc.__all__)
    for name in wwfunc.__all__:
        assert getattr(wwfunc, name).__doc__, name


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_imports_nothing_heavy(package):
    code = f"import sys, {package}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_table_needs_no_pandas(digits_path, tmp_path):
    heavy = [name for name in HEAVY if name != "jax"]
    code = f"""
import sys, wwfunc
from wwfunc.tables import write_table
analysis = wwfunc.analyze({str(digits_path)!r}, layers="head")
write_table(analysis, {str(tmp_path / "x.csv")!r})
write_table(analysis, {str(tmp_path / "x.json")!r})
assert [m for m in {heavy} if m in sys.modules] == []
wwfunc.describe({str(digits_path)!r}).details
assert "pandas" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_describing_needs_no_jax(digits_path):
    code = f"""
import sys, wwfunc
wwfunc.describe({str(digits_path)!r})
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_library_never_prints():
    for package in PACKAGES:
        for name, path in modules(package).items():
            if not name.startswith("cli"):
                assert not re.search(r"^ *print\(", path.read_text(), re.M), name


def test_columns_page_is_what_the_code_says():
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        import write_columns
    finally:
        sys.path.pop(0)
    assert write_columns.PAGE.read_text() == write_columns.page(), "make columns"


def test_every_rule_is_documented():
    from wwfunc.layers.rules import RULES

    page = (REPOSITORY / "docs" / "layers.md").read_text()
    for rule in (*(rule.__name__ for rule in RULES), "hint", "tied"):
        assert f"`{rule}`" in page, rule


def test_every_module_is_in_the_architecture():
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    for name in modules("wwfunc"):
        word = name.split(".")[0] if name.startswith("cli") else name.split(".")[-1]
        assert word in ("__init__", "__main__") or word in page, name


# The README -----------------------------------------------------------------------------------

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_readme_python_runs():
    source = "\n".join(blocks("python"))
    subprocess.run([sys.executable, "-W", "error", "-c", source], cwd=REPOSITORY, check=True)


def test_readme_shows_what_the_command_prints():
    shown = blocks("text")[0].splitlines()
    assert shown[0].startswith("$ wwfunc ")
    command = [sys.executable, "-m", *shown[0].split()[1:]]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert [line.rstrip() for line in done.stdout.splitlines()] == shown[1:]


def test_readme_commands_are_make_targets():
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", "\n".join(blocks("sh")), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_readme_links_lead_somewhere():
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (REPOSITORY / link).exists(), link


def test_every_limit_and_format_is_documented():
    import loaders

    page = (REPOSITORY / "docs" / "formats.md").read_text()
    for limit, value in vars(loaders.Budget()).items():
        words = f"{value >> 20} MiB" if value >= 1 << 20 and not value % (1 << 20) else f"{value:,}"
        assert f"| `{limit}` | {words} |" in page
    assert set(loaders.FORMATS) <= set(re.findall(r"`([\w-]+)`", page))
