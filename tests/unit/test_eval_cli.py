"""`citadel eval run` up to the point where it opens the store."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.eval import eval_group, exit_status
from core.config import Settings
from core.errors import InvalidGolden
from eval.measures import Leak
from eval.report import RunReport, Slice

CLEAN = RunReport("golden", "", "hybrid", (1,), Slice(0, {}), {}, 1, (), 1.0, 1.0, {}, ())


def test_a_forbidden_document_ends_with_one() -> None:
    leaky = replace(CLEAN, forbidden_returned=(Leak("q", "user:ana@acme.example", "board", 1),))
    assert (exit_status(CLEAN), exit_status(leaky)) == (0, 1)


@pytest.mark.parametrize("cutoffs", ["", "0", "1,,3", "five", "-1", "1;3", "²", "12345"])
def test_wrong_cutoffs_are_a_usage_error(tmp_path: Path, cutoffs: str) -> None:
    (tmp_path / "golden.jsonl").touch()
    result = CliRunner().invoke(eval_group, ["run", str(tmp_path / "golden.jsonl"), "--k", cutoffs], obj=Settings())
    assert result.exit_code == 2
    assert "such as 1,3,5,10" in result.output


def test_a_wrong_golden_set_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text("{}")
    result = CliRunner().invoke(eval_group, ["run", str(path)], obj=Settings(state=tmp_path / "nothing"))
    assert isinstance(result.exception, InvalidGolden)
    assert str(result.exception).startswith(f"{path}:1: ")


def test_help_shows_a_golden_line_and_examples() -> None:
    result = CliRunner().invoke(eval_group, ["run", "--help"])
    assert result.exit_code == 0
    assert '"forbidden": ["board/minutes.pdf"]' in result.output
    assert "citadel eval run golden.jsonl --k 5,10" in result.output


def test_legs_help_shows_examples() -> None:
    result = CliRunner().invoke(eval_group, ["legs", "--help"])
    assert result.exit_code == 0
    assert "citadel eval legs chroma-chunking@800 --weights 0.3,0.4" in result.output


@pytest.mark.parametrize("weights", ["1.5", "-0.1", "half", "0.3;0.4", "nan"])
def test_wrong_weights_are_a_usage_error(tmp_path: Path, weights: str) -> None:
    result = CliRunner().invoke(eval_group, ["legs", str(tmp_path), "--weights", weights], obj=Settings())
    assert result.exit_code == 2
    assert "such as 0.3,0.5" in result.output


def test_a_wrong_collection_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    result = CliRunner().invoke(eval_group, ["legs", str(tmp_path)], obj=Settings(state=tmp_path / "nothing"))
    assert isinstance(result.exception, InvalidGolden)
    assert "it needs corpus.jsonl (BEIR)" in str(result.exception)
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(eval_group, ["legs", f"{tmp_path}/absent@800"], obj=Settings())
    assert result.exit_code == 2
    assert f"{tmp_path}/absent is no folder" in "".join(result.output.split("\n"))
