-- What is done about personal data and secrets, by kind; what is not named is as the installation has it.
ALTER TABLE tenants ADD COLUMN sensitive jsonb NOT NULL DEFAULT '{}';
ALTER TABLE sources ADD COLUMN sensitive jsonb NOT NULL DEFAULT '{}';
-- The policy that a text was read under, and how many of each kind were found in it; null: it was not looked through.
ALTER TABLE versions ADD COLUMN screened jsonb;
