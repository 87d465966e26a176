"""A persistence module for the `eventsourcing` library: anyone's event-sourced application, stored on NATS JetStream.

    PERSISTENCE_MODULE=trunkline_events.recorder
    TRUNKLINE_NATS=nats://127.0.0.1:4222        the server, or several, comma-separated
    TRUNKLINE_REPLICAS=3                        copies of each stream on a cluster: 1 unless given
    TRUNKLINE_TIMEOUT=15                        seconds that a call may take, a change of servers included

Each application name has its own stream, made on first use, and never shared with Trunkline's log. A save is one
message, or one atomic batch. The library is synchronous: its calls, from any number of threads, are carried out on an
event loop in a thread of its own, with one connection a factory. docs/recorder.md is the guide.
"""

from trunkline_events.recorder.recorders import (
    NatsAggregateRecorder,
    NatsApplicationRecorder,
    NatsFactory,
    NatsProcessRecorder,
    NatsSubscription,
    NatsTrackingRecorder,
    SettingsError,
)

__all__ = [
    "NatsAggregateRecorder",
    "NatsApplicationRecorder",
    "NatsFactory",
    "NatsProcessRecorder",
    "NatsSubscription",
    "NatsTrackingRecorder",
    "SettingsError",
]
