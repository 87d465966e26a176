"""Settings: which source wins, what a file may say, and what is said of one that can't be used."""

from collections.abc import Callable
from pathlib import Path

import pytest
from trunkline import settings
from trunkline.settings import BadSettings, Settings

Write = Callable[[str], str]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trunkline.yaml of whoever runs the tests counts."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> str:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return str(path)

    return written


def test_without_anything_the_defaults_count() -> None:
    chosen = settings.load({}, {"XDG_DATA_HOME": "/srv"})
    assert chosen == Settings(data=Path("/srv/trunkline"))
    assert (chosen.nats, chosen.nats_port, chosen.durability, chosen.workers) == (None, 4222, "always", 0)


@pytest.mark.parametrize(
    ("flag", "variable", "in_file", "wins"),
    [("1", "2", "3", 1), (None, "2", "3", 2), (None, None, "3", 3), (None, None, None, 0), (None, "", "3", 3)],
    ids=["flag", "environment", "file", "default", "an empty variable is none"],
)
def test_a_flag_outweighs_the_environment_and_that_the_file(
    flag: str | None, variable: str | None, in_file: str | None, wins: int, write: Write
) -> None:
    environ = {"TRUNKLINE_CONFIG": write(f"workers: {in_file}" if in_file else "durability: process")}
    if variable is not None:
        environ["TRUNKLINE_WORKERS"] = variable
    assert settings.load({"workers": flag}, environ).workers == wins


def test_a_flag_for_the_file_outweighs_the_variable_for_it(write: Write) -> None:
    chosen = settings.load({"config": write("nats_port: 5000")}, {"TRUNKLINE_CONFIG": "gone.yaml"})
    assert chosen.nats_port == 5000


def test_trunkline_yaml_in_the_folder_counts_without_being_named(tmp_path: Path) -> None:
    (tmp_path / "trunkline.yaml").write_text("durability: process\nworkers:\n")
    chosen = settings.load({}, {})
    assert (chosen.durability, chosen.workers) == ("process", 0)


def test_flags_that_are_no_settings_are_left_alone() -> None:
    assert settings.load({"ready_file": "x", "command": "up"}, {}).workers == 0


def test_the_data_folder_is_absolute_and_knows_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    assert settings.load({"data": "~/log"}, {}).data == Path("/somebody/log")
    assert settings.load({"data": "log"}, {}).data == tmp_path / "log"


@pytest.mark.parametrize(
    ("text", "environ", "expanded"),
    [
        ("${PORT}", {"PORT": "5"}, "5"),
        ("${PORT:4222}", {"PORT": "5"}, "5"),
        ("${PORT:4222}", {}, "4222"),
        ("${PORT:}", {}, ""),
        ("nats://${HOST:a}:${PORT:1}", {"HOST": "b"}, "nats://b:1"),
        ("${URL:nats://h:1}", {}, "nats://h:1"),
        ("$PORT ${} ${1}", {"PORT": "5"}, "$PORT ${} ${1}"),
    ],
)
def test_a_reference_becomes_its_variable_else_its_default(text: str, environ: dict[str, str], expanded: str) -> None:
    assert settings.expand(text, environ) == expanded


def test_a_file_is_expanded_before_it_is_read(write: Write) -> None:
    assert settings.load({"config": write("nats_port: ${PORT:5000}")}, {"PORT": "6000"}).nats_port == 6000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nats_port: ${PORT}", "${PORT} is not set; set it, or write ${PORT:default}"),
        ("nats_prot: 1", "'nats_prot' is not a setting; there are nats, data"),
        ("- nats", "must hold settings by name"),
        ("a: [", "can't be read"),
        ("durability: maybe", "durability = 'maybe' from"),
    ],
)
def test_a_bad_file_is_refused_by_name(text: str, told: str, write: Write) -> None:
    with pytest.raises(BadSettings) as caught:
        settings.load({"config": write(text)}, {})
    assert told in str(caught.value)


def test_a_file_that_is_named_must_be_there() -> None:
    with pytest.raises(BadSettings, match=r"there is no file gone\.yaml; give another one with --config"):
        settings.load({"config": "gone.yaml"}, {})


@pytest.mark.parametrize(
    ("flags", "environ", "told"),
    [
        ({"workers": "many"}, {}, "workers = 'many' from the command line: Expected `int`"),
        ({}, {"TRUNKLINE_WORKERS": "many"}, "workers = 'many' from the environment: Expected `int`"),
        ({}, {"TRUNKLINE_DURABILITY": "maybe"}, "durability = 'maybe' from the environment: Invalid enum value"),
        ({"nats_port": "99999"}, {}, "nats_port = '99999' from the command line: Expected `int` <= 65535"),
        ({"nats_port": "-1"}, {}, "nats_port = '-1' from the command line: Expected `int` >= 0"),
        ({}, {"TRUNKLINE_NATS_PORT": "65536"}, "nats_port = '65536' from the environment: Expected `int` <= 65535"),
        ({}, {"TRUNKLINE_HTTP_PORT": "http"}, "http_port = 'http' from the environment: Expected `int"),
        ({"http_port": "65536"}, {}, "http_port = '65536' from the command line: Expected `int` <= 65535"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_where_it_came_from(
    flags: dict[str, str], environ: dict[str, str], told: str
) -> None:
    with pytest.raises(BadSettings) as caught:
        settings.load(flags, environ)
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("see `trunkline up --help`")


@pytest.mark.parametrize("port", ["0", "65535"])
def test_the_first_and_the_last_port_count(port: str) -> None:
    chosen = settings.load({"nats_port": port}, {"TRUNKLINE_HTTP_PORT": port})
    assert (chosen.nats_port, chosen.http_port) == (int(port), int(port))


@pytest.mark.parametrize(
    ("reference", "found"), [("env:A_KEY", "sk"), ("env:NO_KEY", None), ("file:A_KEY", None), (None, None)]
)
def test_a_secret_is_found_by_its_reference(reference: str | None, found: str | None) -> None:
    assert settings.secret(reference, {"A_KEY": "sk"}) == found


def test_a_client_goes_where_the_environment_says() -> None:
    assert settings.client_url({}) == "nats://127.0.0.1:4222"
    assert settings.client_url({"TRUNKLINE_NATS": "nats://h:1"}) == "nats://h:1"
    assert settings.client_key({"TRUNKLINE_KEY": ""}) is None
