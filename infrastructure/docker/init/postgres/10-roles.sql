-- Create the two roles. psql runs this file as the superuser when the data directory of the container is empty.
-- Names and secrets come from the environment, never from a command line.
\getenv owner_user OWNER_USER
\getenv owner_password OWNER_PASSWORD
\getenv service_user SERVICE_USER
\getenv service_password SERVICE_PASSWORD
\getenv schema SCHEMA

-- Migrations connect as the owner, services as the other role, which owns nothing.
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'owner_user', :'owner_password')
\gexec
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'service_user', :'service_password')
\gexec
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), :'owner_user')
\gexec
-- Each file has its own connection; in the next ones unqualified names mean this schema. 30-rights.sql resets it.
SELECT format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', :'schema', :'owner_user')
\gexec
SELECT format('ALTER ROLE %I IN DATABASE %I SET search_path TO %I', session_user, current_database(), :'schema')
\gexec
-- The next file creates everything as the owner, so that later migrations can change it. 30-rights.sql resets it.
SELECT format('ALTER ROLE %I IN DATABASE %I SET role TO %I', session_user, current_database(), :'owner_user')
\gexec
