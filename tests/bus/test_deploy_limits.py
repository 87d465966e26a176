"""No user of deploy/nats/accounts.conf can do what isn't its to do: append, listen, read, or have it done for it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from deploy_kit import USERS, Deployed, deployed, intruding
from trunkline.host import ACTORS, Host
from trunkline_events.connection import Connection
from trunkline_events.subjects import CATEGORIES, STREAM

ROLES = ("registry", "router", "provider", "keeper", "workflow", "projector", "gateway")
PEOPLE = ("operator", "client")
assert {*ROLES, *PEOPLE, "actor"} == set(USERS)

APPENDS = {
    "registry": {"model", "provider", "policy", "thread", "budget", "circuit", "gateway", "secret", "plugin", "key"},
    "router": {"thread", "budget", "gateway"},
    "provider": {"thread", "budget", "circuit", "model", "plugin", "gateway"},
    "keeper": {"thread", "budget", "gateway"},
    "workflow": {"workflow", "gateway"},
    "projector": set(),
    "gateway": {"gateway"},
    "operator": set(),
    "client": set(),
}
"""The categories whose events each user may append."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Deployed]:
    async with deployed(tmp_path) as running:
        yield running


async def made(server: Deployed) -> Connection:
    """A log with an event and buckets with something in them; the connection of whoever made them."""
    host = await Host.start(server.url("actor"), ACTORS)
    await host.stop()
    connection = await Connection.open(server.url("actor"), name="maker")
    await connection.nats.jetstream().publish("trunkline.log.thread.t", b'{"type": "what.it.was.v1"}')
    return connection


@pytest.mark.parametrize("user", APPENDS)
async def test_a_user_appends_the_events_that_are_its_own_to_append(server: Deployed, user: str) -> None:
    async with intruding(server, user) as intruder:
        may = {one for one in CATEGORIES if await intruder.may_publish(f"trunkline.log.{one}.x")}
    assert may == APPENDS[user]


@pytest.mark.parametrize("user", [*ROLES, *PEOPLE])
async def test_nobody_hears_the_answers_to_others(server: Deployed, user: str) -> None:
    async with intruding(server, user) as intruder:
        assert await intruder.may_subscribe(f"_INBOX.{user}.own")
        others = [f"_INBOX.{other}.>" for other in USERS if other != user]
        heard = [one for one in ("_INBOX.>", "_INBOX.*.*", ">", *others) if await intruder.may_subscribe(one)]
    assert heard == []


TAKES_CHATS = {
    "trunkline.chat": {"router"},
    "trunkline.embeddings": {"router"},
    "trunkline.provider.x.chat": {"provider"},
}
HOLDS_SECRETS = {"registry", "provider"}


async def test_who_does_not_serve_what_people_write_can_not_listen_to_it(server: Deployed) -> None:
    for user in (*ROLES, *PEOPLE):
        async with intruding(server, user) as intruder:
            for subject, serve in TAKES_CHATS.items():
                assert await intruder.may_subscribe(subject) == (user in serve), (user, subject)
            assert not await intruder.may_subscribe("trunkline.log.>"), user
            assert await intruder.may_subscribe("trunkline.secrets.set") == (user == "registry"), user
            assert await intruder.may_subscribe("trunkline.secrets.unlock") == (user in HOLDS_SECRETS), user
            assert await intruder.may_subscribe("trunkline.keys.issue") == (user == "registry"), user


async def test_the_vault_and_what_keys_are_hashed_under_are_kept_from_who_does_not_need_them(server: Deployed) -> None:
    roles = {
        "registry",
        "router",
        "provider",
        "keeper",
        "workflow",
        "gateway",
    }  # each admits who asks, or comes in itself
    for user in (*ROLES, *PEOPLE):
        async with intruding(server, user) as intruder:
            for bucket, readers in (("SECRETS", HOLDS_SECRETS), ("KEYS", roles | {"operator"})):
                for call in ("STREAM.MSG.GET", "DIRECT.GET"):
                    read = await intruder.may_publish(f"$JS.API.{call}.KV_TRUNKLINE_{bucket}", b'{"seq":1}')
                    assert read == (user in readers), (user, bucket)
                assert not await intruder.may_publish(f"$JS.API.CONSUMER.CREATE.KV_TRUNKLINE_{bucket}"), user
            assert await intruder.may_publish("$KV.TRUNKLINE_KEYS.other") == (user == "registry"), user
            assert await intruder.may_publish("$KV.TRUNKLINE_SECRETS.other") == (user in HOLDS_SECRETS), user


async def test_a_service_answers_whom_it_was_asked_by_and_nobody_else(server: Deployed) -> None:
    for user in ("registry", "gateway"):
        async with intruding(server, user) as intruder:
            assert not await intruder.may_publish("_INBOX.client.somebody")
            assert not await intruder.may_publish("trunkline.provider.scripted.chat")


ANSWERED_BY_THE_SERVER = (
    *(
        "INFO",
        f"STREAM.INFO.{STREAM}",
        f"STREAM.MSG.GET.{STREAM}",
        f"DIRECT.GET.{STREAM}",
        "STREAM.NAMES",
        "STREAM.LIST",
    ),
    *(f"DIRECT.GET.{STREAM}.trunkline.log.thread.t", f"CONSUMER.CREATE.{STREAM}", f"CONSUMER.CREATE.{STREAM}.c"),
)


async def test_a_client_has_nothing_written_to_the_log_by_asking_for_an_answer_there(server: Deployed) -> None:
    """The server answers on any subject that a question names, whoever may publish there: so clients ask it nothing."""
    maker = await made(server)
    try:
        js = maker.nats.jetstream()
        before = (await js.stream_info(STREAM)).state
        async with intruding(server, "client") as intruder:
            asked = [f"$JS.API.{call}" for call in ANSWERED_BY_THE_SERVER] + [
                "$SYS.REQ.USER.INFO",
                "$SYS.REQ.SERVER.PING.VARZ",
            ]
            config = {
                "stream_name": STREAM,
                "config": {"deliver_subject": "$KV.TRUNKLINE_KEYS.pepper", "ack_policy": "none"},
            }
            taken = [
                one
                for one in asked
                if await intruder.may_publish(one, json.dumps(config).encode(), "trunkline.log.thread.t")
            ]
            assert taken == []
        after = (await js.stream_info(STREAM)).state
        assert (after.messages, after.last_seq) == (before.messages, before.last_seq)
    finally:
        await maker.close()
