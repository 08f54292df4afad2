"""What a caller relies on, held against a fake and, where one is named, a real server."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fake_citadel
import pytest
from conftest import Place

from citadel_client import (
    CitadelClient,
    Conflict,
    Forbidden,
    Invalid,
    Labels,
    NewDocument,
    NotFound,
    SubmittedDocument,
    Unauthenticated,
)


def policy(place: Place, **fields: object) -> NewDocument:
    given = {
        "external_id": f"client/{place.word}",
        "text": f"Flights are booked through the portal.\n\nThe code word is {place.word}. Ask Zoë 🚆 for trains.",
        "labels": Labels(allow=(ana(place),)),
        "title": "Travel policy",
        "mime_type": "text/plain",
        "metadata": {"team": place.word},
        **fields,
    }
    return NewDocument(**given)  # type: ignore[arg-type]


def ana(place: Place) -> str:
    return f"user:ana-{place.word}@acme.example"


def ben(place: Place) -> str:
    return f"user:ben-{place.word}@acme.example"


def indexed(client: CitadelClient, document: NewDocument) -> SubmittedDocument:
    kept = client.submit(document)
    assert kept.job_id is not None
    assert client.wait(kept.job_id).state == "done"
    return kept


def found(client: CitadelClient, place: Place) -> list[str]:
    """External ids of the passages that hold the word."""
    answer = client.search(f"what is the code word {place.word}")
    return [p.citation.external_id for p in answer.passages if place.word in p.text]


def test_a_submitted_document_is_found_by_its_reader_alone(client: CitadelClient, place: Place) -> None:
    kept = client.submit(policy(place))
    assert (kept.version, kept.unchanged) == (1, False)
    assert kept.job_id is not None
    job = client.wait(kept.job_id)
    assert (job.state, job.error, job.finished) == ("done", None, True)
    answer = client.acting_for(ana(place)).search(f"what is the code word {place.word}", at_least=job.seq)
    first = answer.passages[0]
    assert place.word in first.text
    assert (first.rank, first.citation.document_id, first.citation.version) == (1, kept.document_id, 1)
    assert found(client.acting_for(ben(place)), place) == []


def test_a_citation_resolves_to_the_passage(client: CitadelClient, place: Place) -> None:
    indexed(client, policy(place))
    reader = client.acting_for(ana(place))
    answer = reader.search(f"code word {place.word}")
    for passage in answer.passages:
        assert reader.cited_text(passage.citation) == passage.text
        assert passage.citation.end - passage.citation.start == len(passage.text)
        assert passage.citation.content_hash == hashlib.sha256(passage.text.encode()).hexdigest()
        assert passage.citation.marker in answer.context
    cited = answer.passages[0].citation
    assert answer.passages[0].id == f"{cited.document_id}:{cited.version}:{cited.start}-{cited.end}"
    assert (cited.title, cited.page) == ("Travel policy", None)


def test_the_same_again_is_unchanged(client: CitadelClient, place: Place) -> None:
    first = indexed(client, policy(place))
    assert client.submit(policy(place)) == SubmittedDocument(first.document_id, 1, None, True)


def test_a_new_text_is_a_new_version_and_an_expected_version_is_held(client: CitadelClient, place: Place) -> None:
    first = indexed(client, policy(place))
    second = client.submit(policy(place, text=f"Anew: {place.word}."), if_version=1)
    assert (second.document_id, second.version) == (first.document_id, 2)
    with pytest.raises(Conflict) as refused:
        client.submit(policy(place, text="Too late."), if_version=1)
    assert refused.value.status == 412
    with pytest.raises(Conflict):
        client.delete(first.document_id, if_version=1)


def test_labels_hold_at_the_next_query(client: CitadelClient, place: Place) -> None:
    kept = indexed(client, policy(place))
    client.set_labels(kept.document_id, Labels(allow=(ben(place),)))
    assert found(client.acting_for(ben(place)), place) == [f"client/{place.word}"]
    assert found(client.acting_for(ana(place)), place) == []
    client.set_labels(kept.document_id, Labels(allow=(ben(place),), deny=(ben(place),)))
    assert found(client.acting_for(ben(place)), place) == []


def test_a_deleted_document_is_gone(client: CitadelClient, place: Place) -> None:
    kept = indexed(client, policy(place))
    client.delete(kept.document_id)
    assert found(client.acting_for(ana(place)), place) == []
    with pytest.raises(NotFound):
        client.document(kept.document_id)


def test_hidden_and_absent_are_the_same_error(client: CitadelClient, place: Place) -> None:
    kept = indexed(client, policy(place))
    stranger = client.acting_for(ben(place))
    errors = []
    for document_id in (kept.document_id, uuid4()):
        with pytest.raises(NotFound) as refused:
            stranger.document(document_id)
        errors.append((str(refused.value), refused.value.code))
    assert errors[0] == errors[1]


def test_a_document_is_read_back(client: CitadelClient, place: Place) -> None:
    given = policy(place, uri="https://intranet.acme.example/travel")
    document = client.document(indexed(client, given).document_id)
    assert (document.external_id, document.title, document.uri) == (given.external_id, given.title, given.uri)
    assert (document.version, document.metadata, document.labels) == (1, given.metadata, given.labels)
    assert client.text(document.document_id).text == given.text
    assert client.text(document.document_id, start=8, end=11).text == "are"


def test_documents_are_listed_over_pages(client: CitadelClient, place: Place) -> None:
    labels = Labels(allow=(ana(place),))
    wanted = {f"client/{place.word}/{i}" for i in range(5)}
    records = list(client.batch(NewDocument(name, f"Text of {name}.", labels) for name in sorted(wanted)))
    for record in records:
        assert record.job_id is not None
        client.wait(record.job_id)
    listed = [d.external_id for d in client.acting_for(ana(place)).documents(page_size=2)]
    assert len(listed) == len(set(listed))
    assert wanted <= set(listed)  # a server may hold more that everybody sees
    assert not wanted & {d.external_id for d in client.acting_for(ben(place)).documents()}


def test_a_batch_answers_each_document_in_order(client: CitadelClient, place: Place) -> None:
    labels = Labels(allow=(ana(place),))

    def documents() -> Iterator[NewDocument]:
        for i in range(7):
            allowed = Labels(allow=("no namespace",)) if i == 3 else labels
            yield NewDocument(f"client/{place.word}/\u2028/{i}", f"Item {i}\u2028of {place.word}", allowed)

    records = list(client.batch(documents(), lines_per_request=2))
    assert [r.index for r in records] == list(range(7))
    assert [r.external_id for r in records] == [d.external_id for d in documents()]
    assert [r.index for r in records if r.error] == [3]
    assert records[3].error is not None
    assert "no namespace" in records[3].error.detail
    assert all(client.wait(r.job_id).state == "done" for r in records if r.job_id)
    again = list(client.batch(documents()))
    assert [r.unchanged for r in again] == [True, True, True, False, True, True, True]


def test_files_are_uploaded_from_paths_and_bytes(client: CitadelClient, place: Place, tmp_path: Path) -> None:
    labels = Labels(allow=(ana(place),))
    path = tmp_path / f"{place.word}.txt"
    path.write_text(f"From a path: the code word is {place.word}.", encoding="utf-8")
    kept = client.upload(path, labels=labels, title="By path", source=f"s-{place.word}")
    other = client.upload(f"From bytes: {place.word} é.".encode(), external_id=f"b/{place.word}", labels=labels)
    for each in (kept, other):
        assert each.job_id is not None
        assert client.wait(each.job_id).state == "done"
    assert sorted(found(client.acting_for(ana(place)), place)) == sorted([path.name, f"b/{place.word}"])
    assert client.document(kept.document_id).source == f"s-{place.word}"
    assert client.upload(str(path), labels=labels, title="By path", source=f"s-{place.word}").unchanged
    with pytest.raises(ValueError, match="external_id"):
        client.upload(b"nameless", labels=labels)


def test_a_search_takes_every_field_of_the_contract(client: CitadelClient, place: Place) -> None:
    job_id = client.submit(policy(place)).job_id
    assert job_id is not None
    seq = client.wait(job_id).seq
    reader = client.acting_for(ana(place))
    question = f"code word {place.word}"
    answer = reader.search(
        question,
        queries=[f"{place.word} trains"],
        top_k=1,
        mode="lexical",
        filters={"metadata.team": place.word},
        rerank="none",
        max_tokens=2000,
        at_least=seq,
        explain=True,
    )
    assert len(answer.passages) == 1
    assert answer.passages[0].scores.dense is None
    first = answer.explanation[0]
    assert (first.fate, first.passage, first.dense, first.fused.rank) == ("passage", 1, None, 1)
    assert answer.degraded == ()
    assert all(stage.ms >= 0 for stage in answer.activity)
    assert answer.activity
    assert answer.request_id
    assert reader.search(question, filters={"metadata.team": "another"}).passages == ()
    assert reader.search(question).explanation == ()


def test_feedback_is_taken_from_who_asked_alone(client: CitadelClient, place: Place) -> None:
    indexed(client, policy(place))
    reader, question = client.acting_for(ana(place)), f"code word {place.word}"
    answer = reader.search(question)
    used = [passage.citation.marker for passage in answer.passages]
    for helpful in (True, False):
        reader.feedback(answer.request_id, helpful=helpful, used=used, missing_documents=["trains.md"],
                        missing_texts=["By train"], comment="And by train?", query=question)  # fmt: skip
    with pytest.raises(Invalid):
        reader.feedback(answer.request_id, used=["[99]"])
    for stranger, request_id in ((client.acting_for(ben(place)), answer.request_id), (reader, uuid4())):
        with pytest.raises(NotFound):
            stranger.feedback(request_id, helpful=True)


def test_refusals_are_typed(client: CitadelClient, place: Place) -> None:
    with pytest.raises(Invalid, match="invalid_filter") as refused:
        client.acting_for(ana(place)).search("x", filters={"$nope": 1})
    assert 400 <= refused.value.status < 500
    with pytest.raises(Invalid, match="invalid_label"):
        client.submit(policy(place, labels=Labels(allow=("no namespace",))))
    with CitadelClient(place.url, "not-a-key") as stranger, pytest.raises(Unauthenticated):
        stranger.search("x")
    with pytest.raises(NotFound):
        client.job(uuid4())


def test_users_do_not_mix_on_one_pool(client: CitadelClient, place: Place) -> None:
    indexed(client, policy(place))
    as_ana, as_ben = client.acting_for(ana(place)), client.acting_for(ben(place))
    for _ in range(5):
        assert found(as_ana, place) == [f"client/{place.word}"]
        assert found(as_ben, place) == []
    with as_ana.acting_for(ben(place)) as third:
        assert found(third, place) == []
    assert found(as_ana, place) == [f"client/{place.word}"]  # leaving the third left the pool open


def test_a_source_is_added_and_refreshed(client: CitadelClient, place: Place, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text(f"In a folder: {place.word}.")
    labels = Labels(allow=(ana(place),))
    source = client.add_folder(place.word, str(tmp_path), labels=labels, max_deleted_share=0.5)
    assert (source.name, source.kind, source.labels) == (place.word, "folder", labels)
    assert (source.config["path"], source.max_deleted_share) == (str(tmp_path), 0.5)
    assert source.source_id in [each.source_id for each in client.sources()]
    assert client.job(client.refresh(source.source_id)).attempts >= 0
    with pytest.raises(Conflict) as taken:
        client.add_folder(place.word, str(tmp_path))
    assert taken.value.status == 409
    with pytest.raises(NotFound):
        client.refresh(uuid4())


def test_a_server_is_healthy_and_ready(client: CitadelClient) -> None:
    assert client.healthy()
    assert client.ready()


def test_a_key_without_the_scope_may_not_act_for_a_user(fake: tuple[str, object]) -> None:
    with CitadelClient(fake[0], fake_citadel.READER_KEY, act_for="user:ana@acme.example") as reader:
        with pytest.raises(Forbidden):
            reader.search("x")
        assert reader.healthy()
