"""How a batch is cut into requests, and its answers into lines."""

from collections.abc import Iterator

import fake_citadel
import pytest

from citadel_client import CitadelClient, Labels, NewDocument
from citadel_client.batch import Line, slices, split_lines


def lines(*sizes: int) -> list[Line]:
    return [(str(i), b"x" * size) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "most", "most_bytes", "cut"),
    [
        ((), 3, 10, []),
        ((1, 1, 1), 3, 10, [3]),
        ((1, 1, 1, 1), 3, 10, [3, 1]),
        ((5, 5, 1), 3, 10, [2, 1]),
        ((11, 1, 11), 3, 10, [1, 1, 1]),
        ((1, 1), 1, 10, [1, 1]),
    ],
)
def test_requests_hold_to_both_bounds(sizes: tuple[int, ...], most: int, most_bytes: int, cut: list[int]) -> None:
    given = lines(*sizes)
    runs = list(slices(given, most, most_bytes))
    assert [len(run) for run in runs] == cut
    assert [line for run in runs for line in run] == given


def test_answers_are_cut_at_newlines_wherever_the_network_cut_them() -> None:
    whole = ["first", "second\u2028still second\u0085", "thïrd"]
    content = "\n\n".join(whole).encode() + b"\r\n \n"
    for at in range(len(content) + 1):
        for then in range(at, len(content) + 1):
            parts = [content[:at], content[at:then], content[then:]]
            assert [line.decode().rstrip("\r") for line in split_lines(parts)] == whole
    assert list(split_lines([b"no newline at the end"])) == [b"no newline at the end"]


def test_documents_are_taken_as_they_are_needed(fake: tuple[str, fake_citadel.State]) -> None:
    taken: list[int] = []

    def documents() -> Iterator[NewDocument]:
        for i in range(1_000_000):
            taken.append(i)
            yield NewDocument(f"d/{i}", f"Text {i}", Labels(allow=("public",)))

    with CitadelClient(fake[0], fake_citadel.KEY) as client:
        records = client.batch(documents(), lines_per_request=10)
        assert taken == []
        assert [next(records).index for _ in range(15)] == list(range(15))
        records.close()  # type: ignore[attr-defined]
        assert client.healthy()
    assert len(taken) <= 21
    assert len(fake[1].docs) == 20


def test_a_long_batch_goes_through_whole(fake: tuple[str, fake_citadel.State]) -> None:
    count = 5_000
    given = (NewDocument(f"d/{i}", "Text", Labels()) for i in range(count))
    with CitadelClient(fake[0], fake_citadel.KEY) as client:
        names = [record.external_id for record in client.batch(given)]
    assert names == [f"d/{i}" for i in range(count)]
    assert len(fake[1].docs) == count
    assert len(fake[1].requests) == count / 200
