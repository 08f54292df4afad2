-- How a tenant's legs become one list. The default weight was measured: docs/decisions/0017.
ALTER TABLE tenants
    ADD COLUMN fusion text NOT NULL DEFAULT 'convex' CHECK (fusion IN ('convex', 'rrf')),
    ADD COLUMN dense_weight float8 NOT NULL DEFAULT 0.4 CHECK (dense_weight BETWEEN 0 AND 1);
