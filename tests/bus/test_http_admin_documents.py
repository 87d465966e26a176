"""The documents as they are served, and whether the bus is as the AsyncAPI document has it."""

import aiohttp
import msgspec
from trunkline import __version__
from trunkline.client import Gateway
from trunkline.gateway.bus_commands import COMMANDS
from trunkline_events.connection import Connection

pytest_plugins = ["gateway", "edge_kit"]

OF_INSTANCES = ("trunkline.provider.", "trunkline.workflows.start.")
"""Endpoints of one instance or process: what processes ask of one another, and models on its machine."""
CHATS = {"trunkline.chat", "trunkline.embeddings", "trunkline.chat.abort", "trunkline.chat.join"}


async def test_the_openapi_document_is_served_to_anybody(http: aiohttp.ClientSession) -> None:
    for _ in range(2):
        async with http.get("/openapi.json") as answer:
            assert answer.status == 200
            assert answer.content_type == "application/json"
            document = await answer.json()
    assert document["info"]["version"] == __version__
    assert "/openapi.json" in document["paths"]


async def test_the_asyncapi_document_is_served_to_anybody(http: aiohttp.ClientSession) -> None:
    for _ in range(2):
        async with http.get("/asyncapi.yaml") as answer:
            assert answer.status == 200
            assert answer.content_type == "application/yaml"
            document = msgspec.yaml.decode(await answer.read())
    assert document["asyncapi"] == "3.0.0"
    assert document["channels"]["models.list"]["address"] == "trunkline.models.list"


async def test_the_commands_that_are_documented_are_those_that_are_served(gw: Gateway, connection: Connection) -> None:
    served: set[str] = set()
    inbox = connection.nats.new_inbox()
    answers = await connection.nats.subscribe(inbox)
    await connection.nats.publish("$SRV.INFO", reply=inbox)
    try:
        while True:
            info = msgspec.json.decode((await answers.next_msg(timeout=0.5)).data)
            served |= {one["subject"] for one in info["endpoints"]}
    except TimeoutError:
        pass
    assert {one for one in served if not one.startswith(OF_INSTANCES)} - CHATS == set(COMMANDS)
