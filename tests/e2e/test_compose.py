"""docker-compose.yml: what it says is right, and it works, as processes here where there may be no container engine."""

import asyncio
import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import audit
import jsonschema
import pytest
import trunkline
import yaml
from compose_kit import COMPOSE, DOCKERFILE, NotSet, Project, of_image, project, read
from trunkline.client import Gateway
from trunkline.embedded.config import find_binary
from trunkline.health.bus import bus_checks
from trunkline.host import ROLES
from trunkline.lifecycle import DRAIN_SECONDS
from trunkline.nkeys import USERS, environment
from trunkline_events.envelope import RecordedEvent

SINGLE = {"COMPOSE_PROFILES": "single", "TRUNKLINE_REPLICAS": "1", **environment()}
CLUSTER = {**SINGLE, "COMPOSE_PROFILES": "cluster", "TRUNKLINE_REPLICAS": "3"}
SCOPES = ("--scope", "chat", "--scope", "read", "--scope", "admin")


# -- what it says ------------------------------------------------------------------------------------------------------


def test_the_file_is_one_by_the_compose_specification() -> None:
    specification = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    schema = json.loads(specification)
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(yaml.safe_load(COMPOSE.read_text()))] == []
    assert [error.message for error in validator.iter_errors(read(SINGLE))] == []
    assert list(validator.iter_errors({"services": {"router": {"comand": "run"}}}))


def test_without_keys_the_file_says_how_to_make_them() -> None:
    with pytest.raises(NotSet, match=r"TRUNKLINE_\w+: make \.env with python -m trunkline\.nkeys"):
        read({"TRUNKLINE_REPLICAS": "1"})
    with pytest.raises(NotSet, match="TRUNKLINE_REPLICAS: 1 with profile single, 3 with profile cluster"):
        read({})


def test_every_role_is_a_service_in_both_profiles_that_can_be_scaled() -> None:
    services = read(SINGLE)["services"]
    for role in ROLES:
        service = services[role]
        assert service["command"] == ["run", role]
        assert service["profiles"] == ["single", "cluster"]
        assert "container_name" not in service
        assert (
            f"nats://{role}:{SINGLE[f'TRUNKLINE_{role.upper()}_SEED']}@nats:4222"
            == service["environment"]["TRUNKLINE_NATS"]
        )
    assert [name for name, one in services.items() if "ports" in one and "build" in one] == ["gateway"]


def test_each_service_has_its_own_secret_and_no_other() -> None:
    services = read(SINGLE)["services"]
    seeds = {name: value for name, value in SINGLE.items() if name.endswith("_SEED")}
    for name, service in services.items():
        text = json.dumps(service)
        assert {seed for seed, value in seeds.items() if value in text} <= {f"TRUNKLINE_{name.upper()}_SEED"}
    servers = [one for name, one in services.items() if name.startswith("nats")]
    assert len(servers) == 4
    for user in USERS:
        public = f"TRUNKLINE_{user.upper()}_NKEY"
        assert all(one["environment"][public] == SINGLE[public] for one in servers)


def test_everything_may_end_what_it_has_under_way_before_it_is_killed() -> None:
    for name, service in read(SINGLE)["services"].items():
        if name != "operator":
            assert float(service["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS + 5
    assert of_image("STOPSIGNAL") == "SIGTERM"


def test_nothing_can_write_to_its_image_or_gain_rights() -> None:
    for service in read(SINGLE)["services"].values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert of_image("USER") == "10001"


def test_the_server_is_the_version_that_the_tests_run_on() -> None:
    told = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v([\d.]+)", told)
    assert version
    assert {one["image"] for name, one in read(SINGLE)["services"].items() if name.startswith("nats")} == {
        f"nats:{version[1]}-alpine"
    }


def test_the_image_is_built_from_locked_wheels_and_holds_no_tools_or_secrets() -> None:
    text = DOCKERFILE.read_text()
    installs = re.findall(r"pip (?:--python \S+ )?install (.*)", text)
    assert installs
    for one in installs:
        assert "--no-deps" in one
        assert {"--require-hashes", "--only-binary"} <= set(one.split()) or "--no-index" in one
    last = text.rpartition("\nFROM ")[2]
    assert last.startswith("python:${PYTHON}-slim\n")
    assert "pip" not in last
    assert "apt" not in text
    assert not re.search(r"SEED|PASSWORD|_KEY", text)
    assert text.index("COPY requirements.lock") < text.index("COPY events"), "what changes seldom comes first"


# -- that it works -----------------------------------------------------------------------------------------------------


async def first_key(running: Project) -> str:
    """As deploy/README.md has it: the first key, without which the edge does not serve others."""
    key = (await running.run("operator", "keys", "issue", "admin", *SCOPES)).strip()
    assert key.startswith("tl-")
    return key


async def post(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with http.post(path, json=body) as answer:
        return answer.status, await answer.json()


async def models(http: aiohttp.ClientSession) -> None:
    provider = {"id": "scripted", "kind": "scripted", "local": True}
    assert (await post(http, "/api/providers/register", provider))[0] == 201
    for name, upstream in (("echo", "echo"), ("slow", "tokens:40@20")):
        model = {"id": name, "provider": "scripted", "upstream": upstream, "price": {"input": "1.00", "output": "4.00"}}
        assert (await post(http, "/api/models/register", model))[0] == 201


def chat(model: str, words: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": words}]}


def url_of(user: str, address: str) -> str:
    return f"nats://{user}:{SINGLE[f'TRUNKLINE_{user.upper()}_SEED']}@{address}"


async def begun(gateway: Gateway, requests: int) -> None:
    """Return when so many requests are under way upstream, or were."""
    async with asyncio.timeout(20):
        while audit.kinds(await audit.events(gateway, "thread")).count("route-decided") < requests:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def settled(gateway: Gateway) -> list[RecordedEvent]:
    """The log, once every attempt has ended, be it by the keeper."""
    async with asyncio.timeout(30):
        while audit.open_attempts(recorded := await audit.events(gateway)):  # noqa: ASYNC110 - other processes end them
            await asyncio.sleep(0.2)
    return recorded


@pytest.mark.soak
async def test_one_server_and_every_role_are_chatted_with_scaled_killed_and_balance(tmp_path: Path) -> None:
    async with project(tmp_path, SINGLE) as running:
        await running.up()
        key = await first_key(running)
        await running.healthy(*running.active)
        address = f"127.0.0.1:{running.of('nats')[0].ports['4222']}"
        async with (
            aiohttp.ClientSession(running.url("gateway", "4000"), headers={"Authorization": f"Bearer {key}"}) as http,
            trunkline.connect(url_of("client", address), key) as gw,
            trunkline.connect(url_of("operator", address), key) as operator,
        ):
            await models(http)
            await gw.threads.configure(thread_id="t", budget={"limit_usd": "1"})
            status, answer = await post(http, "/v1/chat/completions", chat("echo", "over HTTP"))
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "over HTTP")
            assert (await gw.chat.create("echo", "over the bus", thread="t")).text == "over the bus"

            await running.up("router", router=3)
            await running.healthy("router")
            asked = [asyncio.create_task(gw.chat.create("slow", f"n{n}", thread="t", max_tokens=50)) for n in range(20)]
            over_http = [asyncio.create_task(post(http, "/v1/chat/completions", chat("slow", "n"))) for _ in range(10)]
            await begun(operator, 30)
            killed = [running.of(service)[0] for service in ("nats", *ROLES)]
            for one in killed:
                one.kill()
            all_answered = asyncio.gather(*asked, *over_http, return_exceptions=True)
            await running.healthy("nats", *ROLES)
            await all_answered
            assert [one.name for one in killed if one.starts < 2] == []

            assert (await gw.chat.create("echo", "and again", thread="t")).text == "and again"
            assert (await post(http, "/v1/chat/completions", chat("echo", "too")))[0] == 200
            recorded = await settled(operator)
            audit.check_books(recorded)
            audit.check_limits(recorded)
            assert (await gw.threads.get(thread_id="t"))["reserved_usd"] == "0"
        codes = await running.down()
        assert {name: code for name, code in codes.items() if code not in (0, None)} == {}


@pytest.mark.soak
async def test_three_servers_keep_every_event_three_times_and_outlive_one_of_them(tmp_path: Path) -> None:
    async with project(tmp_path, CLUSTER) as running:
        await running.up()
        key = await first_key(running)
        await running.healthy(*running.active)
        addresses = ",".join(
            url_of("operator", f"127.0.0.1:{running.of(name)[0].ports['4222']}") for name in running.named("nats")
        )
        async with (
            aiohttp.ClientSession(running.url("gateway", "4000"), headers={"Authorization": f"Bearer {key}"}) as http,
            trunkline.connect(addresses, key) as operator,
        ):
            await models(http)
            checks = {check.name: check for check in await bus_checks(addresses)}
            assert (checks["copies"].state, checks["permissions"].state) == ("ok", "ok"), checks
            assert checks["copies"].found.startswith("3 copies of every event")
            running.of("nats-2")[0].kill()
            async with asyncio.timeout(30):
                while (await post(http, "/v1/chat/completions", chat("echo", "still")))[0] != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            await running.healthy("nats-2", *ROLES)
            audit.check_books(await settled(operator))
