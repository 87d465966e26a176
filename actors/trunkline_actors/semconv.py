"""The names that telemetry goes by: OpenTelemetry's where there is one, `trunkline.*` where there is none. Pure.

GenAI names are those of https://github.com/open-telemetry/semantic-conventions-genai, v0.1.0 (docs/gen-ai:
client-inference, client-embeddings, gen-ai-token-metrics), as read on 2026-11-28. They left the general conventions and
were renamed there: `gen_ai.system` is `gen_ai.provider.name`, `gen_ai.client.operation.duration` is
`gen_ai.client.inference.duration`, and `gen_ai.client.token.usage` became counters and histograms of their own. All
others are those of the semantic conventions 1.44.0.
"""

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

# -- spans -----------------------------------------------------------------------------------------------------------

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
CONVERSATION = "gen_ai.conversation.id"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105 - a name
UNKNOWN_MODALITY = "unknown"

ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_STATUS = "http.response.status_code"
HTTP_ROUTE = "http.route"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

WORKFLOW = "gen_ai.workflow.name"
INVOKE_WORKFLOW = "invoke_workflow"
WORKFLOW_VERSION = "trunkline.workflow.version"
RUN_ID = "trunkline.run.id"
STEP = "trunkline.step"
STEP_KIND = "trunkline.step.kind"
RETRIES = "trunkline.retries"

REQUEST_ID = "trunkline.request.id"
THREAD = "trunkline.thread.id"
ATTEMPT = "trunkline.attempt"
ATTEMPT_ID = "trunkline.attempt.id"
ATTEMPTS = "trunkline.attempts"
MODEL = "trunkline.model"
"""A model by the id it is registered under; `gen_ai.request.model` is what its upstream calls it."""
MODEL_VERSION = "trunkline.model.version"
INSTANCE = "trunkline.provider"
"""A provider instance by its id; `gen_ai.provider.name` is its kind."""
CACHE_HIT = "trunkline.cache.hit"
COST = "trunkline.cost_usd"
LOG_SEQUENCE = "trunkline.log.sequence"
DECIDE_SECONDS = "trunkline.decide_s"
"""From the moment at which it was decided to when the log had it."""
SETTLE_SECONDS = "trunkline.settle_s"
"""From the upstream's last byte to when the log had what it cost."""
POLICY_VERSION = "trunkline.policy.version"
CANDIDATES = "trunkline.candidates"
LEFT_OUT = "trunkline.candidates.left_out"
RESERVED = "trunkline.reserved_usd"
PARTIAL = "trunkline.partial"
CODE = "trunkline.code"
PROCESS = "trunkline.process"

KNOWN_PROVIDERS = {"gemini": "gcp.gemini"}
"""Kinds that the conventions know under another name; `openai`, `anthropic` and `deepseek` are theirs too."""


def provider_name(kind: str) -> str:
    """What the conventions call a kind of provider; those they don't know go by the name of the kind."""
    return KNOWN_PROVIDERS.get(kind, kind)


# -- metrics ---------------------------------------------------------------------------------------------------------

DURATION = {"chat": "gen_ai.client.inference.duration", "embeddings": "gen_ai.client.embeddings.duration"}
FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
USAGE_INPUT = "gen_ai.client.inference.usage.input_tokens"
USAGE_CACHE_READ = "gen_ai.client.inference.usage.cache_read.input_tokens"
USAGE_OUTPUT = "gen_ai.client.inference.usage.output_tokens"
USAGE_REASONING = "gen_ai.client.inference.usage.reasoning.output_tokens"
OPERATION_INPUT = "gen_ai.client.inference.operation.input_tokens"
OPERATION_OUTPUT = "gen_ai.client.inference.operation.output_tokens"
EMBEDDINGS_INPUT = "gen_ai.client.embeddings.operation.input_tokens"
SERVER_DURATION = "gen_ai.server.request.duration"
HTTP_DURATION = "http.server.request.duration"

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Upper bounds of buckets, as the GenAI conventions advise for times."""
HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
