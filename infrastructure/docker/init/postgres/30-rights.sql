-- What the services' role may do: the same two functions that every migration run calls.
\getenv service_user SERVICE_USER

SELECT relaybox_grant(:'service_user'), backend_grant(:'service_user');

-- The superuser is itself again; see 10-roles.sql.
SET ROLE NONE;
SELECT format('ALTER ROLE %I IN DATABASE %I RESET role', session_user, current_database())
\gexec
SELECT format('ALTER ROLE %I IN DATABASE %I RESET search_path', session_user, current_database())
\gexec
