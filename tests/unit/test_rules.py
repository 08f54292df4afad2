"""The rule file and front matter: which labels a path gets, and what a text that is wrong is told."""

import glob
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import InvalidRules
from core.records import Labels
from ingest.parsers.markdown import parse_markdown
from ingest.rules import Rule, Rules, read_front_matter, read_rules

STAFF, FINANCE, BOARD = Labels(("group:staff",)), Labels(("group:finance",)), Labels(("group:board",))

TREE = (
    "a.md", "b.txt", "notes", "finance/plan.md", "finance/2025/q1.md", "finance/2025/deep/x.md", "finance-old/plan.md",
    "hr/finance/pay.md", "x/a.md", "x/y/a.md", "a+b(c).md", "data.v1.csv", "datacv1.csv", "ärger/über.md",
)  # fmt: skip


def matched(pattern: str) -> set[str]:
    """The paths of TREE that the pattern covers."""
    return {path for path in TREE if Rule(pattern, STAFF).matches(path)}


# --- patterns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    ["**", "*", "*.md", "**/*.md", "finance/**", "finance/*", "**/finance/**", "finance/**/*.md", "x/?.md", "?.md",
     "**/a.md", "x/**/a.md", "finance*/**", "data.v1.csv", "a+b(c).md", "*/*", "**/*/*", "ärger/*", "nothing/**"],
)  # fmt: skip
def test_a_pattern_covers_the_files_that_pythons_glob_finds(pattern: str, tmp_path: Path) -> None:
    for path in TREE:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    found = glob.glob(pattern, root_dir=tmp_path, recursive=True, include_hidden=True)  # noqa: PTH207 Path.glob("a/**") finds folders only
    assert matched(pattern) == {path for path in found if (tmp_path / path).is_file()}


# The examples of https://git-scm.com/docs/gitignore that mean the same for paths relative to the rule file.
@pytest.mark.parametrize(
    ("pattern", "path", "covers"),
    [
        ("foo/*", "foo/test.json", True),
        ("foo/*", "foo/bar/hello.c", False),
        ("**/foo", "foo", True),
        ("**/foo", "x/foo", True),
        ("**/foo/bar", "foo/bar", True),
        ("**/foo/bar", "x/foo/bar", True),
        ("**/foo/bar", "foo/x/bar", False),
        ("abc/**", "abc/x/y", True),
        ("abc/**", "xabc/x", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/xb", False),
    ],
)
def test_gitignores_own_examples(pattern: str, path: str, covers: bool) -> None:
    assert Rule(pattern, STAFF).matches(path) is covers


def by_segments(pattern: list[str], path: list[str]) -> bool:
    """The definition: `**` stands for any folders, every other part for one name, by fnmatch."""
    if not pattern or not path:
        return pattern == path
    head, *rest = pattern
    if head == "**":
        return not rest or by_segments(rest, path) or by_segments(pattern, path[1:])
    return fnmatchcase(path[0], head) and by_segments(rest, path[1:])


names = st.text("ab.", min_size=1, max_size=3)
parts = st.one_of(st.just("**"), st.text("ab.?", min_size=1, max_size=3), st.sampled_from(["*", "a*", "*b", "*.*"]))


@given(st.lists(parts, min_size=1, max_size=4), st.lists(names, min_size=1, max_size=5))
def test_patterns_agree_with_a_definition_by_segments(pattern: list[str], path: list[str]) -> None:
    assert Rule("/".join(pattern), STAFF).matches("/".join(path)) is by_segments(pattern, path)


@pytest.mark.parametrize("path", ["a\nb.md", "a.md\n", "[x].md", "a b.md", "ü.md"])
def test_a_star_covers_every_name(path: str) -> None:
    assert Rule("*", STAFF).matches(path)
    assert Rule("**", STAFF).matches(f"x/{path}")
    assert not Rule("*", STAFF).matches(f"x/{path}")


def test_a_name_with_an_accent_is_covered_in_either_spelling() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Geschäft/x.md") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for pattern in ("NFC", "NFD"):
        rule = Rule(unicodedata.normalize(pattern, "Geschäft/**"), STAFF)
        assert rule.matches(composed) and rule.matches(decomposed)


def test_case_matters() -> None:
    assert not Rule("Finance/**", STAFF).matches("finance/plan.md")


# A pattern that can cover nothing would leave its files under the default, without a word.
@pytest.mark.parametrize(
    "pattern", ["/finance/**", "finance/", "./finance/*", "a/../b", "a//b", "", "finance\\*", " x"]
)
def test_a_pattern_that_can_match_no_path_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRules, match="rule 1"):
        read_rules(f"version: 1\nrules:\n  - {{path: '{pattern}', allow: [group:finance]}}")


# --- which rule decides ---------------------------------------------------------------------------------------------


def test_the_last_rule_that_matches_decides_whole() -> None:
    rules = read_rules(
        """
        version: 1
        default: {allow: [group:staff], deny: [group:guests]}
        rules:
          - {path: "finance/**", allow: [group:finance], deny: [user:eve@acme.example], classification: restricted}
          - {path: "finance/public/**", allow: [public]}
        """
    )
    assert rules.labels_for("finance/plan.md") == Labels(("group:finance",), ("user:eve@acme.example",), "restricted")
    assert rules.labels_for("finance/public/faq.md") == Labels(("public",), (), "internal")  # nothing is inherited
    assert rules.labels_for("hr/leave.md") == Labels(("group:staff",), ("group:guests",), "internal")


def test_order_decides_not_how_narrow_a_pattern_is() -> None:
    narrow, wide = Rule("finance/board/**", BOARD), Rule("finance/**", FINANCE)
    assert Rules(rules=(narrow, wide)).labels_for("finance/board/x.md") == FINANCE
    assert Rules(rules=(wide, narrow)).labels_for("finance/board/x.md") == BOARD


def test_a_rule_without_labels_shows_its_files_to_nobody() -> None:
    rules = read_rules("version: 1\ndefault: {allow: [public]}\nrules:\n  - path: 'drafts/**'")
    assert rules.labels_for("drafts/x.md") == Labels()
    assert rules.labels_for("x.md") == Labels(("public",))


def test_without_a_default_the_rule_file_says_nothing() -> None:
    assert read_rules("version: 1\nrules:\n  - {path: 'a/**', allow: [public]}").labels_for("b.md") is None
    assert read_rules("version: 1").labels_for("b.md") is None
    assert Rules().labels_for("b.md") is None


def test_labels_are_sorted_and_held_once() -> None:
    rules = read_rules("version: 1\ndefault: {allow: [group:b, public, group:a, group:b]}")
    assert rules.default == Labels(("group:a", "group:b", "public"))


# --- what is wrong is said ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "version: 1"),
        ("- a\n- b", "version: 1"),
        ("rules: []", "version: 1"),
        ("version: 2", "version: 1"),
        ("version: '1'", "version: 1"),
        ("version: true", "version: 1"),
        ("version: 1\nrule: []", "rule"),
        ("version: 1\nrules: {path: a, allow: [public]}", "must be a list"),
        ("version: 1\nrules: {}", "must be a list"),
        ("version: 1\nrules: ''", "must be a list"),
        ("version: 1\nrules: [a]", "rule 1 needs a `path`"),
        ("version: 1\nrules:\n  - {path: a}\n  - {allow: [public]}", "rule 2 needs a `path`"),
        ("version: 1\nrules: [{path: 7, allow: [public]}]", "rule 1 needs a `path`"),
        ("version: 1\nrules: [{path: a, allowed: [public]}]", "rule 1"),
        ("version: 1\nrules: [{path: a, allow: public}]", "rule 1"),
        ("version: 1\nrules: [{path: a, allow: [7]}]", "rule 1"),
        ("version: 1\nrules: [{path: a, allow: [[public]]}]", "rule 1"),
        ("version: 1\nrules: [{path: a, allow: [public], deny: {}}]", "rule 1"),
        ("version: 1\nrules: [{path: a, allow: [public], deny: false}]", "rule 1"),
        ("version: 1\nrules: [{path: a, allow: [finance]}]", "rule 1.*'finance'"),
        ("version: 1\nrules: [{path: a, allow: ['group:']}]", "rule 1"),
        ("version: 1\nrules: [{path: a, allow: ['Group:x']}]", "rule 1"),
        ("version: 1\ndefault: {allow: ['group:a b']}", "default"),
        ("version: 1\ndefault: [public]", "default"),
        ("version: 1\ndefault: {}\ndefault: {allow: [public]}", "default.*twice"),
        ("version: 1\nrules: [{path: a, allow: [public], deny: [group:a], deny: [group:b]}]", "deny.*twice"),
        ("version: 1\ndefault: {allow: [public", "not YAML"),
        ("version: 1\n\tdefault: {}", "not YAML"),
        ("version: 1\ndefault: !!python/object:os.system {}", "a tag"),
        ("version: 1\nx: 2025-02-30", "not YAML"),
        ("version: 1\nx: " + "[" * 5000 + "]" * 5000, "nested"),
        ("version: 1\nx: &a [b]\ny: *a", "alias"),
    ],
)
def test_a_rule_file_that_is_wrong_is_told_what_to_mend(text: str, told: str) -> None:
    with pytest.raises(InvalidRules, match=f"(?s){told}"):
        read_rules(text)


# --- front matter ---------------------------------------------------------------------------------------------------


def page(head: str) -> bytes:
    return f"---\n{head}\n---\n# A heading\n".encode()


def test_front_matter_gives_title_labels_and_metadata() -> None:
    own = read_front_matter(
        page("title: Plan\nlabels: {allow: [group:finance], classification: restricted}\nmetadata: {owner: Ana, n: 3}")
    )
    assert (own.title, own.metadata) == ("Plan", {"owner": "Ana", "n": 3})
    assert own.labels == Labels(("group:finance",), (), "restricted")


@pytest.mark.parametrize("content", [b"", b"# A heading\n", b"---\n", b"text\n---\na: b\n---\n", b"--\ntitle: x\n--\n",
                                     b"---\n- a\n---\n", b"---\n\nProse: between *two: breaks\n\n---\n"])  # fmt: skip
def test_without_front_matter_a_file_says_nothing_about_itself(content: bytes) -> None:
    own = read_front_matter(content)
    assert (own.title, own.labels, own.metadata) == (None, None, {})


@pytest.mark.parametrize(
    "content",
    [
        "---\nlabels: {allow: [group:finance]}\n---\n",
        "---\r\nlabels: {allow: [group:finance]}\r\n---\r\nText\r\n",
        "---\rlabels: {allow: [group:finance]}\r---\rText\r",
        "\ufeff---\nlabels: {allow: [group:finance]}\n---\n",
        "---  \nlabels: {allow: [group:finance]}\n---\t\n",
        "---\n# a comment\nlabels: {allow: [group:finance]}\n---\n",
        "---\nlabels: {allow: [group:finance]}\n---",
        "+++\nlabels = {allow = ['group:finance']}\n+++\nText\n",
        "+++\n[labels]\nallow = ['group:finance']\n+++\nText\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_front_matter_is_read_in_every_encoding(content: str, encoding: str) -> None:
    assert read_front_matter(content.encode(encoding)).labels == FINANCE


pieces = ["---", "+++", "--", "\n", "\r\n", "\r", " ", "\ufeff", "\u200b", "\x01", "# c", "labels: {}", "labels = {}",
          "a", "*b*", ":", "="]  # fmt: skip


# At a line's beginning, but for what is not seen: `alabels` is another key, and `# clabels` a comment.
OWN_KEY = re.compile(r"(?:^|[\r\n])[ \ufeff\u200b\x01]*labels")


# What the parser leaves out of the text, this must read: else the labels in it are lost without a word.
@example("---\n", ["---", "labels: {}", "\n", "---"])
@example("---\n", ["labels: {}", "\n", "---"])
@settings(max_examples=500)
@given(st.sampled_from(["---\n", "+++\n", "\ufeff---\r", ""]), st.lists(st.sampled_from(pieces), max_size=8))
def test_labels_that_the_parser_leaves_out_are_read(lead: str, middle: list[str]) -> None:
    content = (lead + "".join(middle) + "\nBody").encode()
    if OWN_KEY.search(lead + "".join(middle)) and "labels" not in parse_markdown(content).text:
        with suppress(InvalidRules):  # refused as a whole
            assert read_front_matter(content).labels == Labels()


def test_no_labels_is_not_the_same_as_empty_labels() -> None:
    assert read_front_matter(page("title: x")).labels is None
    assert read_front_matter(page("labels: {}")).labels == Labels()
    assert read_front_matter(page("labels: {allow: []}")).labels == Labels()


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("2025-01-31", "2025-01-31"),
        ("2025-01-31T10:00:00Z", "2025-01-31T10:00:00+00:00"),
        ("{2025: x}", {"2025": "x"}),
        ("[1, 2.5, true, null, x]", [1, 2.5, True, None, "x"]),
        ("{a: {b: 2025-01-31}}", {"a": {"b": "2025-01-31"}}),
    ],
)
def test_metadata_is_what_json_holds(written: str, kept: object) -> None:
    assert read_front_matter(page(f"metadata: {{value: {written}}}")).metadata == {"value": kept}


def test_a_date_as_title_is_its_text() -> None:
    assert read_front_matter(page("title: 2025-01-31")).title == date(2025, 1, 31).isoformat()


def poisons() -> Iterator[str]:
    yield from ("labels: {allow: [finance]}", "labels: {allow: group:finance}", "labels: [group:finance]")
    yield from ("labels: {allow: [public], deny: [nobody]}", "labels: {level: secret}", "labels: x")
    yield from ("metadata: [a]", "metadata: ''", "title: [", "a: b: c", "title: x\ntitle: y", "date: 2025-02-30")
    yield from ("n: " + "9" * 5000, "n: .nan", "n: 2001-01-01 00:00:00 +99:99", "n: !!binary YQ==", "n: !!bool x")
    yield from ("n: !!set {a, b}", 'title: "\\ud800"', 'title: "a\\0b"', 'metadata: {"\\udfff": 1}', "n: !!int ''")
    yield "a: " + "[" * 5000 + "]" * 5000
    yield "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 12))
    yield "a: " + "x" * 2**20


# A refresh reads front matter in its own process: whatever a file says, it is this file's problem and nobody else's.
@pytest.mark.parametrize("head", poisons(), ids=lambda head: head[:30])
def test_front_matter_that_is_wrong_is_refused_as_such(head: str) -> None:
    with pytest.raises(InvalidRules) as refused:
        read_front_matter(page(head))
    assert len(str(refused.value)) < 2000
