"""What sets an upstream that speaks OpenAI's wire apart from the others. Pure."""

from typing import Literal

from msgspec import Struct

Limit = Literal["max_tokens", "max_completion_tokens"]


class Dialect(Struct, frozen=True, kw_only=True):
    """One accent of Chat Completions.

    `limit` is the field for a limit that the caller didn't set. `other_limit` says whether the upstream knows the field
    of the other name: where not, a limit under that name is put under `limit`. `responses` says whether it has the
    Responses API too. `check_path` is what a check asks for. `tells_cost`: usage has what was charged.
    """

    limit: Limit = "max_tokens"
    other_limit: bool = True
    embeddings: bool = True
    responses: bool = False
    check_path: str = "/models"
    tells_cost: bool = False


PLAIN = Dialect(responses=True)
# OpenAI's reasoning models refuse `max_tokens`; all of its models take `max_completion_tokens`.
OPENAI = Dialect(limit="max_completion_tokens", other_limit=False, responses=True)
# OpenRouter lists its models to everyone: what it says of the key is what tells whether that is good.
OPENROUTER = Dialect(check_path="/key", tells_cost=True)
DEEPSEEK = Dialect(other_limit=False, embeddings=False)
