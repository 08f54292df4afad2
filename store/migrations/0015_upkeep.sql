-- Profiles beside the live one, retention of versions, and what takes them away.

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

-- How many versions before the current one a tenant keeps, or for how many days; null and null: all of them.
ALTER TABLE tenants ADD keep_versions int CHECK (keep_versions >= 0), ADD keep_days int CHECK (keep_days >= 0);
-- Those before it were taken away by retention: what cites them is told so.
ALTER TABLE documents ADD oldest_version int NOT NULL DEFAULT 1;
