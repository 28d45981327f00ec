-- Grant the rights of the services' role, with the two functions that every migration calls.
\getenv service_user SERVICE_USER

SELECT relaybox_grant(:'service_user'), backend_grant(:'service_user');

-- Reset the role of the superuser; see 10-roles.sql.
SET ROLE NONE;
SELECT format('ALTER ROLE %I IN DATABASE %I RESET role', session_user, current_database())
\gexec
SELECT format('ALTER ROLE %I IN DATABASE %I RESET search_path', session_user, current_database())
\gexec
