-- Sources of every kind, refreshed in bounded memory: what a source lists is written down first, then worked through.
ALTER TABLE sources
    DROP CONSTRAINT sources_kind_check,
    ADD CONSTRAINT sources_kind_check CHECK (kind IN ('api', 'folder', 'files', 'git', 'website', 'mail', 'sql', 'reader')),
    ADD COLUMN timezone text NOT NULL DEFAULT 'UTC',
    ADD COLUMN jitter_s int NOT NULL DEFAULT 0 CHECK (jitter_s BETWEEN 0 AND 86400),
    ADD COLUMN state jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN content_as_of timestamptz,
    ADD COLUMN permissions_as_of timestamptz;
ALTER TABLE documents ADD COLUMN permissions text;

CREATE TABLE listings (
    source_id uuid PRIMARY KEY REFERENCES sources ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    run       uuid NOT NULL,
    began_at  timestamptz NOT NULL DEFAULT now(),
    cursor    text,
    ended     boolean NOT NULL DEFAULT false,
    complete  boolean NOT NULL DEFAULT false,
    state     jsonb NOT NULL DEFAULT '{}',
    done_to   text,
    counts    jsonb NOT NULL DEFAULT '{}',
    problems  text[] NOT NULL DEFAULT '{}'
);
CREATE TABLE listed (
    source_id   uuid NOT NULL REFERENCES listings ON DELETE CASCADE,
    tenant_id   uuid NOT NULL,
    external_id text COLLATE "C" NOT NULL,
    fingerprint text,
    note        text NOT NULL,
    PRIMARY KEY (source_id, external_id)
);
ALTER TABLE listed ALTER external_id SET STATISTICS 0, ALTER note SET STATISTICS 0;
ALTER TABLE listings ALTER problems SET STATISTICS 0;
CALL protect('listings', 'tenant_id = (SELECT scope_tenant())');
CALL protect('listed', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON listings, listed TO citadel_maintenance;
