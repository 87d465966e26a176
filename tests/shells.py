"""The modules that have effects, by layer; all others of these layers are pure, and held to that."""

# The modules and packages that may do I/O, by layer; everything else below services is pure.
SHELLS = {
    "trunkline_events": {
        "acks",
        "connection",
        "direct",
        "follower",
        "jetstream",
        "log",
        "loop_thread",
        "memory",
        "quick",
        "reading",
        "recorder",
        "tasks",
        "upstream",
        "upstream_bus",
        "stream",
        "writer",
    },
    "trunkline_projections": {"runner", "snapshots", "sql_view", "sql_postgres", "sql_projection"},
    "trunkline_actors": {
        *("shell", "mailbox", "micro", "bus", "runtime", "supervisor", "commands"),  # what every actor stands on
        *("router", "deciding", "courier", "inflight", "idempotency", "resting"),  # routing a request
        *("reusing", "replaying"),  # answers that are there already
        *(
            "workflow_blobs",
            "workflow_budget",
            "workflow_calls",
            "workflow_steps",
            "workflow_values",
            "workflow_threads",
        ),
        *("workflow_runner", "workflow_leading"),
        *("escrow", "scopes", "recalls", "parked", "parking", "budgets"),  # money above threads, and waiting for it
        *("provider", "attempting", "running", "answers", "stalls", "adapters", "fleet"),  # running an attempt
        *("local_models", "managing", "puller", "pulling"),  # models on the provider's own machine
        *("admission", "pauses", "plugged", "bounded"),  # what stands around it
        *("plugin_book", "plugin_reader", "plugin_faults"),
        *("breaker", "meter", "board", "configurations", "analyzers", "preparing"),  # what routing decides from
        *("keyring", "keyholder", "secretary", "vault_store", "unlock_file"),  # keys of providers
        *("keys_door", "keys_limiter", "keys_actor"),  # keys of callers
        *("present", "advice", "tracing", "telling"),
        *("degraded", "staleness"),  # doing with less
        *("workflow_actor", "workflow_source", "workflow_waiting"),
        *("registrar", "readers", "threads", "circuits", "keeper", "lease", "dependents", "draining", "policymaker"),
        # what a process remembers, and keeps in the bus
        *("bucket", "kv", "claims", "answer_store", "ledger", "snapshots", "minutes", "metrics"),
    },
}
