"""The error tree. What a caller may do about a failure is decided by its branch.

CitadelError
├── Retryable                 the same call may succeed later
│   ├── StoreUnavailable      Postgres did not answer
│   │   └── StatementTimeout  it ended a statement that took too long
│   ├── BrokerUnavailable     Redis did not answer
│   ├── BlobUnavailable       the blob store did not answer
│   ├── ReplicaUnavailable    this host's lexical index is missing, damaged or too far behind
│   ├── RerankerUnavailable   this host has not the files of the tenant's trained reranker
│   ├── SourceUnavailable     where documents come from did not answer
│   ├── KeysUnavailable       an identity provider's keys could not be fetched
│   ├── JudgeUnavailable      the language model that judges answers gave no verdict
│   ├── LeaseLost             another worker holds the job now
│   ├── ProfileMoved          the tenant came to live on another embedding profile meanwhile
│   ├── NotYetIndexed         the requested change-log position is not visible yet
│   ├── DeadlineExceeded      a stage ran out of its time
│   ├── Resting               a dependency failed again and again, and is left alone for a moment
│   └── Overloaded            too much work is in flight
└── Permanent                 the same call will fail again
    ├── Invalid               the input breaks a rule that its author can mend
    │   ├── InvalidLabel · InvalidFilter · InvalidCursor · InvalidRules · InvalidGolden
    │   └── BodyTooLarge
    ├── Denied
    │   ├── Unauthenticated   no identity, or one that does not hold
    │   └── Forbidden         the identity holds, and may not do this
    ├── NotFound              absent, or not for this caller: never told apart
    │   └── Removed           a version of a document that the caller sees, and that retention took
    ├── Conflict              something by that name exists
    │   └── VersionConflict   the document moved on since the caller read it
    ├── Unparseable           the file yields no text
    │   ├── UnsupportedType · EmptyDocument · EncryptedDocument · CorruptDocument
    │   ├── OcrUnavailable    tesseract or its language is not installed
    │   └── ParserLimit       memory, time or size, and ParserCrashed
    ├── SensitiveContent      the tenant's policy keeps what the file holds out of the index
    ├── MassDelete            a refresh would delete more than its source allows
    └── Misconfigured         the installation is not as it must be
        └── ModelMismatch · UnsafeDatabase · MigrationMismatch
"""

from typing import ClassVar


class CitadelError(Exception):
    """Every failure that Citadel raises on purpose; `code` is stable and safe to show."""

    code: ClassVar[str] = "error"


class Retryable(CitadelError):
    """The same call may succeed later."""

    code = "retryable"


class StoreUnavailable(Retryable):
    """Postgres did not answer, or refused for a passing reason."""

    code = "store_unavailable"


class StatementTimeout(StoreUnavailable):
    """Postgres ended a statement that took too long, or that an administrator cancelled."""

    code = "statement_timeout"


class BrokerUnavailable(Retryable):
    """Redis did not answer."""

    code = "broker_unavailable"


class BlobUnavailable(Retryable):
    """The blob store did not answer, or has no room."""

    code = "blob_unavailable"


class ReplicaUnavailable(Retryable):
    """This host's lexical index is missing, damaged or too far behind; its follower makes it anew."""

    code = "replica_unavailable"


class RerankerUnavailable(Retryable):
    """This host has not the files of the tenant's trained reranker, or others under its name."""

    code = "reranker_unavailable"


class SourceUnavailable(Retryable):
    """Where documents come from did not answer, or not as it should."""

    code = "source_unavailable"


class KeysUnavailable(Retryable):
    """An identity provider did not give its keys, or gave what is no JWKS."""

    code = "keys_unavailable"


class JudgeUnavailable(Retryable):
    """The language model that judges answers did not answer, or not as it should."""

    code = "judge_unavailable"


class LeaseLost(Retryable):
    """Another worker holds the job now; what this one computed is dropped."""

    code = "lease_lost"


class ProfileMoved(Retryable):
    """The tenant came to live on another embedding profile while this document was embedded for the one before."""

    code = "profile_moved"


class NotYetIndexed(Retryable):
    """The change-log position that the caller asked for is not visible yet."""

    code = "not_yet_indexed"


class DeadlineExceeded(Retryable):
    """A stage ran out of its time."""

    code = "deadline_exceeded"


class Resting(Retryable):
    """A dependency failed again and again, and is left alone for a moment."""

    code = "resting"


class Overloaded(Retryable):
    """Too much work is in flight; try again after the time given."""

    code = "overloaded"


class Permanent(CitadelError):
    """The same call will fail again."""

    code = "permanent"


class Invalid(Permanent):
    """The input breaks a rule that its author can mend; the message says which."""

    code = "invalid"


class InvalidLabel(Invalid):
    """An access label is not `public` and not `namespace:value`."""

    code = "invalid_label"


class InvalidFilter(Invalid):
    """A search filter names an unknown field or operator."""

    code = "invalid_filter"


class InvalidCursor(Invalid):
    """A page cursor was not made by this server."""

    code = "invalid_cursor"


class InvalidRules(Invalid):
    """An access rule file (`.citadel.yaml`) or a document's front matter cannot be read."""

    code = "invalid_rules"


class InvalidGolden(Invalid):
    """A golden set has a line that is not a judged query."""

    code = "invalid_golden"


class BodyTooLarge(Invalid):
    """The request or the file is larger than this server takes."""

    code = "body_too_large"


class Denied(Permanent):
    """The caller may not do this."""

    code = "denied"


class Unauthenticated(Denied):
    """There is no identity, or one that does not hold: which of the two, and why, the caller is never told."""

    code = "unauthenticated"

    def __init__(self) -> None:
        super().__init__("a valid API key or token is required: Authorization: Bearer <key or token>")


class Forbidden(Denied):
    """The identity holds, but lacks the scope that this call needs."""

    code = "forbidden"


class NotFound(Permanent):
    """Absent, or not for this caller: never told apart."""

    code = "not_found"


class Removed(NotFound):
    """A version of a document that the caller sees; the tenant's retention took it away."""

    code = "removed"


class Conflict(Permanent):
    """Something by that name exists."""

    code = "conflict"


class VersionConflict(Conflict):
    """The document moved on since the caller read it."""

    code = "version_conflict"


class Unparseable(Permanent):
    """The file yields no text."""

    code = "unparseable"


class UnsupportedType(Unparseable):
    """No parser reads this type of file."""

    code = "unsupported_type"


class EmptyDocument(Unparseable):
    """The file holds no bytes, or no text."""

    code = "empty_document"


class EncryptedDocument(Unparseable):
    """The file asks for a password."""

    code = "encrypted_document"


class CorruptDocument(Unparseable):
    """The file is truncated or is not what its type promises."""

    code = "corrupt_document"


class OcrUnavailable(Unparseable):
    """The file is a picture of text, and tesseract or its language is not installed."""

    code = "ocr_unavailable"


class ParserLimit(Unparseable):
    """Parsing needed more memory, time, pages or output than is allowed."""

    code = "parser_limit"


class ParserCrashed(Unparseable):
    """The parser's process died on this file."""

    code = "parser_crashed"


class SensitiveContent(Permanent):
    """The file holds personal data or secrets that the policy keeps out of the index; the message quotes none."""

    code = "sensitive_content"


class MassDelete(Permanent):
    """A refresh would delete more than its source allows; an operator must agree."""

    code = "mass_delete"


class Misconfigured(Permanent):
    """The installation is not as it must be; the message says what to set."""

    code = "misconfigured"


class ModelMismatch(Misconfigured):
    """Model weights are not the published ones, or not those of the profile."""

    code = "model_mismatch"


class UnsafeDatabase(Misconfigured):
    """The database role or a table would let content past row-level security."""

    code = "unsafe_database"


class MigrationMismatch(Misconfigured):
    """The database's migrations are not those of this code."""

    code = "migration_mismatch"
