"""A real inference engine for tests: llama.cpp's server with a model made on the spot. A pytest plugin.

`pytest_plugins = ["engine"]` in a test module gives it the fixture `engine`; without the packages of the extra
`engine` (`pip install xllamacpp gguf numpy`) the tests that ask for it are
skipped. Never import it yourself: pytest refuses a plugin that is imported already.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from upstream import free_port

_HERE = Path(__file__).parent / "llamacpp"
_NEEDED = ("xllamacpp", "gguf", "numpy")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running llama.cpp server, without `/v1`. Its model is `tiny`."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"a real engine needs: pip install {' '.join(missing)}")
    model = tmp_path_factory.mktemp("engine") / "tiny.gguf"
    subprocess.run([sys.executable, _HERE / "make_model.py", model], check=True, capture_output=True)
    command: list[str | Path] = [sys.executable, _HERE / "serve.py", model, str(free_port()), _HERE / "template.jinja"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            line = next((line for line in server.stdout if line.startswith("listening ")), "")
            assert line, f"llama.cpp ended with {server.wait()}"
            yield line.split()[1]
        finally:
            server.terminate()
