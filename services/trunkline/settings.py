"""Settings: a flag, else the environment, else `trunkline.yaml`, else the default. Only this reads the environment."""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert, field
from trunkline_events.registry import Price

from trunkline.prices import BadPrice, read_ceiling, read_prices

Durability = Literal["always", "process"]
Port = Annotated[int, Meta(ge=0, le=65535)]

DEFAULT_NATS_PORT = 4222
DEFAULT_HTTP_PORT = 4000
FILE = "trunkline.yaml"

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")


class BadSettings(Exception):
    """A setting can't be used. The message names it and says where it came from."""


class Settings(Struct, frozen=True, kw_only=True):
    """What a process is started with. `nats` None: an embedded server, with its data in `data`.

    `prices`, by `kind/upstream`, come before the catalogue's; `price_ceiling` is what an unknown price is taken for.
    `routing_override` is the model that the routers of this process send every request to. `catalogue` is a file of
    models that may be registered by name, on top of those shipped. `require_keys`: the bus
    asks for API keys; None: where it is not on this machine. `unlock_file` holds what opens the vault.
    """

    nats: str | None = None
    data: Path = Path()
    nats_port: Port = DEFAULT_NATS_PORT
    http_host: str = "127.0.0.1"
    http_port: Port = DEFAULT_HTTP_PORT
    durability: Durability = "always"
    workers: Annotated[int, Meta(ge=0, le=64)] = 0
    replicas: int = 1
    require_keys: bool | None = None
    projector: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    prices: dict[str, Price] = field(default_factory=dict)
    price_ceiling: Price | None = None
    routing_override: str | None = None
    unlock_file: Path | None = None
    catalogue: str | None = None
    imports: list[str] = field(default_factory=list)
    """Modules with workflows, that a process of the role `workflow` knows; in the environment with commas between."""
    otlp: str | None = None
    """Where traces and metrics go, such as `http://localhost:4318`; None: where OTEL_… say, or nowhere."""
    trace_upstream: Literal["none", "local", "all"] = "local"
    """Which providers are told the trace that a call belongs to: by default those that are marked as local."""


def _read_names(given: object) -> object:
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given


_NAMES = Settings.__struct_fields__
_READ: dict[str, Callable[[object], object]] = {
    "prices": read_prices,
    "price_ceiling": read_ceiling,
    "imports": _read_names,
}
"""Settings with a shape of their own."""


def default_data(environ: Mapping[str, str]) -> Path:
    """Where data lies unless told otherwise: the user's own data folder, never a temporary one."""
    home = environ.get("XDG_DATA_HOME") or str(Path("~/.local/share").expanduser())
    return Path(home) / "trunkline"


def keeps_data(settings: Settings, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody has chosen a folder for data, which a process on a bus of others then may keep something in."""
    return settings.data != default_data(environ)


def load(flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force. `flags` holds what was given on the command line; absent and None mean not given.

    Raises BadSettings.
    """
    path = flags.get("config") or environ.get("TRUNKLINE_CONFIG")
    merged: dict[str, Any] = {"data": str(default_data(environ))}
    origins: dict[str, str] = {}
    for origin, given in (
        (str(path or FILE), _from_file(path, environ)),
        ("the environment", {name: environ.get(f"TRUNKLINE_{name.upper()}") or None for name in _NAMES}),
        ("the command line", {name: flags.get(name) for name in _NAMES}),
    ):
        chosen = {name: value for name, value in given.items() if value is not None}
        merged |= chosen
        origins |= dict.fromkeys(chosen, origin)
    for name in _READ.keys() & merged.keys():
        try:
            merged[name] = _READ[name](merged[name])
        except BadPrice as error:
            raise BadSettings(f"{name} from {origins[name]}: {error}") from error
    for name in ("data", "unlock_file"):
        if name in merged:
            merged[name] = Path(str(merged[name])).expanduser().absolute()
    try:
        return convert(merged, Settings, strict=False)
    except ValidationError as error:
        problem, _, field = str(error).partition(" - at `$.")
        name = field.rstrip("`")
        raise BadSettings(
            f"{name} = {merged.get(name)!r} from {origins.get(name)}: {problem}; see `trunkline up --help`"
        ) from error


def _from_file(path: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    chosen = Path(path or FILE)
    if not chosen.exists():
        if path:
            raise BadSettings(f"there is no file {path}; give another one with --config")
        return {}
    import yaml

    try:
        loaded = yaml.safe_load(expand(chosen.read_text(encoding="utf-8"), environ))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{chosen} can't be read: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadSettings(f"{chosen} must hold settings by name, like `durability: always`")
    unknown = sorted(set(map(str, loaded)) - set(_NAMES))
    if unknown:
        raise BadSettings(f"{chosen}: {unknown[0]!r} is not a setting; there are {', '.join(_NAMES)}")
    return loaded


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace `${NAME}` and `${NAME:default}`. Raises BadSettings for a name that is neither set nor has a default."""

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = environ.get(name, default)
        if found is None:
            raise BadSettings(f"${{{name}}} is not set; set it, or write ${{{name}:default}}")
        return found

    return _REFERENCE.sub(value, text)


def secret(reference: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The secret that a reference such as `env:OPENAI_API_KEY` names; None where there is none."""
    if reference is None:
        return None
    kind, _, name = reference.partition(":")
    return environ.get(name) if kind == "env" else None


def has_environment(name: str) -> bool:
    """Whether the environment has a non-empty value of this name."""
    return bool(os.environ.get(name))


def client_url(environ: Mapping[str, str] = os.environ) -> str:
    """Where a client connects unless told otherwise."""
    return environ.get("TRUNKLINE_NATS") or f"nats://127.0.0.1:{DEFAULT_NATS_PORT}"


def client_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """The API key a client sends unless told otherwise."""
    return environ.get("TRUNKLINE_KEY") or None


def peer_command(name: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """How `trunkline bench --only peers` starts another gateway: TRUNKLINE_BENCH_<NAME>, with arguments; or nothing."""
    return shlex.split(environ.get(f"TRUNKLINE_BENCH_{name.upper()}", ""))


def opentelemetry(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """OpenTelemetry's own variables, those that are set to something."""
    return {name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()}


SQLITE = "eventsourcing.sqlite"
POSTGRES = "eventsourcing.postgres"
_POSTGRES_NEEDS = ("POSTGRES_DBNAME", "POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_PASSWORD")


def persistence(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Where read models are kept, by the eventsourcing library's own names: PERSISTENCE_MODULE and POSTGRES_….

    Raises BadSettings.
    """
    module = environ.get("PERSISTENCE_MODULE") or SQLITE
    if module not in (SQLITE, POSTGRES):
        raise BadSettings(f"PERSISTENCE_MODULE = {module!r}: read models are kept by {SQLITE} or {POSTGRES}")
    if module == SQLITE:
        return {"PERSISTENCE_MODULE": module}
    missing = [name for name in _POSTGRES_NEEDS if name not in environ]
    if missing:
        raise BadSettings(f"PERSISTENCE_MODULE = {module!r} needs {', '.join(missing)} too; set it in the environment")
    chosen = {name: value for name, value in environ.items() if name.startswith("POSTGRES_")}
    schema = chosen.setdefault("POSTGRES_SCHEMA", "trunkline")
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,50}", schema) or schema == "public":
        raise BadSettings(
            f"POSTGRES_SCHEMA = {schema!r}: read models need a schema of their own, replaced as a whole by a rebuild; "
            "give it a name of lower-case letters, digits and _, such as trunkline"
        )
    return {"PERSISTENCE_MODULE": module, **chosen}
