"""`python -m trunkline.nkeys`: an NKey for every user of deploy/nats/accounts.conf, as lines for an environment file.

TRUNKLINE_ROUTER_NKEY=U…     for the NATS servers: public
TRUNKLINE_ROUTER_SEED=SU…    for that role alone: the secret, the password in its address
"""

import argparse
import re
import secrets
import sys

from trunkline_events.nkeys import public_key, seed_of

USERS = (
    *("registry", "router", "provider", "keeper", "workflow", "projector", "gateway"),
    *("actor", "operator", "client"),
)
"""As in deploy/nats/accounts.conf: one a role, one for several roles in one process, two for people and programs."""


def environment(users: tuple[str, ...] = USERS) -> dict[str, str]:
    """New keys: the public one and the seed of every user, by the names that the configuration has for them."""
    made: dict[str, str] = {}
    for user in users:
        seed = seed_of(secrets.token_bytes(32))
        name = re.sub("[^A-Z0-9]", "_", user.upper())  # what a shell takes
        made[f"TRUNKLINE_{name}_NKEY"], made[f"TRUNKLINE_{name}_SEED"] = public_key(seed), seed
    return made


def main(arguments: list[str] | None = None) -> int:
    """Print the lines, with what docker-compose.yml needs beside them."""
    parser = argparse.ArgumentParser(prog="python -m trunkline.nkeys", description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", type=int, choices=[1, 3], default=1, help="how many NATS servers (default 1)")
    parser.add_argument("--user", help="only a key for a user of this name")
    asked = parser.parse_args(arguments)
    lines = {"COMPOSE_PROFILES": "cluster" if asked.servers == 3 else "single", "TRUNKLINE_REPLICAS": asked.servers}
    made = environment((asked.user,)) if asked.user else {**lines, **environment()}
    for name, value in made.items():
        print(f"{name}={value}")  # noqa: T201 - it is what was asked for
    return 0


if __name__ == "__main__":
    sys.exit(main())
