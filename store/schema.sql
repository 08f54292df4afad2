-- What the migrations build, in one readable piece; `make check` compares the two.
-- Runs as citadel_owner in an empty database that has the extension `vector`.
--
-- citadel_owner        owns everything, logs in as nobody, and FORCE keeps its own hands off content
-- citadel_app          what readers connect as: no owner, no BYPASSRLS; sees rows of its transaction's scope only
-- citadel_maintenance  what writes and workers connect as: a policy of its own, named on each table

GRANT USAGE ON SCHEMA public TO citadel_app, citadel_maintenance;

-- Profiles ----------------------------------------------------------------------------------------------------------

CREATE TABLE profiles (
    id           int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    model        text NOT NULL,
    dimensions   int  NOT NULL CHECK (dimensions > 0),
    precision    text NOT NULL,
    chunk_tokens int  NOT NULL CHECK (chunk_tokens > 0),
    chunker      text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Access ------------------------------------------------------------------------------------------------------------

CREATE TABLE tenants (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name              text NOT NULL UNIQUE,
    access_epoch      bigint NOT NULL DEFAULT 1,   -- moves when an existing grant changes, by trigger
    default_clearance text NOT NULL DEFAULT 'internal',
    live_profile      int NOT NULL REFERENCES profiles,
    created_at        timestamptz NOT NULL DEFAULT now(),
    -- 244 random bits: keys what is kept only as a hash (queries in the audit, external ids of erased documents)
    hash_key          bytea NOT NULL DEFAULT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())),
    keep_queries      boolean NOT NULL DEFAULT false, -- whether the audit keeps the text of queries
    -- how the legs become one list: the dense one's weight is of the convex combination, the lexical one has the rest
    fusion            text NOT NULL DEFAULT 'convex' CHECK (fusion IN ('convex', 'rrf')),
    dense_weight      float8 NOT NULL DEFAULT 0.4 CHECK (dense_weight BETWEEN 0 AND 1),
    -- how many versions before the current one are kept, or for how many days; null and null: all of them
    keep_versions     int CHECK (keep_versions >= 0),
    keep_days         int CHECK (keep_days >= 0),
    keep_job_days     int CHECK (keep_job_days >= 0), -- how many days jobs are kept after their end; null: all of them
    sensitive         jsonb NOT NULL DEFAULT '{}', -- kind → action on personal data and secrets; else the installation's
    rrf_k             int NOT NULL DEFAULT 60 CHECK (rrf_k BETWEEN 1 AND 1000),  -- of reciprocal rank fusion
    -- the share of searches whose question is kept, and for how many days; with feedback, for so many
    trace_rate        float8 NOT NULL DEFAULT 0 CHECK (trace_rate BETWEEN 0 AND 1),
    trace_days        int NOT NULL DEFAULT 30 CHECK (trace_days > 0),
    feedback_days     int NOT NULL DEFAULT 365 CHECK (feedback_days > 0),
    reranker          jsonb  -- the one that was trained: name, kind, digest, weight, pool, profile; null: as it ships
);

CREATE TABLE classifications (
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name      text NOT NULL,
    rank      int  NOT NULL,                       -- a principal sees ranks up to its clearance's
    PRIMARY KEY (tenant_id, name),
    UNIQUE (tenant_id, rank)
);

CREATE TABLE memberships (
    tenant_id   uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    member      text NOT NULL,                     -- a user or, nested, a group
    group_label text NOT NULL,
    origin      text NOT NULL DEFAULT 'file' CHECK (origin IN ('file', 'scim')),  -- neither replaces what the other gave
    PRIMARY KEY (tenant_id, member, group_label, origin)
);
CREATE INDEX ON memberships (tenant_id, group_label);

-- Users whom the directory deactivated, deleted or renamed: they hold no label, not even their own, until it opens them.
CREATE TABLE closed_subjects (
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    subject   text NOT NULL,                       -- in lower case, as core.labels folds it
    closed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, subject)
);

CREATE TABLE clearances (
    tenant_id      uuid NOT NULL,
    subject        text NOT NULL,
    classification text NOT NULL,
    PRIMARY KEY (tenant_id, subject),
    FOREIGN KEY (tenant_id, classification) REFERENCES classifications ON DELETE CASCADE
);

CREATE TABLE label_sets (
    id             int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id      uuid NOT NULL,
    allow          text[] NOT NULL,
    deny           text[] NOT NULL,
    classification text NOT NULL,
    hash           bytea NOT NULL,                 -- of the three above: a thousand labels are too long for an index
    xid            xid8 NOT NULL DEFAULT pg_current_xact_id(), -- of the adding transaction: what is new to a snapshot
    UNIQUE (tenant_id, hash),
    FOREIGN KEY (tenant_id, classification) REFERENCES classifications ON DELETE CASCADE
);
CREATE INDEX ON label_sets (tenant_id, xid);

CREATE TABLE api_keys (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id          uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name               text NOT NULL,
    secret_hash        bytea NOT NULL UNIQUE,      -- sha256 of 256 random bits: nothing to guess, so nothing slow
    scopes             text[] NOT NULL,
    ceiling            text[],                     -- allow labels it may use; null: no ceiling
    max_classification text,
    require_act_for    boolean NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL DEFAULT now(),
    expires_at         timestamptz,
    revoked_at         timestamptz,
    previous_hash      bytea UNIQUE,               -- the secret before the last rotation
    previous_until     timestamptz,                -- and when it dies
    last_used_at       timestamptz,                -- to the minute
    UNIQUE (tenant_id, name)
);

-- Whose tokens are believed, and as what. One (issuer, audience) belongs to one tenant.
CREATE TABLE identity_providers (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id     uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name          text NOT NULL,
    issuer        text NOT NULL,
    audience      text NOT NULL,
    algorithms    text[] NOT NULL CHECK (algorithms <> '{}' AND algorithms <@ ARRAY[
        'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']),
    jwks_url      text,
    jwks          jsonb,                           -- keys given as a file
    subject_claim text NOT NULL,                   -- its value becomes user:<value>
    fold_case     boolean NOT NULL,                -- in lower case, as the directory's user names are
    group_claim   text,
    group_prefix  text NOT NULL,                   -- each of its values becomes <prefix><value>
    scopes        text[] NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name),
    UNIQUE (issuer, audience),
    CHECK ((jwks_url IS NULL) <> (jwks IS NULL))
);

-- What a directory pushed over SCIM. Who is in which group stands in memberships, with the origin `scim`.
CREATE TABLE scim_users (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id   uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    user_name   text NOT NULL,
    subject     text NOT NULL,                     -- user:<user name in lower case>
    external_id text,
    active      boolean NOT NULL,
    profile     jsonb NOT NULL DEFAULT '{}',       -- names and addresses, given back and otherwise unused
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, subject)
);
CREATE INDEX ON scim_users (tenant_id, external_id);

CREATE TABLE scim_groups (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id    uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    display_name text NOT NULL,
    folded       text NOT NULL,                    -- in lower case: names that differ in case alone collide
    label        text NOT NULL,                    -- group:<display name>
    external_id  text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, folded),
    UNIQUE (tenant_id, label)
);
CREATE INDEX ON scim_groups (tenant_id, external_id);

-- An epoch is never used twice, not even by a database that was restored or failed over to: what a process resolved
-- under a lost one is not taken for the new one's.
CREATE FUNCTION next_epoch(p_last bigint) RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT greatest(p_last + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) $$;

-- Each statement that changes a grant moves its tenants' epochs. It holds their rows to its end, so that epochs and
-- states of the grants come in one order.
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

-- A new label set changes no grant: a resolved scope finds it by its xid.
CALL watch_grants('memberships', true);
CALL watch_grants('clearances', true);
CALL watch_grants('classifications', true);
CALL watch_grants('closed_subjects', true);
CALL watch_grants('label_sets', false);
CREATE TRIGGER epoch BEFORE UPDATE OF default_clearance ON tenants FOR EACH ROW EXECUTE FUNCTION move_own_epoch();

-- The labels that a subject holds: itself, `public`, what its token claims, and every group above those. UNION makes
-- circles harmless. A closed subject holds none.
CREATE FUNCTION held_labels(p_tenant uuid, p_subject text, p_claims text[]) RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE held (label) AS (
        SELECT unnest(ARRAY[p_subject, 'public'] || p_claims)
        WHERE NOT EXISTS (SELECT FROM closed_subjects
                          WHERE tenant_id = p_tenant AND subject IN (p_subject, lower(p_subject)))
        UNION
        SELECT m.group_label FROM memberships m JOIN held h ON m.member = h.label WHERE m.tenant_id = p_tenant
    )
    SELECT coalesce(array_agg(label), '{}') FROM held
$$;

-- The one definition of visible: same tenant, an allow label held (and within the credential's ceiling), no deny
-- label held, classification within the clearance of the subject and of the credential. `p_since` asks for those alone
-- that a transaction of that id or a later one has added.
CREATE FUNCTION visible_label_sets(p_tenant uuid, p_subject text, p_claims text[], p_ceiling text[],
                                   p_max_classification text, p_since xid8 DEFAULT '0') RETURNS SETOF int
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH me AS MATERIALIZED (
        SELECT held_labels(p_tenant, p_subject, p_claims) AS held,
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

-- What the transaction of a reader has been set to; unset or empty gives no rows, never all.
CREATE FUNCTION scope_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS
    $$ SELECT nullif(current_setting('citadel.tenant', true), '')::uuid $$;
CREATE FUNCTION scope_label_sets() RETURNS int[] LANGUAGE sql STABLE PARALLEL SAFE AS
    $$ SELECT nullif(current_setting('citadel.label_sets', true), '')::int[] $$;
-- The same as one bit a label set, the first of them scope_base: for scopes of many.
CREATE FUNCTION scope_bits() RETURNS varbit LANGUAGE sql STABLE PARALLEL SAFE AS
    $$ SELECT ('x' || nullif(current_setting('citadel.label_bits', true), ''))::varbit $$;
CREATE FUNCTION scope_base() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE AS
    $$ SELECT nullif(current_setting('citadel.label_base', true), '')::int $$;

-- The condition of a policy on label_set_id. Both forms are prepared once a query: the array is hashed, a bit is looked
-- up by its place, and a place outside of them is no bit.
CREATE FUNCTION in_scope() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT
    '(label_set_id IN (SELECT unnest(scope_label_sets()))'
    ' OR substring((SELECT scope_bits()) FROM label_set_id - (SELECT scope_base()) + 1 FOR 1) = B''1'')'
$$;

-- Documents ---------------------------------------------------------------------------------------------------------

CREATE TABLE sources (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id         uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name              text NOT NULL,
    kind              text NOT NULL CHECK (kind IN ('api', 'folder', 'files', 'git', 'website', 'mail', 'sql', 'reader')),
    config            jsonb NOT NULL DEFAULT '{}',
    label_set_id      int NOT NULL REFERENCES label_sets,   -- for what carries no label of its own
    schedule          text,                                 -- cron; null: on request only
    max_deleted_share real NOT NULL DEFAULT 0.3 CHECK (max_deleted_share BETWEEN 0 AND 1),
    next_due_at       timestamptz,
    last_success_at   timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    paused_at         timestamptz,                          -- since when it is not refreshed; null: it is
    timezone          text NOT NULL DEFAULT 'UTC',          -- whose clock the schedule is read by
    jitter_s          int NOT NULL DEFAULT 0 CHECK (jitter_s BETWEEN 0 AND 86400), -- up to so much later
    state             jsonb NOT NULL DEFAULT '{}',          -- what its reader keeps for the next refresh
    content_as_of     timestamptz,                          -- when the listing of the last complete refresh began
    permissions_as_of timestamptz,                          -- the same, of labels alone or with the content
    sensitive         jsonb NOT NULL DEFAULT '{}',          -- kind → action, where it is another than the tenant's
    UNIQUE (tenant_id, name)
);

CREATE TABLE documents (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id       uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    source_id       uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    external_id     text NOT NULL,
    label_set_id    int NOT NULL REFERENCES label_sets,     -- in force now, for every reader
    title           text,
    uri             text,
    metadata        jsonb NOT NULL DEFAULT '{}',
    current_version int,                                    -- the indexed one; null until the first is
    latest_version  int NOT NULL DEFAULT 0,                 -- the submitted one
    fingerprint     text,                                   -- the source's own cheap sign of change
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    permissions     text,                                   -- digest of the labels that the source last gave
    oldest_version  int NOT NULL DEFAULT 1,                 -- those before it were taken away by retention
    parent_id       uuid,                                   -- the message that it is an attachment of
    UNIQUE (source_id, external_id)
);
CREATE INDEX ON documents (tenant_id, created_at, id);
CREATE INDEX ON documents (label_set_id);
CREATE INDEX documents_children ON documents (parent_id) WHERE parent_id IS NOT NULL;
-- A child is always under its parent's label set: the foreign key brings every change of it, and refuses any other.
-- The index is what it refers to.
CREATE UNIQUE INDEX documents_labelled ON documents (id, label_set_id);
ALTER TABLE documents ADD CONSTRAINT documents_parent FOREIGN KEY (parent_id, label_set_id)
    REFERENCES documents (id, label_set_id) ON UPDATE CASCADE;

CREATE TABLE versions (
    document_id  uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    version      int  NOT NULL,
    tenant_id    uuid NOT NULL,
    label_set_id int NOT NULL REFERENCES label_sets,        -- the document's from when this version is indexed
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'indexed', 'failed', 'superseded')),
    content_hash bytea NOT NULL,                            -- bytes, declared type, title: what an embedding rests on
    blob_key     text NOT NULL,
    size         bigint NOT NULL,                           -- bytes
    mime_type    text,                                      -- declared, then sniffed
    filename     text,
    title        text,                                      -- submitted, then parsed
    text         text,                                      -- canonical; null until parsed
    elements     jsonb,                                     -- structure on the text, to chunk again without the source
    warnings     text[] NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    language     text,                                      -- ISO 639; null: not told by its text, or not looked at yet
    flags        jsonb NOT NULL DEFAULT '[]',               -- what a reader of a span should know, as elements
    screened     jsonb,                                     -- policy that the text was read under, and kinds found
    PRIMARY KEY (document_id, version)
);
CREATE INDEX ON versions (blob_key);

CREATE TABLE chunks (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    uuid NOT NULL,
    profile_id   int  NOT NULL REFERENCES profiles,
    document_id  uuid NOT NULL,
    version      int  NOT NULL,
    ordinal      int  NOT NULL,
    start_offset int  NOT NULL,                             -- code points of versions.text, half-open
    end_offset   int  NOT NULL CHECK (end_offset > start_offset),
    page_start   int,
    page_end     int,
    heading_path text[] NOT NULL DEFAULT '{}',
    embed_prefix text NOT NULL DEFAULT '',
    tokens       int  NOT NULL,
    text         text NOT NULL,                             -- exactly versions.text[start_offset:end_offset]
    flags        text[] NOT NULL DEFAULT '{}',              -- kinds of the version's flags that lie on the span
    UNIQUE (profile_id, document_id, version, ordinal),
    FOREIGN KEY (document_id, version) REFERENCES versions ON DELETE CASCADE
);

-- Work --------------------------------------------------------------------------------------------------------------

CREATE TABLE change_log (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(), -- followers read rows below pg_snapshot_xmin only
    tenant_id   uuid NOT NULL,
    document_id uuid NOT NULL,
    version     int,
    action      text NOT NULL CHECK (action IN ('index', 'relabel', 'delete')),
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON change_log (tenant_id, xid);

CREATE SEQUENCE lease_tokens;

CREATE TABLE jobs (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id     uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    kind          text NOT NULL CHECK (kind IN ('index', 'refresh', 'eval')),
    state         text NOT NULL DEFAULT 'accepted' CHECK (state IN
                  ('accepted', 'parsing', 'embedding', 'indexing', 'running', 'done', 'failed', 'quarantined',
                   'cancelled')),
    document_id   uuid,                                     -- no foreign key: a job outlives what it worked on
    version       int,
    source_id     uuid REFERENCES sources ON DELETE CASCADE,
    due_at        timestamptz,
    attempts      int NOT NULL DEFAULT 0,
    lease_token   bigint,
    lease_until   timestamptz,
    dispatched_at timestamptz,
    next_try_at   timestamptz NOT NULL DEFAULT now(),
    error_code    text,
    error         text,
    seq           bigint,
    detail        jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    faults        int NOT NULL DEFAULT 0,                   -- tries in a row that the document is not to blame for
    UNIQUE (source_id, due_at)                              -- two schedulers, one refresh
);
CREATE INDEX jobs_open ON jobs (next_try_at) WHERE state NOT IN ('done', 'failed', 'quarantined', 'cancelled');
CREATE INDEX jobs_held ON jobs (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX jobs_by_tenant ON jobs (kind, tenant_id, created_at)
    WHERE state NOT IN ('done', 'failed', 'quarantined', 'cancelled');
CREATE INDEX jobs_sent ON jobs (kind, tenant_id)
    WHERE dispatched_at IS NOT NULL AND state NOT IN ('done', 'failed', 'quarantined', 'cancelled');
CREATE INDEX jobs_ended ON jobs (tenant_id, updated_at) WHERE state IN ('done', 'failed', 'quarantined', 'cancelled');
CREATE INDEX ON jobs (document_id, version);

-- Row-level security ------------------------------------------------------------------------------------------------

-- Point-read tables follow their document's row, so a label change there holds for every reader at once. A version is
-- under its own labels too: what a wider one replaced stays with those who could read it.
-- Scanned tables (vectors) carry the label set.
CREATE PROCEDURE protect(p_table regclass, p_visible text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', p_table);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', p_table);
    EXECUTE format('CREATE POLICY reader ON %s FOR SELECT TO citadel_app USING (%s)', p_table, p_visible);
    EXECUTE format('CREATE POLICY maintenance ON %s TO citadel_maintenance USING (true) WITH CHECK (true)', p_table);
END $$;

CALL protect('documents', 'tenant_id = (SELECT scope_tenant()) AND ' || in_scope());
CALL protect('versions', 'EXISTS (SELECT FROM documents d WHERE d.id = document_id) AND ' || in_scope());
CALL protect('chunks', 'EXISTS (SELECT FROM documents d WHERE d.id = document_id)');
CALL protect('memberships', 'tenant_id = (SELECT scope_tenant())');
CALL protect('clearances', 'tenant_id = (SELECT scope_tenant())');
CALL protect('closed_subjects', 'tenant_id = (SELECT scope_tenant())');
CALL protect('scim_users', 'tenant_id = (SELECT scope_tenant())');
CALL protect('scim_groups', 'tenant_id = (SELECT scope_tenant())');
CALL protect('label_sets', 'tenant_id = (SELECT scope_tenant())');
CALL protect('sources', 'tenant_id = (SELECT scope_tenant())');
CALL protect('change_log', 'tenant_id = (SELECT scope_tenant())');
CALL protect('jobs', 'tenant_id = (SELECT scope_tenant())');

GRANT SELECT ON profiles, tenants, classifications, memberships, clearances, label_sets, api_keys, sources, documents,
    versions, chunks, change_log, jobs, closed_subjects, identity_providers, scim_users, scim_groups TO citadel_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO citadel_maintenance;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO citadel_maintenance; -- SELECT: a dump reads them

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
CREATE INDEX audit_log_searches ON audit_log (request_id) WHERE action = 'search'; -- feedback names its request

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

-- Routing the dense leg ----------------------------------------------------------------------------------------------

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

-- Kept answers -------------------------------------------------------------------------------------------------------

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

-- Copies --------------------------------------------------------------------------------------------------------------

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
-- What a foreign key relabels, an attachment, is parted as the owner from Postgres 18 on.
CREATE POLICY parting ON fingerprints TO citadel_owner USING (true);
CREATE POLICY parting ON fingerprint_bands TO citadel_owner USING (true);
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

-- Evaluation --------------------------------------------------------------------------------------------------------

-- Golden sets and the runs over them. A set is never changed: other judgements are its next version. No reader of the
-- application sees any of it: what is judged, and what somebody was answered, is the operator's.
CREATE TABLE golden_sets (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name       text NOT NULL,
    version    int NOT NULL,
    digest     text NOT NULL,                      -- sha256 of the questions and judgements
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name, version),
    UNIQUE (tenant_id, name, digest)
);

CREATE TABLE golden_queries (
    golden_id uuid NOT NULL REFERENCES golden_sets ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    ordinal   int NOT NULL,
    line      jsonb NOT NULL,                      -- as the native file has it; an erasure takes its document out
    PRIMARY KEY (golden_id, ordinal)
);

CREATE TABLE eval_runs (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id   uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name        text NOT NULL,
    golden_id   uuid NOT NULL REFERENCES golden_sets ON DELETE CASCADE,
    searched    uuid NOT NULL,                     -- the tenant whose documents were asked for
    config      jsonb NOT NULL,                    -- everything that the answers follow from
    key         text NOT NULL,                     -- sha256 of it: an interrupted run of the same key goes on
    summary     jsonb,                             -- null until every question is answered
    -- question → measure → value, as it was measured then: no erasure and no other index changes an old run's figures
    measured    jsonb,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX ON eval_runs (tenant_id, name, finished_at);

CREATE TABLE eval_answers (
    run_id    uuid NOT NULL REFERENCES eval_runs ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    query_id  text NOT NULL,
    ms        real,                                -- of the whole search; null where its legs were kept ones
    degraded  text[] NOT NULL,
    tokens    int NOT NULL,                        -- of the passages within the largest cutoff
    PRIMARY KEY (run_id, query_id)
);

-- What was answered. Follows its document out of the database, so that an erasure reaches it.
CREATE TABLE eval_passages (
    run_id       uuid NOT NULL,
    tenant_id    uuid NOT NULL,
    query_id     text NOT NULL,
    rank         int NOT NULL,
    document_id  uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    version      int NOT NULL,
    start_offset int NOT NULL,
    end_offset   int NOT NULL,
    page         int,
    score        float8 NOT NULL,
    PRIMARY KEY (run_id, query_id, rank),
    FOREIGN KEY (run_id, query_id) REFERENCES eval_answers ON DELETE CASCADE
);
CREATE INDEX ON eval_passages (document_id);

-- Where each relevant document stood in each stage of the search; null: not among its candidates.
CREATE TABLE eval_stages (
    run_id      uuid NOT NULL,
    tenant_id   uuid NOT NULL,
    query_id    text NOT NULL,
    document_id uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    dense       int,
    lexical     int,
    fused       int,
    answer      int,
    PRIMARY KEY (run_id, query_id, document_id),
    FOREIGN KEY (run_id, query_id) REFERENCES eval_answers ON DELETE CASCADE
);
CREATE INDEX ON eval_stages (document_id);

CALL protect('golden_sets', 'tenant_id = (SELECT scope_tenant())');
CALL protect('golden_queries', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_runs', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_answers', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_passages', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_stages', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON golden_sets, golden_queries, eval_runs, eval_answers, eval_passages, eval_stages
    TO citadel_maintenance;
ALTER TABLE golden_queries ALTER line SET STATISTICS 0; -- quotes: no samples that outlive an erasure
-- What was asked, and what was said of the answer --------------------------------------------------------------------

-- A search whose question is kept: one of a sample, or one that somebody gave feedback to. No reader of the application
-- sees any of it: what somebody asked, and said of it, is the operator's.
CREATE TABLE asked (
    request_id uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    subject    text NOT NULL,                      -- who asked
    query      text,                               -- redacted; null: nobody told its words
    at         timestamptz NOT NULL                -- of the search
);
CREATE INDEX ON asked (tenant_id, at);

-- What was answered, as its markers number it. Who erases a document takes the whole search away, for its words and
-- what was said of it may quote the document.
CREATE TABLE asked_passages (
    request_id   uuid NOT NULL REFERENCES asked ON DELETE CASCADE,
    tenant_id    uuid NOT NULL,
    marker       int NOT NULL,
    document_id  uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    version      int NOT NULL,
    start_offset int NOT NULL,
    end_offset   int NOT NULL,
    used         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (request_id, marker)
);
CREATE INDEX ON asked_passages (document_id);

CREATE TABLE feedback (
    request_id uuid PRIMARY KEY REFERENCES asked ON DELETE CASCADE,
    tenant_id  uuid NOT NULL,
    helpful    boolean,                            -- null: not said
    missing    jsonb NOT NULL,                     -- [{"document": external id} or {"text": words}]
    comment    text,
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON feedback (tenant_id);

CALL protect('asked', 'tenant_id = (SELECT scope_tenant())');
CALL protect('asked_passages', 'tenant_id = (SELECT scope_tenant())');
CALL protect('feedback', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON asked, asked_passages, feedback TO citadel_maintenance;
-- No samples that outlive an erasure.
ALTER TABLE asked ALTER query SET STATISTICS 0;
ALTER TABLE feedback ALTER missing SET STATISTICS 0, ALTER comment SET STATISTICS 0;


-- Evaluations that run by themselves. What they found of each measure is told to operators alone, as runs are.
CREATE TABLE eval_schedules (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id   uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name        text NOT NULL,                     -- of its runs too
    golden      text NOT NULL,                     -- a set's name, whose newest version is asked, or name@version
    schedule    text NOT NULL,                     -- cron, by the clock of the time zone
    timezone    text NOT NULL,
    baseline    text,                              -- the run that it is held against
    cutoffs     int[] NOT NULL,
    measures    text[] NOT NULL,                   -- beside the default ones
    max_drop    jsonb NOT NULL,                    -- measure → how far its mean may fall
    next_due_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

CREATE TABLE eval_results (
    run_id      uuid PRIMARY KEY REFERENCES eval_runs ON DELETE CASCADE,
    tenant_id   uuid NOT NULL,
    schedule_id uuid NOT NULL REFERENCES eval_schedules ON DELETE CASCADE,
    checks      jsonb NOT NULL,                    -- of each: name, value, whether it is an alarm, and why
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON eval_results (schedule_id, at);

ALTER TABLE jobs
    ADD COLUMN schedule_id uuid REFERENCES eval_schedules ON DELETE CASCADE,
    ADD UNIQUE (schedule_id, due_at);              -- two schedulers, one run

CALL protect('eval_schedules', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_results', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON eval_schedules, eval_results TO citadel_maintenance;
-- Refreshing sources ------------------------------------------------------------------------------------------------

-- A refresh writes down what its source lists before it acts on any of it, so that it knows what is missing, holds a
-- batch in memory and not the listing, and goes on where a worker that died had come to.
CREATE TABLE listings (
    source_id uuid PRIMARY KEY REFERENCES sources ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    run       uuid NOT NULL,                       -- the refresh job: another one begins anew
    began_at  timestamptz NOT NULL DEFAULT now(),
    cursor    text,                                -- the source's own: how far the listing is
    ended     boolean NOT NULL DEFAULT false,      -- there is no more to list
    complete  boolean NOT NULL DEFAULT false,      -- and that is all there is: what is missing may be deleted
    state     jsonb NOT NULL DEFAULT '{}',         -- for sources.state, once all is done
    done_to   text,                                -- items up to this one, in their order, are done
    counts    jsonb NOT NULL DEFAULT '{}',
    problems  text[] NOT NULL DEFAULT '{}'
);
CREATE TABLE listed (
    source_id   uuid NOT NULL REFERENCES listings ON DELETE CASCADE,
    tenant_id   uuid NOT NULL,
    external_id text COLLATE "C" NOT NULL,
    fingerprint text,                              -- null: only its bytes tell whether it changed
    note        text NOT NULL,                     -- the source's own, for fetching it and for its permissions
    PRIMARY KEY (source_id, external_id)
);
ALTER TABLE listed ALTER external_id SET STATISTICS 0, ALTER note SET STATISTICS 0;
ALTER TABLE listings ALTER problems SET STATISTICS 0;
CALL protect('listings', 'tenant_id = (SELECT scope_tenant())');
CALL protect('listed', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON listings, listed TO citadel_maintenance;

-- Profiles' tables --------------------------------------------------------------------------------------------------

-- A profile's token codes: read by chunk id alone, so they follow their document's row, as chunks do. Sign bits of
-- rotated vectors do not compress.
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

-- A profile's narrow index tables: ids, label sets and vectors, never text.
CREATE FUNCTION add_profile(p_name text, p_model text, p_dimensions int, p_precision text, p_chunk_tokens int,
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

-- Profiles beside the live one ----------------------------------------------------------------------------------------

-- Profiles that a tenant's index is kept under beside the live one: candidates, and those it lived on before.
CREATE TABLE kept_profiles (
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    profile_id int NOT NULL REFERENCES profiles,
    role       text NOT NULL CHECK (role IN ('candidate', 'previous')),
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, profile_id)
);
CALL protect('kept_profiles', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON kept_profiles TO citadel_maintenance;

-- A profile's tables go, and the profile with them; whoever works on one of them holds the profile's row. As the owner,
-- who sees no row of them: maintenance has deleted those.
CREATE PROCEDURE drop_profile(p_profile int) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM profiles WHERE id = p_profile;
    EXECUTE format('DROP TABLE %I, %I', 'tokens_' || p_profile, 'vectors_' || p_profile);
END $$;
REVOKE EXECUTE ON PROCEDURE drop_profile(int) FROM PUBLIC;
