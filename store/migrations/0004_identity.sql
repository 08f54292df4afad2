-- Identity: rotation and last use of keys, identity providers, what a directory pushes, and claims of tokens.

ALTER TABLE memberships ADD origin text NOT NULL DEFAULT 'file' CHECK (origin IN ('file', 'scim'));
ALTER TABLE memberships DROP CONSTRAINT memberships_pkey, ADD PRIMARY KEY (tenant_id, member, group_label, origin);
CREATE INDEX ON memberships (tenant_id, group_label);

ALTER TABLE api_keys ADD previous_hash bytea UNIQUE, ADD previous_until timestamptz, ADD last_used_at timestamptz;

-- Users whom the directory deactivated, deleted or renamed: they hold no label, not even their own, until it opens them.
CREATE TABLE closed_subjects (
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    subject   text NOT NULL,                       -- in lower case, as core.labels folds it
    closed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, subject)
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

CALL protect('closed_subjects', 'tenant_id = (SELECT scope_tenant())');
CALL protect('scim_users', 'tenant_id = (SELECT scope_tenant())');
CALL protect('scim_groups', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT ON closed_subjects, identity_providers, scim_users, scim_groups TO citadel_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON closed_subjects, identity_providers, scim_users, scim_groups TO citadel_maintenance;

CALL watch_grants('closed_subjects', true);

DROP FUNCTION visible_label_sets(uuid, text, text[], text, xid8);
DROP FUNCTION held_labels(uuid, text);

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
