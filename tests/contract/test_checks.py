"""Checks cost nothing: no kind of provider asks for a completion to find out whether its upstream is there."""

from contextlib import suppress

import pytest
from trunkline_actors.adapters.factory import build, kind_of, kinds
from trunkline_actors.adapters.kinds import Settings
from trunkline_events.failure import UpstreamError
from upstream import Upstream, answer


@pytest.mark.parametrize("transport", ["raw", "sdk"])
@pytest.mark.parametrize("kind", [name for name in kinds() if kind_of(name).networked])
async def test_a_check_only_reads(kind: str, transport: str) -> None:
    async with Upstream(answer({"data": [], "models": [], "object": "list"})).serving() as upstream:
        adapter = build(
            kind,
            Settings(provider="p", base_url=upstream.url, key="k" * 20, local=True, transport=transport),  # type: ignore[arg-type]
        )
        with suppress(UpstreamError):
            await adapter.check()
        await adapter.close()
        assert {request.method for request in upstream.requests} == {"GET"}
