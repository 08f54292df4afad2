"""Git over ssh: with one key, to a host whose keys are given, and with nothing of the worker's own account."""

import os
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from core.errors import Invalid
from ingest.sources.config import Secrets

KEY, KNOWN_HOSTS = "key", "known_hosts"
CONNECT_S = 15
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9a-f:]+")
# No configuration of an account or a machine, no agent, no other key, no question to anybody, nothing forwarded or run.
OPTIONS = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no",
    "CheckHostIP=no", "VerifyHostKeyDNS=no", "IdentitiesOnly=yes", "IdentityAgent=none", "CertificateFile=none",
    "PreferredAuthentications=publickey", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes",
    "PermitLocalCommand=no", "ProxyCommand=none", "ControlPath=none", f"ConnectTimeout={CONNECT_S}",
    "ServerAliveInterval=15",
)  # fmt: skip


def check_ssh(url: str, secrets: Secrets) -> None:
    """Raises Invalid for an address that ssh could take for anything else, and where a key of the two is lacking."""
    parts = urlsplit(url)
    if not _HOST.fullmatch(parts.hostname or "") or not _USER.fullmatch(parts.username or ""):
        raise Invalid(f"{url[:80]!r} is no address such as ssh://git@git.acme.example/handbook.git")
    if lacking := [name for name in (KEY, KNOWN_HOSTS) if name not in secrets]:
        raise Invalid(f"a repository over ssh needs --secret {' and --secret '.join(f'{n}=file:/…' for n in lacking)}")


def ssh_environment(secrets: Secrets, scratch: Path) -> dict[str, str]:
    """What git needs to call ssh; the key lies in `scratch`, for this process's account alone. Raises Misconfigured."""
    places = {name: scratch / f"ssh_{name}" for name in (KEY, KNOWN_HOSTS)}
    for name, place in places.items():
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{secrets.get(name)}\n")  # a key without its last line's end is none
    options = (*OPTIONS, f"UserKnownHostsFile={places[KNOWN_HOSTS]}")
    command = ["ssh", "-F", "none", "-i", str(places[KEY]), *(part for each in options for part in ("-o", each))]
    return {"GIT_SSH_COMMAND": shlex.join(command), "GIT_SSH_VARIANT": "ssh"}
