-- Token codes for late interaction: a table beside each profile's vectors, empty until a version is indexed.

CREATE PROCEDURE add_tokens(p_profile int) LANGUAGE plpgsql AS $$
DECLARE
    tokens text := 'tokens_' || p_profile;
BEGIN
    EXECUTE format('CREATE TABLE %I (
        chunk_id    bigint PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
        document_id uuid NOT NULL,
        code        bytea STORAGE EXTERNAL NOT NULL)', tokens);
    EXECUTE format('CREATE INDEX ON %I (document_id)', tokens);
    EXECUTE format('ALTER TABLE %I ALTER code SET STATISTICS 0', tokens); -- no samples that outlive an erasure
    CALL protect(tokens::regclass, 'EXISTS (SELECT FROM documents d WHERE d.id = document_id)');
    EXECUTE format('GRANT SELECT ON %I TO citadel_app', tokens);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO citadel_maintenance', tokens);
END $$;

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
    CALL add_tokens(new_id);
    RETURN new_id;
END $$;

DO $$
DECLARE
    profile int;
BEGIN
    FOR profile IN SELECT id FROM profiles LOOP
        CALL add_tokens(profile);
    END LOOP;
END $$;
