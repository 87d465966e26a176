"""JetStream's error codes, as far as we act on them: `err_code` in its answers. Prose is no interface."""

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""An expected sequence isn't so: on a single server, and replicated or in a batch."""

TRANSIENT = frozenset({10008, 10118, 10160, 10167})
"""No leader, or the leader is behind: worth another try until the deadline (10008 unavailable, 10118 not leader …)."""

INCOMPLETE_BATCH = 10176
"""A batch lost a part on the way; nothing of it is stored."""

IN_PROCESS = 10158
"""A message of this id is on its way already, by an earlier try of ours: whether it is stored will turn out."""

NO_ROOM = frozenset({10023, 10047})
"""A server, and an account, that has no storage left."""

NO_CLUSTER = 10074
TOO_FEW_PEERS = 10005
"""More copies are asked for than there are servers to keep them."""

OTHER_CONFIGURATION = 10058
"""The stream is there with another configuration, such as more replicas."""

NO_MESSAGE, NO_STREAM = 10037, 10059
