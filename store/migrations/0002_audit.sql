-- The audit as a hash chain in monthly partitions, and tombstones of erased documents.

ALTER TABLE tenants
    ADD COLUMN hash_key bytea NOT NULL DEFAULT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())),
    ADD COLUMN keep_queries boolean NOT NULL DEFAULT false;

ALTER TABLE audit RENAME TO audit_unchained;

-- Audit -------------------------------------------------------------------------------------------------------------

-- A tenant's rows are a chain: each hash covers its row and the hash before it. Whoever may write inserts into the view
-- `audit`, and the trigger behind it gives seq, time and hash: a writer chooses none of them, and reads nothing back.
CREATE TABLE audit_log (
    tenant_id  uuid NOT NULL,
    seq        bigint NOT NULL,
    at         timestamptz NOT NULL,                        -- never before that of the row before it
    action     text NOT NULL,
    actor      text NOT NULL,
    acting_for text,
    outcome    text NOT NULL,
    resource   text,
    request_id uuid,
    detail     jsonb NOT NULL,
    hash       bytea NOT NULL,
    PRIMARY KEY (tenant_id, seq, at)
) PARTITION BY RANGE (at);

CREATE TABLE audit_heads (                                  -- the last row of each chain
    tenant_id uuid PRIMARY KEY,
    seq       bigint NOT NULL,
    at        timestamptz NOT NULL,
    hash      bytea NOT NULL
) WITH (fillfactor = 10);                                   -- one row, rewritten by every insert: room to do so in place

CREATE TABLE audit_bases (                                  -- the last row that retention dropped: where a chain begins
    tenant_id uuid PRIMARY KEY,
    seq       bigint NOT NULL,
    at        timestamptz NOT NULL,
    hash      bytea NOT NULL
);

CREATE VIEW audit WITH (security_invoker = true) AS SELECT * FROM audit_log;

-- A field with its length in bytes before it, so that no two rows are written alike.
CREATE FUNCTION audit_field(p_value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT coalesce(octet_length(p_value) || ':' || p_value, '-') || ',' $$;

CREATE FUNCTION audit_hash(p_before bytea, r audit_log) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(p_before || convert_to(
        audit_field(r.tenant_id::text) || audit_field(r.seq::text)
        || audit_field((extract(epoch FROM r.at) * 1000000)::bigint::text) || audit_field(r.action)
        || audit_field(r.actor) || audit_field(r.acting_for) || audit_field(r.outcome) || audit_field(r.resource)
        || audit_field(r.request_id::text) || audit_field(r.detail::text), 'UTF8'))
$$;

-- The month's partition, made when absent. ATTACH lets readers and writers of the other months go on.
CREATE FUNCTION audit_partition(p_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    month timestamp := date_trunc('month', p_at AT TIME ZONE 'UTC');
    name text := 'audit_log_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass('public.' || name) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('audit_partition'));
    IF to_regclass('public.' || name) IS NULL THEN
        EXECUTE format('CREATE TABLE public.%I (LIKE public.audit_log)', name);
        EXECUTE format('GRANT SELECT ON public.%I TO citadel_maintenance', name);
        EXECUTE format('ALTER TABLE public.audit_log ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', name,
                       month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
    END IF;
END $$;

-- Runs as the owner, for a writer may neither see the head nor write the log. The head's lock is the chain's order.
CREATE FUNCTION audit_append() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    head audit_heads;
    r audit_log;
BEGIN
    SELECT * INTO head FROM audit_heads WHERE tenant_id = NEW.tenant_id FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO audit_heads (tenant_id, seq, at, hash)
        VALUES (NEW.tenant_id, 0, '-infinity', decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
        SELECT * INTO head FROM audit_heads WHERE tenant_id = NEW.tenant_id FOR UPDATE;
    END IF;
    r := ROW(NEW.tenant_id, head.seq + 1, greatest(clock_timestamp(), head.at), NEW.action, NEW.actor, NEW.acting_for,
             NEW.outcome, NEW.resource, NEW.request_id, coalesce(NEW.detail, '{}'), NULL);
    r.hash := audit_hash(head.hash, r);
    PERFORM audit_partition(r.at);
    INSERT INTO audit_log SELECT r.*;
    UPDATE audit_heads SET seq = r.seq, at = r.at, hash = r.hash WHERE tenant_id = r.tenant_id;
    RETURN NEW;
END $$;

CREATE TRIGGER append INSTEAD OF INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_append();
REVOKE EXECUTE ON FUNCTION audit_append(), audit_partition(timestamptz) FROM PUBLIC;
GRANT INSERT ON audit TO citadel_app, citadel_maintenance;
GRANT SELECT ON audit, audit_log, audit_heads, audit_bases TO citadel_maintenance; -- verify, export, a dump

-- What was recorded before there was a chain becomes its beginning, at its own times.
DO $$
DECLARE
    old audit_unchained;
    head audit_heads;
    r audit_log;
BEGIN
    FOR old IN SELECT * FROM audit_unchained ORDER BY id LOOP
        SELECT * INTO head FROM audit_heads WHERE tenant_id = old.tenant_id;
        r := ROW(old.tenant_id, coalesce(head.seq, 0) + 1, greatest(old.at, head.at), old.action, old.actor,
                 old.acting_for, old.outcome, old.resource, old.request_id, old.detail, NULL);
        r.hash := audit_hash(coalesce(head.hash, decode(repeat('00', 32), 'hex')), r);
        PERFORM audit_partition(r.at);
        INSERT INTO audit_log SELECT r.*;
        INSERT INTO audit_heads (tenant_id, seq, at, hash) VALUES (r.tenant_id, r.seq, r.at, r.hash)
        ON CONFLICT (tenant_id) DO UPDATE SET seq = r.seq, at = r.at, hash = r.hash;
    END LOOP;
    ASSERT (SELECT count(*) FROM audit_log) = (SELECT count(*) FROM audit_unchained), 'audit rows were lost';
END $$;
DROP TABLE audit_unchained;

-- Erasure -----------------------------------------------------------------------------------------------------------

-- That a document was erased: what a restore from a backup must erase again. Never content, nor a name that tells any.
CREATE TABLE tombstones (
    document_id      uuid PRIMARY KEY,
    tenant_id        uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    source_id        uuid NOT NULL,
    external_id_hash bytea NOT NULL,                        -- HMAC under the tenant's hash_key
    erased_at        timestamptz NOT NULL DEFAULT now(),
    erased_by        text NOT NULL,
    unfinished       text[],                                -- blob keys still to be deleted; null: all is done
    receipt          jsonb NOT NULL
);
CREATE INDEX tombstones_unfinished ON tombstones (tenant_id) WHERE unfinished IS NOT NULL;
CALL protect('tombstones', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON tombstones TO citadel_maintenance;

-- The planner's statistics would hold samples of content, which an erasure does not reach.
ALTER TABLE versions ALTER text SET STATISTICS 0, ALTER elements SET STATISTICS 0, ALTER warnings SET STATISTICS 0;
ALTER TABLE chunks ALTER text SET STATISTICS 0, ALTER embed_prefix SET STATISTICS 0, ALTER heading_path SET STATISTICS 0;
