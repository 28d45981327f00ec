-- name: count_sessions
-- Count the other sessions of the current database.
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND (backend_type LIKE 'client %' OR backend_type = 'walsender')

-- name: has_other_objects
-- Return whether the current database has prepared transactions or replication slots, or whether ALTER
-- DATABASE or GRANT has changed its settings, rights or connection limit. The query shape does not detect any
-- of these.
SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())
    OR EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database())
    OR EXISTS (SELECT FROM pg_db_role_setting AS given
               JOIN pg_database ON pg_database.oid = given.setdatabase WHERE datname = current_database())
    OR EXISTS (SELECT FROM pg_database WHERE datname = current_database()
               AND (datacl IS NOT NULL OR datconnlimit <> -1 OR NOT datallowconn))

-- name: shape
-- Return, for each system catalog, a hash of the rows that describe objects of the current database. The
-- columns of pg_class that change with the rows of a table are left out. A clone has the OIDs of its
-- template, so its hashes differ from those of the template if an object was created, altered or dropped.
-- Converting all catalog rows to jsonb took ten times as long, for every test.
WITH line (catalog, line) AS (
    SELECT 'pg_class', ROW(
        oid, relname, relnamespace, reltype, reloftype, relowner, relam, reltablespace, reltoastrelid, relhasindex, relisshared,
        relpersistence, relkind, relnatts, relchecks, relhasrules, relhastriggers, relhassubclass, relrowsecurity,
        relforcerowsecurity, relispopulated, relreplident, relispartition, relrewrite, relacl, reloptions, relpartbound
    )::text FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT 'pg_attribute', it::text FROM pg_attribute AS it WHERE it.attrelid >= 16384
    UNION ALL SELECT 'pg_attrdef', it::text FROM pg_attrdef AS it WHERE it.adrelid >= 16384
    UNION ALL SELECT 'pg_constraint', it::text FROM pg_constraint AS it WHERE it.oid >= 16384
    UNION ALL SELECT 'pg_index', it::text FROM pg_index AS it WHERE it.indexrelid >= 16384
    UNION ALL SELECT 'pg_inherits', it::text FROM pg_inherits AS it WHERE it.inhrelid >= 16384
    UNION ALL SELECT 'pg_rewrite', it::text FROM pg_rewrite AS it WHERE it.ev_class >= 16384
    UNION ALL SELECT 'pg_sequence', it::text FROM pg_sequence AS it WHERE it.seqrelid >= 16384
    UNION ALL SELECT 'pg_trigger', it::text FROM pg_trigger AS it WHERE it.tgrelid >= 16384
    UNION ALL SELECT 'pg_policy', it::text FROM pg_policy AS it WHERE it.polrelid >= 16384
    UNION ALL SELECT 'pg_proc', it::text FROM pg_proc AS it WHERE it.oid >= 16384
    UNION ALL SELECT 'pg_type', it::text FROM pg_type AS it WHERE it.oid >= 16384
    UNION ALL SELECT 'pg_enum', it::text FROM pg_enum AS it WHERE it.oid >= 16384
    UNION ALL SELECT 'pg_extension', it::text FROM pg_extension AS it WHERE it.oid >= 16384
    UNION ALL SELECT 'pg_namespace', it::text FROM pg_namespace AS it WHERE it.nspname !~ '^pg_'
    UNION ALL SELECT 'pg_default_acl', it::text FROM pg_default_acl AS it WHERE it.oid >= 16384
    UNION ALL SELECT 'pg_publication', it::text FROM pg_publication AS it WHERE it.oid >= 16384
    UNION ALL SELECT 'pg_statistic', it::text FROM pg_statistic AS it WHERE it.starelid >= 16384
)
SELECT catalog, sum(hashtextextended(line, 0)) FROM line GROUP BY catalog ORDER BY catalog

-- name: filled_tables
-- Return the tables whose files are not empty.
SELECT oid::regclass::text FROM pg_class
WHERE relkind = 'r' AND oid >= 16384 AND relpersistence <> 't' AND pg_relation_size(oid) > 0

-- name: guards
-- Return the triggers that fire even with session_replication_role = replica, and their tables. The clean-up
-- disables these triggers while it runs.
SELECT tgrelid::regclass::text, quote_ident(tgname) FROM pg_trigger
WHERE tgenabled = 'A' AND NOT tgisinternal AND tgparentid = 0

-- name: rows
-- Return all rows of a table as JSON.
SELECT coalesce(json_agg(it ORDER BY it::text), '[]')::text FROM
-- include: table
AS it

-- name: insert_rows
-- Insert rows of a table from JSON.
INSERT INTO
-- include: table
OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::
-- include: table
, $1::text::json)

-- name: sequences
-- Return the value of each sequence, and whether nextval has already returned this value.
SELECT seqrelid::regclass::text, coalesce(pg_sequence_last_value(seqrelid), seqstart),
    pg_sequence_last_value(seqrelid) IS NOT NULL
FROM pg_sequence

-- name: set_sequence
-- Set sequence $1 to the value $2; $3: whether nextval has already returned this value.
SELECT setval($1::text::regclass, $2, $3)

-- name: reset_statistics
-- Reset the counters of the current database.
SELECT pg_stat_reset()
