"""Makes a request ready to be decided: with the configuration of its thread, and with what its text hints at."""

from msgspec import Struct, structs
from trunkline_events.refusal import Refused

from trunkline_actors.moment import Request
from trunkline_actors.requests import AUTO, Parsed, parse_chat
from trunkline_actors.runtime import Runtime
from trunkline_actors.thread_settings import apply


class Prepared(Struct, frozen=True):
    """A request as it is decided, and the body as it is sent upstream."""

    request: Request
    body: bytes


class Preparing:
    """Prepares the requests of one router."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def of(self, request: Request, body: bytes, config_seq: int | None = None) -> Prepared | Refused:
        """The request under the configuration at this sequence; None: the one that its thread was last known to have.

        Raises LogUnavailable.
        """
        if config_seq is None:
            config_seq = self._runtime.ledger.config_seq(request.thread)
        if config_seq != request.configuration.sequence:
            configured = await self._runtime.configurations.at(config_seq)
            request = structs.replace(request, configuration=configured.routing)
            if configured.parameters and request.parsed.asked.operation == "chat":
                body = apply(body, configured.parameters)
                parsed = parse_chat(body)
                if isinstance(parsed, Refused):
                    message = f"with the parameters of its thread: {parsed.message}"
                    return structs.replace(parsed, message=message)
                request = structs.replace(request, parsed=parsed)
        return Prepared(await self._with_hints(request, body), body)

    async def _with_hints(self, request: Request, body: bytes) -> Request:
        policy, asked = self._runtime.gateway.state.routing.policy, request.parsed.asked
        if policy.analyzer is None or asked.hints:
            return request
        if asked.model != AUTO and not any(rule.when.hints for rule in policy.rules):
            return request
        hints = await self._runtime.analyzers.hints(policy.analyzer, body, asked.operation)
        parsed: Parsed = structs.replace(request.parsed, asked=structs.replace(asked, hints=hints))
        return structs.replace(request, parsed=parsed)
