-- The reranker that a tenant had trained: its name, kind, digest, weight, pool and profile. Null: late interaction as it
-- ships. What it learned lies in a folder of each host, and is taken by its digest alone.
ALTER TABLE tenants ADD COLUMN reranker jsonb;
