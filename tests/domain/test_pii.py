"""What is personal data or a key in a text, and that where it was masked nothing is left. Numbers: test_pii_numbers."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trunkline.pii import ALL, Found, Kind, find, redact, redact_json
from trunkline_actors.keys import made_of
from trunkline_events.nkeys import seed_of

PAGE = Path(__file__).parents[2] / "docs" / "pii.md"


def seen(text: str) -> list[tuple[Kind, str]]:
    return [(one.kind, text[one.start : one.end]) for one in find(text)]


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


JWT = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': '1'})}.c2lnbmF0dXJl-_8"
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEpAIBAAKCAQEA0Z3VS5JJ\n-----END RSA PRIVATE KEY-----"
)
OURS = made_of(bytes(range(32)))
SEED = seed_of(bytes(range(32)))

# -- e-mail addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("a@b.co", "jane.doe@example.com", "jane+tag@mail.example.co.uk", "o'brien@example.com", "x_1%y@example.org"),
        *("jane@xn--mller-kva.de", "jane@example.xn--p1ai", "JANE@EXAMPLE.COM", "müller@example.de", "jane@müller.de"),
        *("030-1234567@example.com", "4111111111111111@example.com", "1@1.example.com"),
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "Mail {}.", "<{}>", "({}), or", '"{}"', "'{}'", "mailto:{}?x=1", "写信给{}。"]
)
def test_an_address_is_found_without_what_is_around_it(address: str, around: str) -> None:
    assert seen(around.format(address)) == [("email", address)]


def test_an_address_ends_where_its_domain_does() -> None:
    assert redact("the jane@example.com-address, a@b.com;c@d.com") == "the [EMAIL]-address, [EMAIL];[EMAIL]"


@pytest.mark.parametrize(
    "text",
    [
        "@jane",
        "jane@",
        "jane@localhost",
        "jane@10.0.0.1",
        "jane@[10.0.0.1]",
        "a @ b.com",
        "icon@2x.png",
        "left-pad@1.3.0",
    ],
)
def test_what_has_an_at_sign_only_is_no_address(text: str) -> None:
    assert find(text) == []


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        *(OURS, OURS + "x", SEED, JWT, PEM, PEM.replace("\n", "\\n"), PEM.replace("RSA ", "")),
        *("sk-" + "a1" * 24, "sk-" + "a" * 48, "sk-ant-api03-Ab_c-1234567890-defgh", "sk-proj-Ab1_cdefghijklmnop-qrst"),
        *("sk-or-v1-0123456789abcdef0123456789abcdef", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "aB3" * 12),
        *("github_pat_11ABCDEFG0" + "a" * 60, "xoxb-123456789012-abcdefghij", "xoxp-1234567890-a", "AIza" + "Sy_-" * 9),
        *("gsk_" + "aB3" * 12, "hf_" + "aB" * 17, "xai-" + "aB3" * 12, "glpat-0123456789abcdefghij"),
        f"{part({'alg': 'dir', 'enc': 'A256GCM'})}..aXY.Y2lwaGVy.dGFn",
        f"{part({'typ': 'JWT', 'alg': 'none'})}.{part({})}.",
    ],
)
@pytest.mark.parametrize("around", ["{}", "key={} ", '"{}"', "Authorization: Bearer {}\n", "`{}`", "x-api-key:{},"])
def test_a_key_is_found(key: str, around: str) -> None:
    assert seen(around.format(key)) == [("key", key)]


def test_a_token_behind_bearer_is_found_whatever_it_is() -> None:
    assert (
        redact("curl -H 'authorization: bearer abc.DEF~1234567890+/xyz=='") == "curl -H 'authorization: bearer [KEY]'"
    )
    assert redact("BEARER 0123456789abcdefghij. Then") == "BEARER [KEY]. Then"


def test_a_key_that_was_cut_off_is_found_as_far_as_it_goes() -> None:
    begun = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY\nMHcCAQEEIIrYSSNQ"
    assert redact(f"{begun} and more") == "[KEY] and more"


@pytest.mark.parametrize(
    "text",
    [
        *("tl-short", "sk-short-1", "sk-this-is-a-list-of-words-and-no-key", "task-0123456789abcdefghij", "AKIASHORT"),
        *("Bearer $TRUNKLINE_KEY", "Bearer <token>", "the bearer of authentication/authorization", "Bearer abc123"),
        *(
            "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG\n-----END PUBLIC KEY-----",
            "-----BEGIN PRIVATE KEY----- begins it",
        ),
        *(
            "SUBJECT",
            "SU" + "1" * 56,
            "ghp_x",
            "eyJhbGciOiJIUzI1NiJ9",
            f"{part({'a': 1})}.{part({})}.abc",
            "eyXX.eyYY.zz",
        ),
    ],
)
def test_what_begins_like_a_key_only_is_none(text: str) -> None:
    assert find(text) == []


# -- together ----------------------------------------------------------------------------------------------------------


def test_the_digits_of_something_else_are_nothing_of_their_own() -> None:
    text = f"sk-{'0' * 20}-030-1234567 a-4111111111111111@example.com 4111-1111-1111-1111"
    assert [kind for kind, _ in seen(text)] == ["key", "email", "card"]
    assert find(text, ["phone"]) == []


def test_only_what_is_asked_for_is_masked() -> None:
    text = f"jane@example.com, +49 30 1234567, 4111 1111 1111 1111, {OURS}"
    assert redact(text) == "[EMAIL], [PHONE], [CARD], [KEY]"
    assert redact(text, ["email", "key"]) == "[EMAIL], +49 30 1234567, 4111 1111 1111 1111, [KEY]"
    assert redact(text, []) == text


def test_a_mask_is_given_what_was_found_and_what_was_there() -> None:
    def last_four(found: Found, original: str) -> str:
        return f"<{found.kind} …{original[-4:]}>"

    assert redact("Pay 4111 1111 1111 1111 now", mask=last_four) == "Pay <card …1111> now"


def test_what_was_found_does_not_say_it() -> None:
    assert repr(find("x jane@example.com")) == "[Found(kind='email', start=2, end=18)]"


def test_json_keeps_its_numbers_and_its_structure() -> None:
    value = {"a": ["jane@example.com", 4111111111111111, 1.5, None, True, {"b": "030 1234567"}], "c": {}}
    before = json.dumps(value)
    assert redact_json(value) == {"a": ["[EMAIL]", 4111111111111111, 1.5, None, True, {"b": "[PHONE]"}], "c": {}}
    assert json.dumps(value) == before


def test_names_in_json_are_redacted_and_none_is_lost() -> None:
    value = {"a@b.co": 1, "[EMAIL]": 2, "c@d.co": 3, "[EMAIL] (2)": 4, "to e@f.co": "a@b.co"}
    masked = {"[EMAIL] (3)": 1, "[EMAIL]": 2, "[EMAIL] (4)": 3, "[EMAIL] (2)": 4, "to [EMAIL]": "[EMAIL]"}
    assert list(redact_json(value).items()) == list(masked.items())
    assert redact_json(masked) == masked


PIECES = st.sampled_from(
    [
        *("030", "0171", "00", "0", "+49", "+", "(030)", "(0)", "(", ")", "1234567", "123", "415", "555", "2671", "12"),
        *("4111", "1111", "4111111111111111", "4111 1111 1111 1111", "501800000009", "01.02.2026", "10.0.0.1", "ISBN"),
        *(
            " ",
            " ",
            "-",
            ".",
            "/",
            ":",
            ",",
            "@",
            "_",
            "'",
            "a",
            "x",
            "com",
            "b.co",
            "jane@example.com",
            "[",
            "]",
            "\n",
        ),
        *("sk-", "Bearer ", "AKIAIOSFODNN7EXAMPLE", OURS, SEED, JWT, "eyJ", "=", "~", "DE89 3704 0044 0532 0130 00"),
        *(
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            "abcdefghijklmnopqrst",
            "\u00a0",
            "é",
            "号",
            "\ud800",
        ),
    ]
)
TEXTS = st.lists(PIECES, max_size=24).map("".join) | st.text("0123456789+ -./():", max_size=60) | st.text()


@settings(max_examples=300)
@given(TEXTS, st.sets(st.sampled_from(sorted(ALL))))
@example("030 1234567-4111111111111111", {"phone", "card"})
@example("030 1234567+49 30 123456", {"phone"})
def test_nothing_is_left_to_find_where_all_was_masked(text: str, kinds: set[Kind]) -> None:
    masked = redact(text, kinds)
    assert find(masked, kinds) == []
    assert redact(masked, kinds) == masked


@settings(max_examples=300)
@given(TEXTS)
@example("4111111111111111(030)0171")
def test_what_is_found_is_in_the_text_in_order_and_apart(text: str) -> None:
    ends = [0, *(place for one in find(text) for place in (one.start, one.end)), len(text)]
    assert ends == sorted(ends)
    assert all(one.start < one.end for one in find(text))


@given(st.text(st.characters(blacklist_categories=["Nd"], blacklist_characters="@\uff20-")))
def test_without_digits_at_signs_and_dashes_there_is_nothing(text: str) -> None:
    assert re.search("bearer|e[wy]|AIza|gh|gsk|hf|S[ACNOUX]", text, re.IGNORECASE) or find(text) == []


UNITS = [
    *("a", "A", "0", "4", "6", "1", " ", "-", ".", "+", "(", ")", "@", "_", "'", "/", ":", "=", "\n", "\\", "é", "号"),
    *(
        "a.",
        "a@",
        "a@a.",
        "@a.a",
        "a@xn--",
        ".-'",
        "4 ",
        "6 ",
        "6-",
        "62 ",
        "0 ",
        "01 ",
        "01-",
        "+1 ",
        "+1",
        "00",
        "(01)",
    ),
    *("030 ", "1.234", "12.", "1/1/", "555-", "555-555-", "2026-", "01.02.", "ISBN ", "ISBN 0-", "AA00 ", "AA00 AAAA "),
    *(
        "eyJ",
        "eyJ.",
        "eyJ..",
        "ey.",
        "tl-",
        "sk-",
        "sk-a ",
        "sk-a-",
        "AKIA",
        "S",
        "SU",
        "ghp_",
        "xoxb-",
        "AIza",
        "github_pat_",
    ),
    *("bearer ", "bearer", "bearer a.", "bearer\t", "-----", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "BEGIN A "),
    *("-----BEGIN PRIVATE KEY-----a", "-----BEGIN PRIVATE KEY-----\n", "01234567-0123-", "[EMAIL]"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", UNITS)
def test_no_text_is_long_enough_to_take_long(unit: str) -> None:
    """By the square of its length any of them would take many minutes."""
    find(unit * (200_000 // len(unit)) + "!")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "begun", ["a@", "bearer ", "bearer 1", "sk-", "-----BEGIN PRIVATE KEY-----", "eyJ", "+49 30 ", "4111 "]
)
def test_nor_what_something_begins_with(begun: str) -> None:
    for unit in ("a", "a.", "a-", "0", "0 ", "A1", " ", "/", "\n", "-"):
        find(begun + unit * (200_000 // len(unit)) + "!")


def test_the_page_shows_what_happens() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shown = re.findall(r"^(\w.*\))  # (.+)$", code, re.MULTILINE)
    space: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), space)
    assert len(shown) > 2
    assert [repr(eval(call, space)) for call, _ in shown] == [told for _, told in shown]
