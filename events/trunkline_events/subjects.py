"""Every subject, stream, bucket and queue-group name, and how an id becomes part of a subject.

These names are data: renaming one loses what was stored or subscribed under the old name.
The grammar is public (`trunkline.…`), version 1.
"""

import re

STREAM = "TRUNKLINE"
LOG = "trunkline.log"
EVENTS = "trunkline.events"

CATEGORIES = (
    *("model", "provider", "policy", "thread", "budget", "circuit", "gateway", "secret", "plugin", "key"),
    "workflow",
)

NO_THREAD = "-"
"""The aggregate of requests that belong to no thread. Never a legal client id."""

CHAT = "trunkline.chat"
EMBEDDINGS = "trunkline.embeddings"
ABORT = "trunkline.chat.abort"
JOIN = "trunkline.chat.join"
PULSE = "trunkline.pulse"
STATISTICS = "trunkline.statistics"
"""What providers measured, told to every process that decides."""
STATISTICS_WANTED = "trunkline.statistics.wanted"
"""A process that begins to decide asks for all of it."""
FIGURES = "trunkline.figures"
"""Heard by all processes: say what you have counted, and how you stand."""

MODELS = "trunkline.models"
PROVIDERS = "trunkline.providers"
THREADS = "trunkline.threads"
BUDGETS = "trunkline.budgets"
POLICY = "trunkline.policy"
ROUTING = "trunkline.routing"
CIRCUITS = "trunkline.circuits"
SECRETS = "trunkline.secrets"
PLUGINS = "trunkline.plugins"
KEYS = "trunkline.keys"
WORKFLOWS = "trunkline.workflows"
RECALL = "trunkline.recall"
"""Heard by all routers: give back what you don't need of a budget."""

QUEUE = "trunkline"
"""The queue group that all replicas of an actor share: each request goes to one of them."""

PARKED_STREAM = "TRUNKLINE_PARKED"
"""Requests that wait for money, bodies and all: a work queue."""
PARKED = "trunkline.parked"
CROWD = "trunkline.crowd"
"""At which budgets somebody waits, as whoever attends to them tells all routers."""

REQUESTS_BUCKET = "TRUNKLINE_REQUESTS"
"""Request claims and kept answers, for idempotency: 24 hours."""
CACHE_BUCKET = "TRUNKLINE_CACHE"
"""Answers that may be given again to who asks the very same, each for as long as it was asked to be kept."""
WORKFLOWS_BUCKET = "TRUNKLINE_WORKFLOWS"
"""What runs of workflows were begun with and what their steps said: 30 days of it."""
LEASES_BUCKET = "TRUNKLINE_LEASES"
"""Who leads: one key a role, gone when its holder is."""
SECRETS_BUCKET = "TRUNKLINE_SECRETS"
"""The vault: what providers are called with, encrypted."""
KEYS_BUCKET = "TRUNKLINE_KEYS"
"""The secret that API keys are hashed under. Whoever can read it acts for the gateway itself."""
RATES_BUCKET = "TRUNKLINE_RATES"
"""How many requests and tokens are left to each API key with a limit, in memory."""
SLOTS_BUCKET = "TRUNKLINE_SLOTS"
"""Which process may call a provider instance how many times at once: one key an instance that has a limit."""
METRICS_BUCKET = "TRUNKLINE_METRICS"
"""What providers measured, by the minute: a week of it."""
DEPENDENTS_BUCKET = "TRUNKLINE_DEPENDENTS"
"""Which models the configurations of threads name, so that nobody need read all threads to know."""
SNAPSHOTS_BUCKET = "TRUNKLINE_SNAPSHOTS"
"""Folds with their position, so that a process with a long log behind it is ready at once."""

STORES = "trunkline.es"
"""What applications of the `eventsourcing` library store: `trunkline.es.<application>.<purpose>.…`."""
STORE_STREAM = "TRUNKLINE_ES_"
"""What the names of their streams begin with, which no other stream's does."""

INBOX = "_INBOX"

MAX_ID_BYTES = 128

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPE = re.compile(r"=([0-9A-F]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_REPLY = re.compile(r"[^\s*>.]+(?:\.[^\s*>.]+)*")


def encode_id(identifier: str) -> str:
    """An id as one subject token: each byte outside `[A-Za-z0-9_-]` becomes `=XX`, upper-case hex of its UTF-8."""
    if _PLAIN.fullmatch(identifier):
        return identifier
    return "".join(chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in identifier.encode())


def decode_id(token: str) -> str:
    """The id that `encode_id` made this token of. Tokens nobody encoded come back with bad bytes replaced."""
    if "=" not in token:
        return token
    raw = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), token)
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")


def id_problem(identifier: str) -> str | None:
    """Why this can't be an id, or None where it can: 1 to 128 bytes of UTF-8 without control characters, not `-`."""
    try:
        size = len(identifier.encode())
    except UnicodeEncodeError:
        return "an id must be valid UTF-8"
    if not size:
        return "an id must not be empty"
    if size > MAX_ID_BYTES:
        return f"an id has at most {MAX_ID_BYTES} bytes, this one has {size}"
    if _CONTROL.search(identifier):
        return "an id must not contain control characters"
    if identifier == NO_THREAD:
        return "'-' stands for no thread and can't be an id"
    return None


def log_subject(category: str, aggregate: str) -> str:
    """Where an actor appends an event of this aggregate."""
    return f"{LOG}.{category}.{encode_id(aggregate)}"


def split_log_subject(subject: str) -> tuple[str, str]:
    """The category and the aggregate of a subject below `trunkline.log` or `trunkline.events`; "" for what it lacks."""
    category, _, token = "".join(subject.split(".", 2)[2:]).partition(".")
    return category, decode_id(token)


def category_filter(category: str) -> str:
    """All appends of one category."""
    return f"{LOG}.{category}.>"


def provider_endpoint(instance: str, name: str) -> str:
    """An endpoint of one provider instance, such as its `chat`."""
    return f"trunkline.provider.{encode_id(instance)}.{name}"


def start_here(process: str) -> str:
    """Where a run is begun that this process is to lead."""
    return f"{WORKFLOWS}.start.{encode_id(process)}"


def locked_endpoint(instance: str, name: str) -> str:
    """Where an endpoint is that only a process which can't read this instance's secret has: asked where nobody can.

    `encode_id` makes no `~`, so it is no instance's own; whoever may ask instances may ask here.
    """
    return f"trunkline.provider.{encode_id(instance)}~locked.{name}"


def store_stream(application: str, purpose: str) -> str:
    """The stream of one application: `TRUNKLINE_ES_<name>` for its events, with `~<purpose>` for what else it keeps."""
    suffix = "" if purpose == "events" else f"~{encode_id(purpose)}"  # `encode_id` makes no `~`: no two names meet
    return f"{STORE_STREAM}{encode_id(application)}{suffix}"


def store_subject(application: str, purpose: str) -> str:
    """What the subjects of that stream begin with."""
    return f"{STORES}.{encode_id(application)}.{encode_id(purpose)}"


def is_inbox(reply: str, prefixes: tuple[str, ...] = (INBOX,)) -> bool:
    """Whether we may write to this reply subject: only below an inbox prefix, and never to a wildcard."""
    for prefix in prefixes:
        if reply.startswith(prefix) and reply[len(prefix) : len(prefix) + 1] == ".":
            rest = reply[len(prefix) + 1 :]
            # What nats clients make, up to three tokens of letters and digits, without asking the pattern.
            bare = rest.isascii() and rest.replace(".", "", 2).isalnum() and ".." not in rest
            plain = bare and rest[0] != "." != rest[-1]
            return plain or _REPLY.fullmatch(reply) is not None
    return False
