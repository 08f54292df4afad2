"""Every Python block of the README runs, in order, and prints what the block after it shows."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import fake_citadel
import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXTRAS = {"llama_index.core": "citadel_client.llama_index", "langchain_core": "citadel_client.langchain"}


def missing(code: str) -> list[str]:
    """Packages of extras that the code needs and that are not installed."""
    return [
        package
        for package, module in EXTRAS.items()
        if module in code and importlib.util.find_spec(package.split(".")[0]) is None
    ]


def blocks() -> list[tuple[str, str | None]]:
    """(code, what it prints or None)."""
    found = BLOCK.findall(README.read_text(encoding="utf-8"))
    followers = [*found[1:], ("", "")]
    return [
        (text, follower[1] if follower[0] == "text" else None)
        for (kind, text), follower in zip(found, followers, strict=True)
        if kind == "python"
    ]


def test_the_readme_does_what_it_says(
    fake: tuple[str, fake_citadel.State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITADEL_URL", fake[0])
    monkeypatch.setenv("CITADEL_KEY", fake_citadel.KEY)
    monkeypatch.chdir(tmp_path)
    Path("expenses.md").write_text("# Expenses\n\nKeep the receipts.\n", encoding="utf-8")
    names: dict[str, object] = {}
    checked = 0
    for code, shown in blocks():
        if missing(code):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(README), "exec"), names)  # noqa: S102
        if shown is not None:
            assert printed.getvalue() == shown, code
            checked += 1
    assert checked == 5


@pytest.mark.parametrize("package", EXTRAS)
def test_the_readmes_block_of_each_extra_could_run(package: str) -> None:
    if importlib.util.find_spec(package.split(".")[0]) is None:
        pytest.skip(f"{package} is not installed, so the README's block for it did not run")
    assert any(EXTRAS[package] in code for code, _ in blocks())
