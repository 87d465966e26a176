"""A mock of many providers that none of us wrote: `aimock`, from npm. A pytest plugin.

`pytest_plugins = ["aimock"]` in a test module gives it the fixture `aimock`, the origin of a server that answers as
`FIXTURES` says and refuses whatever they don't name. It needs Node, and what `make test` installs for it (see
tests/package.json); without those the tests that ask for it are skipped. Never import it yourself: pytest refuses a
plugin that is imported already.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

_CLI = Path(__file__).parent.parent / ".venv/node/node_modules/@copilotkit/aimock/dist/cli.js"
_TEXT = {"content": "Hello from a mock; café ☃ 🌍 done."}
_CALLS = [
    {"id": "call_a", "name": "weather", "arguments": {"city": "Oslo"}},
    {"id": "call_b", "name": "weather", "arguments": {"city": "Rome"}},
]


def _fixture(match: Mapping[str, object], response: Mapping[str, object], **more: object) -> dict[str, Any]:
    return {"match": match, "response": response, **more}


# What it answers, by the last message; the first that matches is taken. `embeddings` match by their input.
FIXTURES = [
    _fixture({"toolCallId": "call_b", "toolResultContains": "sun"}, {"content": "Rain and sun."}),
    _fixture({"userMessage": "brief", "systemMessage": "Be brief."}, {"content": "Yes."}),
    _fixture({"userMessage": "plain", "model": "theirs"}, _TEXT),
    _fixture({"userMessage": "think"}, {"content": "It is 4.", "reasoning": "Let me see."}),
    _fixture({"userMessage": "tools", "toolName": "weather"}, {"toolCalls": _CALLS}),
    _fixture({"userMessage": "long"}, {"content": "Hello fr", "finishReason": "length"}),
    _fixture({"userMessage": "cut"}, _TEXT, truncateAfterChunks=2),
    _fixture({"userMessage": "slow"}, _TEXT, latency=30_000),
    _fixture(
        {"userMessage": "busy"},
        {
            "error": {"message": "no", "type": "rate_limit_error", "code": "rate_limited"},
            "status": 429,
            "retryAfter": 7,
        },
    ),
    _fixture({"userMessage": "broken"}, {"error": {"message": "no", "type": "server_error"}, "status": 500}),
    _fixture({"userMessage": "refused"}, {"error": {"message": "no", "type": "authentication_error"}, "status": 401}),
    _fixture({"userMessage": "malformed"}, _TEXT, chaos={"malformedRate": 1}),
    _fixture({"userMessage": "gone"}, _TEXT, chaos={"disconnectRate": 1}),
    _fixture({"inputText": "vector"}, {"embedding": [0.5, -0.25, 1.0]}),
]


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a running aimock, such as http://127.0.0.1:4010."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: servers that run on it are not tested against")
    if not _CLI.exists():
        pytest.skip("aimock is not installed: run `make setup` where there is npm and a package index")
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    command = [node, str(_CLI), "-p", "0", "-f", str(fixtures), "--strict", "--chunk-size", "6"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            line = next((line for line in server.stdout if " listening on " in line), "")
            assert line, f"aimock ended with {server.wait()}"
            yield line.split()[-1]
        finally:
            server.terminate()
