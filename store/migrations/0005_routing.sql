-- Which way the dense leg takes: kept counts of what is visible, the calibration of a machine, an index that is scanned
-- without its table, and for large tenants a graph that `citadel calibrate` builds.

-- How many chunks of a profile stand under each label set: the sum of its rows. Appended to by whatever writes vectors,
-- so that no two writers wait for each other; upkeep makes one row of many.
CREATE TABLE label_set_chunks (
    tenant_id    uuid NOT NULL,
    profile_id   int NOT NULL,
    label_set_id int NOT NULL,
    chunks       int NOT NULL,                     -- that came; less than 0: that went
    folded       boolean NOT NULL DEFAULT false    -- the sum of earlier rows
);
CREATE INDEX ON label_set_chunks (profile_id, label_set_id) INCLUDE (tenant_id, chunks);
CREATE INDEX label_set_chunks_new ON label_set_chunks (profile_id, label_set_id) WHERE NOT folded;

-- What `citadel calibrate` measured of a tenant's vectors on its machine.
CREATE TABLE calibrations (
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    profile_id int NOT NULL REFERENCES profiles,
    exact_rows int NOT NULL,                       -- so many visible chunks are scanned before the graph is tried
    ef_search  int NOT NULL,                       -- how many neighbours a walk in the graph looks at
    measured   jsonb NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, profile_id)
);

CALL protect('label_set_chunks', 'tenant_id = (SELECT scope_tenant()) AND ' || in_scope());
-- What a foreign key deletes, it deletes as the owner, and from Postgres 18 on so is it counted.
CREATE POLICY counting ON label_set_chunks FOR INSERT TO citadel_owner WITH CHECK (true);
CALL protect('calibrations', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT ON label_set_chunks, calibrations TO citadel_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON label_set_chunks, calibrations TO citadel_maintenance;

-- Notes what a statement did to a profile's vectors; the argument is the profile.
CREATE FUNCTION count_vectors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO label_set_chunks (tenant_id, profile_id, label_set_id, chunks)
        SELECT tenant_id, TG_ARGV[0]::int, label_set_id, count(*) FROM came GROUP BY 1, 3;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO label_set_chunks (tenant_id, profile_id, label_set_id, chunks)
        SELECT tenant_id, TG_ARGV[0]::int, label_set_id, -count(*) FROM went GROUP BY 1, 3;
    END IF;
    RETURN NULL;
END $$;

-- What lets a profile's vectors be scanned and counted by label set. An exact scan reads the index alone, where the
-- vectors of a label set stand side by side; wider ones do not fit into its entries (2,704 bytes). Index-only scans need
-- pages that a vacuum has seen, so it comes early.
CREATE PROCEDURE route_vectors(p_vectors regclass, p_profile int, p_dimensions int) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE INDEX %I ON %s (label_set_id) INCLUDE (tenant_id, chunk_id, document_id%s)',
                   'vectors_' || p_profile || '_scan', p_vectors,
                   CASE WHEN p_dimensions <= 1280 THEN ', embedding' ELSE '' END);
    EXECUTE format('ALTER TABLE %s SET (autovacuum_vacuum_insert_scale_factor = 0.02)', p_vectors);
    EXECUTE format('CREATE TRIGGER count_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS came
                    FOR EACH STATEMENT EXECUTE FUNCTION count_vectors(%s)', p_vectors, p_profile);
    EXECUTE format('CREATE TRIGGER count_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS went NEW TABLE AS came
                    FOR EACH STATEMENT EXECUTE FUNCTION count_vectors(%s)', p_vectors, p_profile);
    EXECUTE format('CREATE TRIGGER count_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS went
                    FOR EACH STATEMENT EXECUTE FUNCTION count_vectors(%s)', p_vectors, p_profile);
END $$;

-- A profile's narrow index tables: ids, label sets and vectors, never text.
CREATE OR REPLACE FUNCTION add_profile(p_name text, p_model text, p_dimensions int, p_precision text, p_chunk_tokens int,
                            p_chunker text) RETURNS int LANGUAGE plpgsql AS $$
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
    EXECUTE format('CREATE INDEX ON %I (document_id)', vectors);
    CALL route_vectors(vectors::regclass, new_id, p_dimensions);
    CALL protect(vectors::regclass, 'tenant_id = (SELECT scope_tenant()) AND ' || in_scope());
    EXECUTE format('GRANT SELECT ON %I TO citadel_app', vectors);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO citadel_maintenance', vectors);
    RETURN new_id;
END $$;

-- The profiles that there are. FORCE hides rows from the owner too, and with it lifted for this transaction they count.
DO $$
DECLARE
    profile record;
    vectors text;
    counted bigint;
    there bigint;
BEGIN
    FOR profile IN SELECT id, dimensions FROM profiles LOOP
        vectors := 'vectors_' || profile.id;
        EXECUTE format('DROP INDEX %I', vectors || '_label_set_id_idx');
        CALL route_vectors(vectors::regclass, profile.id, profile.dimensions);
        EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', vectors);
        ALTER TABLE label_set_chunks NO FORCE ROW LEVEL SECURITY;
        EXECUTE format('INSERT INTO label_set_chunks SELECT tenant_id, $1, label_set_id, count(*), true FROM %I
                        GROUP BY 1, 3', vectors) USING profile.id;
        EXECUTE format('SELECT count(*) FROM %I', vectors) INTO there;
        SELECT coalesce(sum(chunks), 0) INTO counted FROM label_set_chunks WHERE profile_id = profile.id;
        ASSERT counted = there, format('%s vectors of %s were counted', counted, there);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', vectors);
        ALTER TABLE label_set_chunks FORCE ROW LEVEL SECURITY;
    END LOOP;
END $$;
