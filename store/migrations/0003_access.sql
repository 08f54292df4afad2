-- Scopes that are resolved once and used again: an epoch that every change of a grant moves, by trigger; a mark by
-- which a resolved scope finds the label sets that are new since; and a form of it that stays small.

ALTER TABLE label_sets ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX ON label_sets (tenant_id, xid);

CREATE FUNCTION next_epoch(p_last bigint) RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT greatest(p_last + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) $$;

CREATE FUNCTION move_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE tenants SET access_epoch = next_epoch(access_epoch);
    ELSE
        UPDATE tenants SET access_epoch = next_epoch(access_epoch) WHERE id IN (SELECT tenant_id FROM changed);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION move_own_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.access_epoch := next_epoch(OLD.access_epoch);
    RETURN NEW;
END $$;

CREATE PROCEDURE watch_grants(p_table regclass, p_inserts boolean) LANGUAGE plpgsql AS $$
BEGIN
    IF p_inserts THEN
        EXECUTE format('CREATE TRIGGER epoch_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS changed
                        FOR EACH STATEMENT EXECUTE FUNCTION move_epoch()', p_table);
    END IF;
    EXECUTE format('CREATE TRIGGER epoch_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION move_epoch()', p_table);
    EXECUTE format('CREATE TRIGGER epoch_update_from AFTER UPDATE ON %s REFERENCING OLD TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION move_epoch()', p_table);
    EXECUTE format('CREATE TRIGGER epoch_update_to AFTER UPDATE ON %s REFERENCING NEW TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION move_epoch()', p_table);
    EXECUTE format('CREATE TRIGGER epoch_truncate AFTER TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION move_epoch()', p_table);
END $$;

CALL watch_grants('memberships', true);
CALL watch_grants('clearances', true);
CALL watch_grants('classifications', true);
CALL watch_grants('label_sets', false);
CREATE TRIGGER epoch BEFORE UPDATE OF default_clearance ON tenants FOR EACH ROW EXECUTE FUNCTION move_own_epoch();

DROP FUNCTION visible_label_sets(uuid, text, text[], text);
CREATE FUNCTION visible_label_sets(p_tenant uuid, p_subject text, p_ceiling text[], p_max_classification text,
                                   p_since xid8 DEFAULT '0') RETURNS SETOF int
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH me AS MATERIALIZED (
        SELECT held_labels(p_tenant, p_subject) AS held,
               coalesce((SELECT classification FROM clearances WHERE tenant_id = p_tenant AND subject = p_subject),
                        (SELECT default_clearance FROM tenants WHERE id = p_tenant)) AS clearance
    ), mine AS MATERIALIZED (
        SELECT held,
               CASE WHEN p_ceiling IS NULL THEN held
                    ELSE ARRAY(SELECT unnest(held) INTERSECT SELECT unnest(p_ceiling)) END AS usable,
               (SELECT rank FROM classifications WHERE tenant_id = p_tenant AND name = clearance) AS subject_rank,
               (SELECT rank FROM classifications WHERE tenant_id = p_tenant AND name = p_max_classification) AS key_rank
        FROM me
    )
    SELECT s.id
    FROM mine, label_sets s
    JOIN classifications c ON c.tenant_id = s.tenant_id AND c.name = s.classification
    WHERE s.tenant_id = p_tenant
      AND s.xid >= p_since
      AND s.allow && mine.usable
      AND NOT s.deny && mine.held
      AND c.rank <= mine.subject_rank
      AND (p_max_classification IS NULL OR c.rank <= mine.key_rank)
$$;

CREATE FUNCTION scope_bits() RETURNS varbit LANGUAGE sql STABLE PARALLEL SAFE AS
    $$ SELECT ('x' || nullif(current_setting('citadel.label_bits', true), ''))::varbit $$;
CREATE FUNCTION scope_base() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE AS
    $$ SELECT nullif(current_setting('citadel.label_base', true), '')::int $$;

CREATE FUNCTION in_scope() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT
    '(label_set_id IN (SELECT unnest(scope_label_sets()))'
    ' OR substring((SELECT scope_bits()) FROM label_set_id - (SELECT scope_base()) + 1 FOR 1) = B''1'')'
$$;

DROP POLICY reader ON documents;
DROP POLICY maintenance ON documents;
DROP POLICY reader ON versions;
DROP POLICY maintenance ON versions;
CALL protect('documents', 'tenant_id = (SELECT scope_tenant()) AND ' || in_scope());
CALL protect('versions', 'EXISTS (SELECT FROM documents d WHERE d.id = document_id) AND ' || in_scope());

DO $$
DECLARE
    vectors text;
BEGIN
    FOR vectors IN SELECT 'vectors_' || id FROM profiles LOOP
        EXECUTE format('DROP POLICY reader ON %I', vectors);
        EXECUTE format('DROP POLICY maintenance ON %I', vectors);
        CALL protect(vectors::regclass, 'tenant_id = (SELECT scope_tenant()) AND ' || in_scope());
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION add_profile(p_name text, p_model text, p_dimensions int, p_precision text,
                                       p_chunk_tokens int, p_chunker text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    new_id int;
    vectors text;
BEGIN
    INSERT INTO profiles (name, model, dimensions, precision, chunk_tokens, chunker)
    VALUES (p_name, p_model, p_dimensions, p_precision, p_chunk_tokens, p_chunker) RETURNING id INTO new_id;
    vectors := 'vectors_' || new_id;
    EXECUTE format('CREATE TABLE %I (
        chunk_id     bigint PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
        tenant_id    uuid NOT NULL,
        document_id  uuid NOT NULL,
        label_set_id int NOT NULL REFERENCES label_sets,
        embedding    halfvec(%s) NOT NULL)', vectors, p_dimensions);
    EXECUTE format('CREATE INDEX ON %I (label_set_id)', vectors);
    EXECUTE format('CREATE INDEX ON %I (document_id)', vectors);
    CALL protect(vectors::regclass, 'tenant_id = (SELECT scope_tenant()) AND ' || in_scope());
    EXECUTE format('GRANT SELECT ON %I TO citadel_app', vectors);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO citadel_maintenance', vectors);
    RETURN new_id;
END $$;
