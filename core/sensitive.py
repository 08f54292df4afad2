"""What personal data and secrets are told apart, and what a policy says is done about each kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from core.errors import Invalid

Kind = Literal[
    "private_key",  # PEM and PGP blocks
    "access_key",  # of AWS, Google, GitHub, Slack, Stripe and others, and JSON web tokens
    "password",  # the value beside a name such as password, secret or api_key; the one within a URL
    "iban",  # by the country's length and ISO 7064 mod 97-10
    "card",  # by a network's prefix and length, and the Luhn digit
    "national_id",  # of the countries in ingest/recognise.py, by their check digits
    "email",
    "ip_address",  # but not loopback, netmasks and multicast
    "phone",  # international, or national in the region of CITADEL_PHONE_REGION
    "token",  # a long random-looking word
]
Action = Literal["off", "flag", "mask", "quarantine"]  # from the loosest to the strictest
Policy = dict[Kind, Action]

KINDS: tuple[Kind, ...] = get_args(Kind)
ACTIONS: tuple[Action, ...] = get_args(Action)
FLAG: Action = "flag"
EVERY = "all"  # stands for every kind
UNSET = "default"  # in a part of a policy: as the tenant has it, and there as the installation does


@dataclass(frozen=True, slots=True)
class Screening:
    """Under which policy a text was looked through for personal data and secrets, and what it held."""

    policy: Policy
    found: dict[Kind, int]  # how many of each; what is masked is no longer in the text


def read_policy(text: str) -> Policy:
    """The whole policy that a setting such as `flag,card=mask,private_key=quarantine` stands for; a word alone is for
    every kind, and what is not named is flagged. Raises Invalid."""
    words = [word if "=" in word else f"{EVERY}={word}" for word in text.replace(" ", "").split(",") if word]
    return {**dict.fromkeys(KINDS, FLAG), **read_changes(words)}


def read_changes(words: list[str] | tuple[str, ...]) -> Policy:
    """Kinds with the actions of `kind=action` words, in which `all` is every kind. Raises Invalid."""
    changes: Policy = {}
    for word in words:
        kind, _, action = word.partition("=")
        if kind not in (*KINDS, EVERY) or action not in ACTIONS:
            raise Invalid(
                f"{word[:60]!r} is no part of a policy: it is KIND=ACTION, with a kind of {', '.join(KINDS)} or all, "
                f"and {', '.join(ACTIONS)}"
            )
        changes.update(dict.fromkeys([each for each in KINDS if kind in (each, EVERY)], action))
    return changes


def stricter(policy: Mapping[Kind, Action], kind: Kind) -> int:
    """How strictly the policy treats the kind: a larger number is stricter."""
    return ACTIONS.index(policy[kind])
