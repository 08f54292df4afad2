"""What a caller cannot see changes nothing in an answer; `make leaks` asks 2,000 times."""

import pytest

from store.migrate import as_owner
from tests.conftest import Api
from tests.leaks.paired import differences


def test_hidden_documents_change_no_byte(api: Api) -> None:
    filled, wrong = differences(api, seed=5, count=120, size=20)
    assert wrong == []
    assert filled > 60


def test_a_count_over_hidden_documents_is_noticed(api: Api, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """As if statistics were taken over the whole tenant: the policies let its documents through."""
    with as_owner(database_url) as conn:
        conn.execute("""DO $$ BEGIN EXECUTE replace(pg_get_functiondef('visible_label_sets'::regproc),
                                                    'AND c.rank <= mine.subject_rank', ''); END $$""")
    _, wrong = differences(api, seed=6, count=20, size=12)
    assert wrong
