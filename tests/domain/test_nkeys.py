"""NKeys: the keys by which a NATS server knows a user without seeing its secret."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from trunkline.nkeys import USERS, environment, main
from trunkline_events.connection import _credentials
from trunkline_events.nkeys import BadSeed, is_seed, public_key, seed_of, sign

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_the_pair_of_the_documentation_of_nats_is_one() -> None:
    assert public_key(SEED) == PUBLIC


@given(st.binary(min_size=32, max_size=32))
def test_32_bytes_make_a_user_whose_signature_holds(raw: bytes) -> None:
    seed = seed_of(raw)
    assert (seed[:2], len(seed), public_key(seed)[0], is_seed(seed)) == ("SU", 58, "U", True)
    key = Ed25519PrivateKey.from_private_bytes(raw).public_key()
    key.verify(base64.b64decode(sign(seed, "drawn")), b"drawn")


def test_a_seed_with_another_letter_is_none() -> None:
    for place in range(len(SEED)):
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567":
            other = SEED[:place] + letter + SEED[place + 1 :]
            assert is_seed(other) == (other == SEED)


@pytest.mark.parametrize("text", ["", "S", "secret", PUBLIC, SEED[:-1], SEED.lower(), SEED + "A", "SUÄ"])
def test_a_password_that_is_no_seed_stays_a_password(text: str) -> None:
    assert not is_seed(text)
    with pytest.raises(BadSeed, match=r"python -m trunkline\.nkeys"):
        public_key(text)


def test_a_seed_stands_in_an_address_where_a_password_would() -> None:
    assert _credentials(f"nats://router:{SEED}@a:4222,nats://router:{SEED}@b:4222") == {
        "user": "router",
        "password": SEED,
    }


def test_a_user_of_ones_own_gets_a_key_by_a_name_that_a_shell_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--user", "team-a"]) == 0
    told = dict(line.split("=") for line in capsys.readouterr().out.splitlines())
    assert list(told) == ["TRUNKLINE_TEAM_A_NKEY", "TRUNKLINE_TEAM_A_SEED"]


@pytest.mark.parametrize(("servers", "profile"), [("1", "single"), ("3", "cluster")])
def test_an_environment_file_says_how_many_servers_there_are(
    capsys: pytest.CaptureFixture[str], servers: str, profile: str
) -> None:
    assert main(["--servers", servers]) == 0
    told = dict(line.split("=") for line in capsys.readouterr().out.splitlines())
    assert (told["COMPOSE_PROFILES"], told["TRUNKLINE_REPLICAS"]) == (profile, servers)


def test_every_user_gets_keys_of_its_own() -> None:
    made = environment()
    assert len(made) == len(set(made.values())) == 2 * len(USERS)
    for user in USERS:
        assert public_key(made[f"TRUNKLINE_{user.upper()}_SEED"]) == made[f"TRUNKLINE_{user.upper()}_NKEY"]
