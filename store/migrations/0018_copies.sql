-- Documents that say the same, each family within one label set.

-- What a current text is compared by. It stands under its document's label set, and goes with the document.
CREATE TABLE fingerprints (
    document_id  uuid PRIMARY KEY REFERENCES documents ON DELETE CASCADE,
    tenant_id    uuid NOT NULL,
    label_set_id int NOT NULL,
    version      int NOT NULL,
    text_hash    bytea NOT NULL,                   -- sha256 of the canonical text
    signature    bytea,                            -- 128 × uint32, MinHash; null: too few words for it
    family       uuid NOT NULL DEFAULT gen_random_uuid(), -- the same for exact and near copies
    linked_at    timestamptz                       -- null: not compared with the others yet
);
CREATE INDEX ON fingerprints (tenant_id, label_set_id, text_hash);
CREATE INDEX ON fingerprints (tenant_id, family, linked_at);
CREATE INDEX fingerprints_unlinked ON fingerprints (document_id) WHERE linked_at IS NULL;

-- Runs of the signature, by which the texts that may resemble it are found.
CREATE TABLE fingerprint_bands (
    document_id  uuid NOT NULL REFERENCES fingerprints ON DELETE CASCADE,
    tenant_id    uuid NOT NULL,
    label_set_id int NOT NULL,
    band         bigint NOT NULL
);
CREATE INDEX ON fingerprint_bands (tenant_id, label_set_id, band) INCLUDE (document_id);
CREATE INDEX ON fingerprint_bands (document_id);
ALTER TABLE fingerprints ALTER text_hash SET STATISTICS 0, ALTER signature SET STATISTICS 0;
ALTER TABLE fingerprint_bands ALTER band SET STATISTICS 0;
CALL protect('fingerprints', 'EXISTS (SELECT FROM documents d WHERE d.id = document_id) AND ' || in_scope());
CALL protect('fingerprint_bands', 'tenant_id = (SELECT scope_tenant()) AND ' || in_scope());
GRANT SELECT ON fingerprints TO citadel_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON fingerprints, fingerprint_bands TO citadel_maintenance;

-- Other labels part a document from its copies in the same transaction; another text is compared anew.
CREATE FUNCTION part_copies() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.current_version IS DISTINCT FROM OLD.current_version THEN
        DELETE FROM fingerprints WHERE document_id = NEW.id;
    ELSE
        UPDATE fingerprints SET label_set_id = NEW.label_set_id, family = gen_random_uuid(), linked_at = NULL
        WHERE document_id = NEW.id;
        UPDATE fingerprint_bands SET label_set_id = NEW.label_set_id WHERE document_id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER part_copies AFTER UPDATE ON documents FOR EACH ROW
    WHEN (OLD.label_set_id <> NEW.label_set_id OR OLD.current_version IS DISTINCT FROM NEW.current_version)
    EXECUTE FUNCTION part_copies();
