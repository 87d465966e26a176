"""What Ollama says about its models: /api/tags, /api/ps, /api/show and the progress of /api/pull. Pure."""

from typing import Any

import msgspec
from msgspec import Struct, structs
from trunkline_events.failure import FailureClass, UpstreamError

from trunkline_actors.adapters.faults import upstream_error
from trunkline_actors.adapters.json_lines import LineCutter
from trunkline_actors.adapters.management import PullProgress
from trunkline_actors.adapters.ollama_wire import failure_of
from trunkline_actors.managed import Described, LocalModel

_MALFORMED = (ValueError, RecursionError)
_MOST_FILES = 1_000
"""A model is of a dozen files or so."""
_FEATURES = {"tools": "tools", "vision": "vision", "thinking": "thinking", "embedding": "embeddings"}


class _Details(Struct):
    family: str | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None


class _Model(Struct):
    name: str = ""
    model: str = ""
    digest: str | None = None
    size: int | None = None
    modified_at: str | None = None
    details: _Details | None = None
    size_vram: int | None = None
    expires_at: str | None = None


class _Models(Struct):
    models: list[_Model] | None


class _Shown(Struct):
    model_info: dict[str, Any] | None = None
    capabilities: list[str] | None = None
    details: _Details | None = None


class _Progress(Struct):
    status: str | None = None
    digest: str | None = None
    total: int | None = None
    completed: int | None = None
    error: Any = None


# What a registry says of a name that it has not, as Ollama passes it on.
_NO_SUCH = ("file does not exist", "manifest unknown", "not found")

_decode_models = msgspec.json.Decoder(_Models).decode
_decode_shown = msgspec.json.Decoder(_Shown).decode
_decode_progress = msgspec.json.Decoder(_Progress).decode


def read_models(tags: bytes, running: bytes | None) -> list[LocalModel]:
    """The models there are, by name, and which are loaded; `running` None: nobody knows. Raises UpstreamError."""
    loaded = {} if running is None else {one.model or one.name: one for one in _models(running)}
    found = [_local(one, loaded.get(one.model or one.name)) for one in _models(tags)]
    return sorted(found, key=lambda one: one.model)


def read_described(body: bytes) -> Described:
    """What /api/show tells. Raises UpstreamError."""
    try:
        shown = _decode_shown(body)
    except _MALFORMED as error:
        raise upstream_error(FailureClass.INTERNAL, "upstream sent no description of a model", 200) from error
    # Named by the architecture: `qwen3.context_length`.
    lengths = (value for name, value in (shown.model_info or {}).items() if name.endswith(".context_length"))
    window = next((value for value in lengths if isinstance(value, int) and value > 0), None)
    able = shown.capabilities or []
    features = {_FEATURES[name] for name in able if name in _FEATURES}
    if "completion" in able:
        features.add("json_schema")  # which the engine holds the answer of any model to
    return Described(context_window=window, features=sorted(features))


class PullReader:
    """Reads the lines of a pull: bytes in, progress out. `done` says that upstream said `success`."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        self.done = False
        self._secrets = secrets
        self._lines = LineCutter()
        self._files: dict[str, tuple[int, int]] = {}

    def feed(self, data: bytes) -> list[PullProgress]:
        """The progress these bytes tell of. Raises UpstreamError where it is an error, or nothing that can be read."""
        return [self._read(line) for line in self._lines.feed(data) if line.strip()]

    def finish(self) -> list[PullProgress]:
        """What is left, now that the bytes have ended. Raises UpstreamError where that was no end."""
        rest = self._lines.finish()
        left = [self._read(rest)] if rest.strip() else []
        if not self.done:
            raise upstream_error(FailureClass.CONNECTION, "upstream broke the pull off: it never said success", 200)
        return left

    def _read(self, line: bytes) -> PullProgress:
        try:
            said = _decode_progress(line)
        except _MALFORMED as error:
            raise upstream_error(FailureClass.INTERNAL, "upstream sent no progress of a pull", 200) from error
        if said.error is not None:
            failure = failure_of(200, {}, line, secrets=self._secrets)
            if any(words in str(said.error) for words in _NO_SUCH):
                failure = structs.replace(failure, kind=FailureClass.MODEL_NOT_FOUND)
            raise UpstreamError(failure)
        if said.digest and said.total is not None:
            before = self._files.get(said.digest, (0, 0))[1]
            self._files[said.digest] = (said.total, max(said.completed or 0, before))
            if len(self._files) > _MOST_FILES:
                message = f"upstream named more than {_MOST_FILES} files of one model"
                raise upstream_error(FailureClass.INTERNAL, message, 200)
        if said.status == "success":
            self.done = True
            self._files = {name: (total, total) for name, (total, _) in self._files.items()}
        return PullProgress(
            status=said.status or "",
            total_bytes=sum(total for total, _ in self._files.values()),
            completed_bytes=sum(completed for _, completed in self._files.values()),
        )


def full_name(model: str) -> str:
    """A name with its tag: Ollama takes `latest` where there is none. What stands before a slash may have a port."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _models(body: bytes) -> list[_Model]:
    try:
        return _decode_models(body).models or []
    except _MALFORMED as error:
        raise upstream_error(FailureClass.INTERNAL, "upstream sent no list of models", 200) from error


def _local(one: _Model, loaded: _Model | None) -> LocalModel:
    details = one.details or _Details()
    return LocalModel(
        model=one.model or one.name,
        digest=(one.digest or "").removeprefix("sha256:"),
        size_bytes=one.size,
        family=details.family or "",
        parameters=details.parameter_size or "",
        quantization=details.quantization_level or "",
        modified_at=one.modified_at,
        loaded=loaded is not None,
        memory_bytes=loaded.size_vram if loaded else None,
        expires_at=loaded.expires_at if loaded else None,
    )
