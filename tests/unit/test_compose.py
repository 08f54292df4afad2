"""What must hold of docker-compose.yml, the image and the example of its secrets."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.up import children
from core.config import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load(ROOT.joinpath("docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "api", "worker", "fetcher", "evaluator", "dispatcher", "beat", "follower")

# The floors of our threat list: pgvector 0.8.6 and Postgres 18 in images, Redis 8.2.2.
PGVECTOR_FLOOR = (0, 8, 6)
REDIS_FLOOR = (8, 2, 2)


def _version(tag: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]+", tag)[0].split("."))  # type: ignore[index]


def test_images_are_pinned_to_a_full_version_at_or_above_the_floors() -> None:
    bases = re.findall(r"^FROM (\S+)", ROOT.joinpath("Dockerfile").read_text(), re.M)
    images = [*bases, *(service["image"] for service in SERVICES.values())]
    assert len(images) == len(SERVICES) + 2
    for image in images:
        assert re.search(r":\d+\.\d+\.\d+", image), f"{image} is not pinned"
        assert "latest" not in image
    name, _, tag = SERVICES["postgres"]["image"].partition(":")
    assert name == "pgvector/pgvector"
    assert _version(tag) >= PGVECTOR_FLOOR
    assert "-pg18" in tag
    assert _version(SERVICES["redis"]["image"].partition(":")[2]) >= REDIS_FLOOR


def test_only_the_migrations_connect_as_the_administrator() -> None:
    holders = {name for name, service in SERVICES.items() if "CITADEL_DATABASE_URL" in service["environment"]}
    assert holders == {"migrate"}
    admin_secret = {name for name, service in SERVICES.items() if "POSTGRES_PASSWORD" in str(service["environment"])}
    assert admin_secret == {"migrate", "postgres"}
    for name in ("api", "evaluator"):
        assert "//citadel_app:" in SERVICES[name]["environment"]["CITADEL_APP_DATABASE_URL"]
    for name in ("api", "worker", "fetcher", "evaluator", "dispatcher", "follower"):
        assert "//citadel_maintenance:" in SERVICES[name]["environment"]["CITADEL_MAINTENANCE_DATABASE_URL"]
    for name in ("worker", "fetcher", "dispatcher", "beat", "follower"):
        assert "CITADEL_APP_DATABASE_URL" not in SERVICES[name]["environment"]
    assert "CITADEL_MAINTENANCE_DATABASE_URL" not in SERVICES["beat"]["environment"]  # it only sends messages


def test_the_processes_are_those_of_citadel_up() -> None:
    def queues(words: list[str]) -> set[str]:
        return set(words[words.index("--queues") + 1].split(",")) if "--queues" in words else set()

    started = {child.name: list(child.argv[3:]) for child in children(Settings(), {})}
    assert set(started) | {"migrate"} == set(OURS)
    for name, words in started.items():
        command = SERVICES[name]["command"]
        assert (command[0], queues(command)) == (words[0], queues(words)), name


def test_postgres_asks_everyone_for_a_password() -> None:
    environment = SERVICES["postgres"]["environment"]
    assert "--auth=scram-sha-256" in environment["POSTGRES_INITDB_ARGS"].split()
    assert "POSTGRES_HOST_AUTH_METHOD" not in environment  # `trust` would come from here


def test_redis_keeps_what_it_is_given() -> None:
    command = SERVICES["redis"]["command"]
    given = {command[i]: command[i + 1] for i in range(1, len(command), 2)}
    assert given["--appendonly"] == "yes"
    assert given["--maxmemory-policy"] == "noeviction"
    assert given["--requirepass"].startswith("${REDIS_PASSWORD:?")


def test_health_checks_and_what_waits_for_them() -> None:
    for name in ("postgres", "redis", "api", "worker"):
        assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("api", "worker", "fetcher", "dispatcher", "beat", "follower"):
        assert SERVICES[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "redis": {"condition": "service_healthy"},
        }


def test_containers_have_no_rights_to_spare() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert ("cap_add" in service) == (name == "postgres"), name
    assert re.search(r"^USER (?!root|0)\w+$", ROOT.joinpath("Dockerfile").read_text(), re.M)


def test_data_stores_are_reached_by_our_processes_only() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["api"]
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    for name in ("postgres", "redis", *set(OURS) - {"api"}):
        assert SERVICES[name]["networks"] == ["backend"], name


def _interpolated() -> set[str]:
    return set(re.findall(r"\$\{(\w+)", ROOT.joinpath("docker-compose.yml").read_text()))


def _exampled() -> dict[str, str]:
    lines = ROOT.joinpath(".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_secret_is_asked_for_and_none_is_given() -> None:
    text = ROOT.joinpath("docker-compose.yml").read_text()
    assert _interpolated() == set(_exampled())
    for name in _interpolated():
        if name.endswith("PASSWORD"):
            assert not re.search(rf"\$\{{{name}(?!:\?)", text), f"{name} must be required"
            assert _exampled()[name] == ""


def test_what_the_example_sets_are_the_defaults() -> None:
    assert load_settings(_exampled(), running_stack=False) == Settings()


def test_nothing_but_the_packages_reaches_the_image() -> None:
    lines = [line for line in ROOT.joinpath(".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    listed = {line[1:] for line in lines if line.startswith("!")}
    assert listed == packages | {"pyproject.toml", "requirements.lock", "README.md", "LICENSE"}


def _compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    return None


def _config(command: list[str], folder: Path, secrets: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    env_file = folder / "secrets.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    kept = {name: value for name, value in os.environ.items() if name not in _interpolated()}
    argv = [*command, "--env-file", str(env_file), "-f", str(ROOT / "docker-compose.yml"), "config"]
    return subprocess.run(argv, env=kept, cwd=ROOT, capture_output=True, text=True)


def test_compose_accepts_it_and_refuses_a_missing_secret(tmp_path: Path) -> None:
    command = _compose_command()
    if command is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    secrets = {name: f"secret-{number}" for number, name in enumerate(sorted(_interpolated())) if "PASSWORD" in name}
    accepted = _config(command, tmp_path, secrets)
    assert accepted.returncode == 0, accepted.stderr
    assert set(yaml.safe_load(accepted.stdout)["services"]) == set(SERVICES)
    for name in secrets:
        refused = _config(command, tmp_path, {**secrets, name: ""})
        assert refused.returncode != 0
        assert f"set {name} in .env" in refused.stderr
