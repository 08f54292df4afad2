"""Each command of docs/sources.md, and of the help, is taken as it stands."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import citadel
from cli.source_add import EXAMPLES
from tests.conftest import World

DOCS = Path(__file__).resolve().parent.parent.parent / "docs/sources.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", ["docs", "help"])
def test_the_commands_are_taken_as_they_stand(
    world: World, app_url: str, maintenance_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("handbook", "examples/acme/files"):
        (tmp_path / folder).mkdir(parents=True)
    env = {"CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url}
    lines = "".join(BLOCK.findall(DOCS.read_text())) if text == "docs" else EXAMPLES.replace("\\\n", " ")
    commands = [line.strip() for line in lines.splitlines() if line.strip().startswith("citadel ")]
    assert len(commands) > 6
    kinds = set()
    for command in commands:
        done = CliRunner().invoke(citadel, shlex.split(command)[1:], env=env)
        assert done.exit_code == 0, f"{command}: {done.output}"
        kinds |= set(re.findall("--kind ([a-z]+)", command))
    assert kinds == {"files", "git", "website", "mail", "sql", "reader"}
    told = CliRunner().invoke(citadel, ["sources", "list"], env=env).output
    assert "website" in told and "Europe/Berlin" in told and "lag" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "nowhere"], "is no folder here"),
        (["x", "s3://b", "--kind", "files", "--secret", "key=in-clear"], "by reference"),
        (["x", "s3://b", "--kind", "files", "--secret", "key"], "KEY=VALUE"),
        (["x", "https://a.example/", "--kind", "website", "--set", "max_pages=many"], "max_pages"),
        (["x", "https://a.example/", "--kind", "website", "--set", "depth=3"], "not depth"),
        (["x", "https://a.example/", "--kind", "website", "--schedule", "often"], "cron expression"),
        (
            ["x", "https://a.example/", "--kind", "website", "--schedule", "@daily", "--timezone", "Mars"],
            "no time zone",
        ),
    ],
)
def test_a_slip_is_told(world: World, app_url: str, maintenance_url: str, arguments: list[str], said: str) -> None:
    env = {"CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url}
    done = CliRunner().invoke(citadel, ["sources", "add", *arguments], env=env)
    assert done.exit_code == 2 and said in done.output and "in-clear" not in done.output
