"""One example of every event version ever written, beside the bytes it was stored as.

A new event: add an example here, then `python -m golden.examples` in `tests/` writes the file that is missing. A file
that is there is never written again: it stands for what lies in somebody's log. When a version is retired, its file
stays, and its example becomes the event that its upcasters make of it.
"""

from pathlib import Path
from typing import Any

from golden.runs import RUNS
from trunkline_events import budget, circuit, gateway, key, plugin, policy, registry, secret, thread
from trunkline_events.codec import CODEC
from trunkline_events.envelope import Event
from trunkline_events.measured import Measured
from trunkline_events.usage import Usage

FOLDER = Path(__file__).parent

_MODEL = registry.Model(
    id="gpt-4.1/ü",
    provider="openai",
    upstream="gpt-4.1",
    version="2026-11-20",
    capabilities={"reasoning": 0.9, "speed": 0.5},
    features=["tools", "vision"],
    context_window=1_000_000,
    max_output=32_768,
    price=registry.Price(input="2.00", output="8.00", cached_input="0.50"),
    tags=["prod"],
    status="disabled",
)
_PROVIDER = registry.Provider(
    id="box.1",
    kind="openai-compatible",
    base_url="http://127.0.0.1:8080/v1",
    secret="env:BOX_KEY",
    local=True,
    max_concurrency=4,
    timeout_s=12.5,
    headers={"X-Team": "search"},
)
_USAGE = Usage(input_tokens=20, cached_input_tokens=10, output_tokens=7, reasoning_tokens=3)
_BOOKS = {
    "request_id": "req-1",
    "settled_nanos": 1_000,
    "reserved_nanos": 250,
    "limit_nanos": 5_000_000_000,
    "window": "day",
    "period": "2026-11-20",
    "config_seq": 3,
    "tokens": Usage(input_tokens=100, cached_input_tokens=40, output_tokens=50, reasoning_tokens=20),
    "open": {"req-0-1": thread.OpenAttempt(request_id="req-0", reserve_nanos=250)},
}
_ENDED = {**_BOOKS, "attempt_id": "req-1-2", "attempt": 2, "model": "gpt-4.1/ü", "provider": "openai"}
_METERED = {
    **_ENDED,
    "usage": _USAGE,
    "cost_nanos": 123,
    "price_version": "model@17",
    "latency_ms": 812.5,
    "ttft_ms": 101.25,
    "finish": "stop",
}
_ASKED = thread.Asked(
    operation="chat",
    model="auto",
    stream=True,
    input_bound=512,
    max_tokens=64,
    features=["tools"],
    route={"prefer": ["gpt-4.1/ü"], "max_cost_usd": "0.05"},
)

_SCOPE = {
    "limit_nanos": 5_000_000_000,
    "window": "month",
    "zone": "Europe/Berlin",
    "period": "2026-11",
    "warn_at": 0.8,
    "warned": True,
    "settled_nanos": 4_100_000_000,
    "reserved_nanos": 250_000,
    "team": "research",
    "slices": {
        "host-1/7": budget.Slice(holder="host-1", period="2026-11", granted_nanos=300_000, spent_nanos=50_000),
        "host-2/1": budget.Slice(holder="host-2", period="2026-10", granted_nanos=100, frozen=True),
    },
}

_CHANGED: dict[str, Any] = {
    "vault": "8c1f2b3a4d5e6f70",
    "revision": 7,
    "change": "016776263ebba36d",
    "reason": "leaked",
}

_POLICY = policy.Policy(
    rules=[
        policy.Rule(
            name="code",
            when=policy.When(
                capabilities=["reasoning"],
                features=["tools"],
                tags=["prod"],
                hints=["code"],
                model="auto",
                thread="support-*",
                key="0123*",
                operation="chat",
                stream=True,
                min_input_tokens=10,
                max_input_tokens=8_000,
            ),
            use=["gpt-4.1/ü", "fast"],
            optimize="cost",
            fallbacks=["m2"],
            require=policy.Require(
                local_only=True,
                max_cost_usd="0.05",
                tags=["prod"],
                data=["eu"],
                avoid=["m9"],
                capabilities={"reasoning": 0.5},
            ),
            min_match=0.7,
            on_content_filter="fallback",
        ),
        policy.Rule(name="split", weights={"gpt-4.1/ü": 9.0, "m2": 1.0}),
    ],
    defaults=policy.Defaults(
        optimize="latency",
        fallbacks=["m3"],
        require=policy.Require(capabilities=["speed"]),
        min_match=0.5,
        on_content_filter="fallback",
        percentile=95,
    ),
    analyzer="builtin",
    hints={"code": ["precision"]},
)

_EVENTS: list[Event] = [
    registry.ModelRegistered(model=_MODEL, reason="first"),
    registry.ModelUpdated(model=_MODEL, changed=["price", "tags"], reason="cheaper"),
    registry.ModelDeployed(model=_MODEL, reason="new weights"),
    registry.ModelEnabled(id="gpt-4.1/ü", reason="back"),
    registry.ModelDisabled(id="gpt-4.1/ü", reason="noisy"),
    registry.ModelRetired(id="gpt-4.1/ü", reason="old"),
    registry.ModelRemoved(id="gpt-4.1/ü"),
    registry.PullStarted(
        id="qwen",
        provider="box.1",
        upstream="qwen3:8b",
        pull="host-1/7",
        began=1_795_262_400.5,
        attempt=2,
        reason="try",
    ),
    registry.ModelPulled(
        id="qwen",
        provider="box.1",
        upstream="qwen3:8b",
        pull="host-1/7",
        digest="500a1f067a9f",
        size_bytes=5_225_388_164,
        family="qwen3",
        parameters="8.2B",
        quantization="Q4_K_M",
        context_window=40_960,
        features=["json_schema", "thinking", "tools"],
        problem="model 'qwen' is retired; register a new one",
    ),
    registry.PullFailed(
        id="qwen", provider="box.1", upstream="qwen3:8b", pull="host-1/7", message="it was aborted", aborted=True
    ),
    registry.ModelDeleted(id="qwen", provider="box.1", upstream="qwen3:8b", reason="room"),
    registry.ProviderRegistered(provider=_PROVIDER, reason="a box"),
    registry.ProviderUpdated(provider=_PROVIDER, changed=["timeout_s"]),
    registry.ProviderRemoved(id="box.1", reason="gone"),
    thread.ThreadConfigured(
        **_BOOKS,  # type: ignore[arg-type]  # one dict for many events
        warn_at=0.8,
        model="gpt-4.1/ü",
        parameters={"temperature": 0.2},
        preferences={"optimize": "cost"},
        reason="a budget",
    ),
    thread.RouteDecided(
        **_BOOKS,  # type: ignore[arg-type]
        attempt_id="req-1-2",
        attempt=2,
        model="gpt-4.1/ü",
        provider="openai",
        candidates=[
            thread.Candidate(model="gpt-4.1/ü", provider="openai", score=1.5, reason="cheapest first"),
            thread.Candidate(model="m2", provider="box.1", score=None, reason="lacks tools"),
        ],
        left_out={"disabled": 3},
        reserve_nanos=250,
        max_tokens=64,
        price_version="model@17",
        asked=_ASKED,
        tried=["m0"],
        log_seq=41,
        policy_version=2,
        override="m1",
        preferences={"avoid": ["m9"]},
        stats={"gpt-4.1/ü": Measured(p50_ms=800)},
        now=1_795_262_400.25,
        draw=0.625,
        deadline=1_795_262_460.25,
        reply="_INBOX.abc.1",
    ),
    thread.UsageRecorded(**_METERED, partial=True, estimated=True),  # type: ignore[arg-type]
    thread.Aborted(**_METERED, partial=True),  # type: ignore[arg-type]
    thread.AttemptFailed(**_ENDED, failure="rate_limited", status=429, latency_ms=12.5),  # type: ignore[arg-type]
    thread.Orphaned(**_ENDED, cost_nanos=250, last_seen=1_795_262_401.5),  # type: ignore[arg-type]
    thread.RequestRefused(
        **_BOOKS,  # type: ignore[arg-type]
        code="budget_exceeded",
        message="too dear",
        asked=_ASKED,
        needed_nanos=6_000,
    ),
    thread.AnswerReused(
        **_BOOKS,  # type: ignore[arg-type]
        asked=_ASKED,
        model="gpt-4.1/ü",
        provider="openai",
        version="2026-11-20",
        origin=17,
        age_s=12.5,
        saved_nanos=123,
    ),
    thread.BudgetWarned(**_BOOKS, warn_at=0.8),  # type: ignore[arg-type]
    budget.BudgetSet(**_SCOPE, request_id="req-1", reason="a new quarter"),  # type: ignore[arg-type]
    budget.BudgetReserved(**_SCOPE, slice="host-1/7", amount_nanos=100_000, spent_nanos=50_000),  # type: ignore[arg-type]
    budget.BudgetSettled(
        **_SCOPE,  # type: ignore[arg-type]
        slice="host-1/6",
        spent_nanos=40_000,
        returned_nanos=2_000,
        closed=True,
    ),
    budget.BudgetRefused(**_SCOPE, request_id="req-2", thread="t1", needed_nanos=6_000),  # type: ignore[arg-type]
    budget.ScopeWarned(**_SCOPE),  # type: ignore[arg-type]
    circuit.CallFailed(provider="box.1", failure="timeout", failures=4),
    circuit.Recovered(provider="box.1"),
    circuit.Opened(provider="box.1", failures=5, opened_at=1_795_262_400.5, retry_at=1_795_262_460.5),
    circuit.ProbeStarted(provider="box.1", attempt_id="req-1-2", until=1_795_262_490.0),
    circuit.Closed(provider="box.1"),
    circuit.Reset(provider="box.1", reason="by hand"),
    policy.PolicyPublished(version=2, policy=_POLICY, reason="cheaper"),
    policy.PolicyRolledBack(version=3, to=1, policy=policy.Policy(), reason="too cheap"),
    policy.OverrideSet(model="gpt-4.1/ü", until=1_795_262_460.5, reason="an incident"),
    policy.OverrideCleared(reason="over"),
    gateway.GatewayDegraded(mode="no-statistics", process="host-1", since=1_795_262_400.5, detail="round robin"),
    gateway.GatewayRecovered(mode="no-statistics", process="host-1", since=1_795_262_400.5, until=1_795_262_401.5),
    secret.SecretStored(
        **_CHANGED,
        id="box-main",
        provider="box.1",
        address="http://127.0.0.1:8080/v1",
        fingerprint="9f6d9f09c98c429e",
        kdf="argon2id",
    ),
    secret.SecretRotated(**_CHANGED, id="box-main", fingerprint="0123456789abcdef", replaced="9f6d9f09c98c429e"),
    secret.SecretDeleted(**_CHANGED, id="box-main"),
    secret.VaultRekeyed(**_CHANGED, kdf="pbkdf2-sha256", secrets=2),
    key.KeyIssued(
        id="search",
        by="development",
        reason="a new team",
        name="Search team",
        scopes=["chat", "read"],
        secrets=[
            key.KeySecret(digest="9f6d9f09c98c429e" * 4),
            key.KeySecret(digest="0123456789abcdef" * 4, until=1_795_266_000.0),
        ],
        pepper="8c1f2b3a4d5e6f70",
        models=["gpt-4.1/ü", "claude-*"],
        requests_per_minute=60,
        tokens_per_minute=100_000,
        expires_at=1_826_798_400.0,
        rotated=True,
    ),
    key.KeyRevoked(id="search", by="development", reason="leaked"),
    *RUNS,
    plugin.PluginLoaded(plugin="acme", distribution="trunkline-acme", version="1.2.0", process="host-1"),
    plugin.PluginFailed(
        plugin="acme",
        distribution="trunkline-acme",
        version="1.2.0",
        process="host-1",
        provider="acme-1",
        stage="initialize",
        error="KeyError",
        detail="the plugin for 'acme' (trunkline-acme 1.2.0) failed at its initialize (KeyError)",
    ),
]

EXAMPLES: dict[str, Event] = {CODEC.name(event): event for event in _EVENTS}
"""What each stored name reads as today."""


def file_of(name: str) -> Path:
    """Where the stored bytes of this event version are."""
    return FOLDER / f"{name}.json"


def write_missing() -> list[Path]:
    """Store each example that has no file yet; which files were written."""
    written = []
    for name, event in EXAMPLES.items():
        if not file_of(name).exists():
            file_of(name).write_bytes(CODEC.encode(event))
            written.append(file_of(name))
    return written


if __name__ == "__main__":
    for path in write_missing():
        print(path)
