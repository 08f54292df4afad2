-- What a kept answer rests on, and a version's language.

ALTER TABLE versions ADD COLUMN language text; -- ISO 639; null: not told by its text, or not looked at yet

-- That something was changed of the documents under a label set, and in which transaction: what is kept of a search
-- holds as long as its caller sees no such row which the search did not see. Upkeep drops those of yesterday.
CREATE TABLE label_set_changes (
    tenant_id    uuid NOT NULL,
    label_set_id int NOT NULL,
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON label_set_changes (tenant_id, xid);
CREATE INDEX ON label_set_changes (at);

CALL protect('label_set_changes', 'tenant_id = (SELECT scope_tenant()) AND ' || in_scope());
-- What a foreign key deletes, it deletes as the owner.
CREATE POLICY counting ON label_set_changes FOR INSERT TO citadel_owner WITH CHECK (true);
GRANT SELECT ON label_set_changes TO citadel_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON label_set_changes TO citadel_maintenance;

-- Notes the label sets that a statement's documents were under, and those that they are under now. What no search can
-- tell apart is no change: a document without an indexed version, a fingerprint, the number of the submitted version.
CREATE FUNCTION note_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO label_set_changes (tenant_id, label_set_id)
        SELECT DISTINCT tenant_id, label_set_id FROM came WHERE current_version IS NOT NULL;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO label_set_changes (tenant_id, label_set_id)
        SELECT DISTINCT tenant_id, label_set_id FROM went WHERE current_version IS NOT NULL;
    ELSE
        INSERT INTO label_set_changes (tenant_id, label_set_id)
        SELECT DISTINCT c.tenant_id, s.label_set_id
        FROM went w JOIN came c USING (id)
        CROSS JOIN LATERAL (VALUES (w.label_set_id), (c.label_set_id)) AS s (label_set_id)
        WHERE (w.current_version IS NOT NULL OR c.current_version IS NOT NULL)
          AND (w.source_id, w.external_id, w.label_set_id, w.title, w.uri, w.metadata, w.current_version, w.created_at,
               w.updated_at) IS DISTINCT FROM
              (c.source_id, c.external_id, c.label_set_id, c.title, c.uri, c.metadata, c.current_version, c.created_at,
               c.updated_at);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER changes_insert AFTER INSERT ON documents REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION note_changes();
CREATE TRIGGER changes_update AFTER UPDATE ON documents REFERENCING OLD TABLE AS went NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION note_changes();
CREATE TRIGGER changes_delete AFTER DELETE ON documents REFERENCING OLD TABLE AS went
    FOR EACH STATEMENT EXECUTE FUNCTION note_changes();
