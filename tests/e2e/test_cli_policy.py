"""`trunkline policy`, as a user has it."""

import json
from pathlib import Path

import pytest
from cli_kit import Trunkline, on_terminal
from trunkline.cli.documents import as_yaml
from trunkline.client import Gateway

pytest_plugins = ["gateway", "console"]

POLICY = """\
rules:
- name: long
  when:
    min_input_tokens: 8000
  use:
  - tokens
  - echo
- name: the rest
  optimize: cost
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return path


async def test_what_is_got_can_be_changed_and_published(trunkline: Trunkline, file: Path) -> None:
    done = await trunkline("policy", "publish", "policy.yaml", "--reason", "first")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("version 1 published (event ")
    got = await trunkline("policy", "get")
    assert got.out == POLICY
    assert got.err.startswith("version 1, in force, published ")
    assert got.err.endswith(": first\n")
    again = await trunkline("policy", "publish", "-", stdin=got.out.encode())
    assert again.out == "version 1 says the same and is in force already\n"
    changed = got.out.replace("cost", "latency").encode()
    assert (await trunkline("policy", "publish", "-", "--base", "1", stdin=changed)).out.startswith(
        "version 2 published"
    )
    late = await trunkline("policy", "publish", "-", "--base", "1", stdin=POLICY.encode())
    assert late.code == 1
    assert "version 2 of the policy is in force, not 1" in late.err


async def test_json_is_taken_and_given(trunkline: Trunkline, file: Path) -> None:
    document = {"rules": [{"name": "a", "use": ["echo"]}]}
    done = await trunkline("policy", "publish", "-", "--json", stdin=json.dumps(document, indent="\t").encode())
    assert (done.json["version"], done.json["changed"]) == (1, True)
    assert (await trunkline("policy", "get", "--json")).json["policy"] == document
    assert (await trunkline("policy", "history", "--json")).json["versions"][0]["rules"] == 1


async def test_a_bad_policy_is_told_place_by_place(trunkline: Trunkline, file: Path) -> None:
    file.write_text(POLICY.replace("echo", "ecco").replace("optimize: cost", "optimize: 5"), encoding="utf-8")
    done = await trunkline("policy", "publish", "policy.yaml")
    assert (done.code, done.out) == (2, "")
    words = '"balanced", "cost", "latency", "least_busy", "quality", "round_robin"'
    assert done.err.splitlines() == [
        f"rules[1].optimize: must be one of {words}, not 5",
        'rules[0].use[1]: no model has the id or the tag "ecco"; did you mean "echo"?',
        "trunkline: the policy can't be published as it is",
        "  next: mend these places and publish it again",
    ]
    told = await trunkline("policy", "publish", "policy.yaml", "--json")
    assert told.code == 2
    assert [one["path"] for one in told.json["error"]["metadata"]["problems"]] == [
        "rules[1].optimize",
        "rules[0].use[1]",
    ]
    checked = await trunkline("policy", "validate", "policy.yaml")
    assert checked.code == 2
    assert checked.out.splitlines() == done.err.splitlines()[:2]
    assert "policy.yaml can't be published as it is" in checked.err


async def test_a_good_policy_is_said_to_be_and_what_is_doubtful_is_a_warning(
    trunkline: Trunkline, file: Path, gw: Gateway
) -> None:
    assert (await trunkline("policy", "validate", "policy.yaml")).out == "policy.yaml can be published\n"
    await gw.models.disable(id="tokens")
    done = await trunkline("policy", "validate", "policy.yaml")
    assert (done.code, done.out) == (0, "policy.yaml can be published\n")
    assert done.err == 'warning: rules[0].use[0]: takes no requests: model "tokens" is disabled\n'
    assert (await trunkline("policy", "get")).out == "{}\n"


async def test_versions_are_listed_compared_and_rolled_back(trunkline: Trunkline, file: Path, gw: Gateway) -> None:
    await gw.policy.publish(policy={"rules": [{"name": "long", "use": ["echo"]}, {"name": "old"}]})
    await trunkline("policy", "publish", "policy.yaml")
    told = await trunkline("policy", "diff")
    assert told.err == "version 1 → version 2\n"
    assert told.out.splitlines() == [
        '- rule "old"',
        '+ rule "the rest": {"optimize": "cost"}',
        '~ rule "long" when.min_input_tokens: - → 8000',
        '~ rule "long" use: ["echo"] → ["tokens", "echo"]',
    ]
    assert (await trunkline("policy", "diff", "1")).out == told.out
    assert (await trunkline("policy", "diff", "1", "policy.yaml")).out == told.out
    assert (await trunkline("policy", "diff", "policy.yaml")).err == "version 2 → the document: no difference\n"
    back = await trunkline("policy", "rollback", "1", "--reason", "oops")
    assert back.out.startswith("version 3 rolled back to 1 (event ")
    rows = [line.split("\t") for line in (await trunkline("policy", "history")).out.splitlines()]
    shown = [(version, kind, rules, reason) for version, _, kind, rules, _, reason in rows]
    assert shown == [
        ("3", "rolled-back to 1", "2", "oops"),
        ("2", "published", "2", "-"),
        ("1", "published", "2", "-"),
    ]
    page = await trunkline("policy", "history", "--limit", "1", "--after", "3")
    assert page.out.startswith("2\t")
    assert "next: --after 2" in page.err


async def test_an_override_is_set_for_a_while_shown_and_cleared(trunkline: Trunkline) -> None:
    done = await trunkline("policy", "override", "echo", "--for", "10m", "--reason", "an incident")
    assert done.out.startswith("every request goes to echo until 20")
    assert "(an incident) (event " in done.out
    assert "overridden: every request goes to echo until 20" in (await trunkline("policy", "get")).err
    assert (await trunkline("policy", "override", "--clear")).out.startswith("the policy decides again (event ")
    assert (await trunkline("policy", "override", "--clear")).out == "there is no override\n"
    assert (await trunkline("policy", "override", "echo", "--json")).json["override"]["until"] is None


@pytest.mark.parametrize(
    ("arguments", "text", "code", "told"),
    [
        ("override", "", 2, "name the model that is to serve everything, or give --clear"),
        ("override echo --clear", "", 2, "or give --clear"),
        ("override echo --for soon", "", 2, "--for soon: write how long as 90s, 10m, 2h or 1d"),
        ("override ecco", "", 3, 'did you mean "echo"'),
        ("publish gone.yaml", "", 2, "there is no file gone.yaml"),
        ("publish -", "", 2, "policy: must be an object, not null"),
        ("publish -", "rules: [", 2, "stdin: line 1, column 9: "),
        ("publish -", "rules: []\nrules: []", 2, "stdin: line 2, column 1: 'rules' is given twice"),
        (
            "publish -",
            "rules:\n- name: 2026-11-01",
            2,
            'rules[0].name: YAML takes this for a date; write it in quotes: "2',
        ),
        ("publish -", "rules:\n- weights: {4: 1}", 2, 'rules[0].weights: 4 is no name; write it in quotes: "4"'),
        ("publish -", "rules:\n- min_match: .nan", 2, "rules[0].min_match: nan is no number"),
        ("publish -", "a: &a [*a]", 2, "no policy is nested so deep"),
        ("get --version 9", "", 3, "there is no version 9 of the policy; `trunkline policy history`"),
        ("diff a b", "", 2, "'a' is no version; a file comes second"),
    ],
)
async def test_what_makes_no_sense_is_told_with_its_exit_code(
    trunkline: Trunkline, arguments: str, text: str, code: int, told: str
) -> None:
    done = await trunkline("policy", *arguments.split(), stdin=text.encode())
    assert (done.code, told in done.err) == (code, True), done


async def test_a_policy_is_yaml_on_a_terminal_too(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    document = {"rules": [{"name": "ü", "use": ["echo"]}], "defaults": {"require": {"max_cost_usd": "0.05"}}}
    await gw.policy.publish(policy=document)
    shown = await on_terminal("policy", "get", cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    assert "\n".join(shown.splitlines()[1:]) == as_yaml(document)
    assert "- name: ü" in shown
    assert "max_cost_usd: '0.05'" in shown
