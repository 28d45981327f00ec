-- Chess studies. Each row is computed only from the events of its node (aggregate type WORKSPACE_NODE), so that
-- `backend rebuild workspace` can compute it again; the exception is workspace_link_secrets, which is in no event.
-- changed_at is the time of an event, and is therefore not set by a trigger, unlike updated_at of other tables.
CREATE TYPE workspace_kind AS ENUM ('workspace', 'folder', 'study');
CREATE TYPE workspace_visibility AS ENUM ('private', 'shared', 'public');
CREATE TYPE workspace_role AS ENUM ('viewer', 'commenter', 'editor', 'admin', 'owner');
CREATE TYPE workspace_thread_kind AS ENUM ('question', 'suggestion', 'note');

CREATE TABLE workspace_nodes (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    kind workspace_kind NOT NULL,
    -- Null for the root of a tree. No foreign key: a purge deletes a batch; nodes below it in other batches remain.
    parent_id UUID,
    -- Owner of the tree when the node was put into it. Only the value of a root is used: it owns the whole tree.
    owner_id TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    position INT NOT NULL DEFAULT 0,
    layout JSONB,
    -- Null: inherited from the nearest ancestor that has a value.
    visibility workspace_visibility,
    -- version: the ETag. stream_version: the number of all events of the node, also those of its discussions.
    version INT NOT NULL DEFAULT 1,
    stream_version INT NOT NULL DEFAULT 1,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    -- Set only on the topmost node that was trashed: a node is live if these are null in the node and all ancestors.
    trashed_at TIMESTAMPTZ,
    trashed_by TEXT,
    trash_reason TEXT,
    trash_batch_id UUID,
    trash_count INT,
    -- Ids of the ancestors at the time of trashing, root first; a restore uses them to find the former place.
    trash_path UUID[],
    CONSTRAINT workspace_nodes_title_check CHECK (char_length(title) BETWEEN 1 AND 200),
    CONSTRAINT workspace_nodes_root_check CHECK (parent_id IS NULL OR kind <> 'workspace'),
    CONSTRAINT workspace_nodes_version_check CHECK (version >= 1 AND stream_version >= version),
    CONSTRAINT workspace_nodes_trash_check CHECK (
        num_nonnulls(trashed_at, trashed_by, trash_batch_id, trash_count, trash_path) IN (0, 5)
    )
);
-- Children of a node in their order; also for reading a whole tree.
CREATE INDEX idx_workspace_nodes_parent ON workspace_nodes (parent_id, position, id);
CREATE INDEX idx_workspace_nodes_owner ON workspace_nodes (owner_id, created_at) WHERE parent_id IS NULL;
-- The titles of live studies in one folder are unique.
CREATE UNIQUE INDEX idx_workspace_nodes_study_title ON workspace_nodes (parent_id, title)
    WHERE kind = 'study' AND trashed_at IS NULL;
-- The bin: nodes that are due for the automatic purge, and the trashed nodes of a user.
CREATE INDEX idx_workspace_nodes_trashed ON workspace_nodes (trashed_at) WHERE trashed_at IS NOT NULL;
CREATE INDEX idx_workspace_nodes_trashed_by ON workspace_nodes (trashed_by) WHERE trashed_at IS NOT NULL;

-- Tasks by the nodes that they export, or that they import into: a purge erases the content of these tasks.
CREATE INDEX idx_async_tasks_nodes ON async_tasks USING gin ((result_data -> 'nodes'))
    WHERE task_type IN ('workspace.export', 'workspace.import-pgn');
-- Exports by age, to remove old files.
CREATE INDEX idx_async_tasks_exported ON async_tasks (updated_at) WHERE task_type = 'workspace.export';

CREATE TABLE workspace_chapters (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    node_id UUID NOT NULL,
    position INT NOT NULL,
    title TEXT NOT NULL,
    headers JSONB NOT NULL DEFAULT '{}',
    -- {"start": annotation of the position before the first move, "moves": [all moves, in preorder]}.
    moves JSONB NOT NULL DEFAULT '{}',
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_workspace_chapters_node ON workspace_chapters (node_id, position, id);

CREATE TABLE workspace_versions (
    node_id UUID NOT NULL,
    number INT NOT NULL,
    label TEXT NOT NULL DEFAULT '',
    -- The version that a rollback restored; null for a version that a user stored.
    restored_from INT,
    title TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    -- Chapters as they were: id, position, title, headers, moves.
    chapters JSONB NOT NULL,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT workspace_versions_pkey PRIMARY KEY (node_id, number)
);

CREATE TABLE workspace_threads (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    node_id UUID NOT NULL,
    chapter_id UUID,
    move_path TEXT,
    kind workspace_thread_kind NOT NULL,
    title TEXT NOT NULL DEFAULT '',
    body TEXT NOT NULL,
    mentions JSONB NOT NULL DEFAULT '[]',
    author_id TEXT NOT NULL,
    resolved_at TIMESTAMPTZ,
    resolved_by TEXT,
    pinned BOOLEAN NOT NULL DEFAULT false,
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT workspace_threads_resolved_check CHECK ((resolved_at IS NULL) = (resolved_by IS NULL)),
    CONSTRAINT workspace_threads_move_check CHECK (move_path IS NULL OR chapter_id IS NOT NULL)
);
CREATE INDEX idx_workspace_threads_node ON workspace_threads (node_id, pinned, created_at, id);

CREATE TABLE workspace_replies (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    node_id UUID NOT NULL,
    thread_id UUID NOT NULL,
    -- The reply that this reply answers; null if it answers the thread.
    parent_id UUID,
    depth INT NOT NULL DEFAULT 1,
    body TEXT NOT NULL,
    mentions JSONB NOT NULL DEFAULT '[]',
    author_id TEXT NOT NULL,
    -- The user who wrote the current body, the author or an admin; null while the body is the first one.
    edited_by TEXT,
    -- The last 50 earlier bodies, oldest first: {"body", "written_by", "written_at"}.
    history JSONB NOT NULL DEFAULT '[]',
    -- The users of each emoji, by emoji.
    reactions JSONB NOT NULL DEFAULT '{}',
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    -- A deleted reply that has answers remains as a row without a body.
    deleted_at TIMESTAMPTZ,
    CONSTRAINT workspace_replies_depth_check CHECK (depth BETWEEN 1 AND 5)
);
CREATE INDEX idx_workspace_replies_thread ON workspace_replies (thread_id, created_at, id);
CREATE INDEX idx_workspace_replies_node ON workspace_replies (node_id);

CREATE TABLE workspace_grants (
    node_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    role workspace_role NOT NULL,
    granted_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT workspace_grants_pkey PRIMARY KEY (node_id, user_id),
    CONSTRAINT workspace_grants_role_check CHECK (role <> 'owner')
);
CREATE INDEX idx_workspace_grants_user ON workspace_grants (user_id, created_at);

CREATE TABLE workspace_links (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    node_id UUID NOT NULL,
    role workspace_role NOT NULL,
    has_password BOOLEAN NOT NULL DEFAULT false,
    expires_at TIMESTAMPTZ,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT workspace_links_role_check CHECK (role IN ('viewer', 'commenter', 'editor'))
);
CREATE INDEX idx_workspace_links_node ON workspace_links (node_id);

-- In no event, so a rebuild cannot restore these rows; if they are lost, users create new links.
CREATE TABLE workspace_link_secrets (
    link_id UUID PRIMARY KEY,
    node_id UUID NOT NULL,
    token_hash BYTEA NOT NULL,
    password_hash TEXT,
    -- Wrong passwords since the last correct password, and the time until which all attempts are refused.
    failures INT NOT NULL DEFAULT 0,
    refused_until TIMESTAMPTZ,
    CONSTRAINT workspace_link_secrets_token_key UNIQUE (token_hash)
);
CREATE INDEX idx_workspace_link_secrets_node ON workspace_link_secrets (node_id);

-- Return the ids of the roots of the trees of *places*, ascending, in the snapshot of the calling statement.
CREATE FUNCTION workspace_roots(places UUID[]) RETURNS UUID[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE up AS (
        SELECT node.id, node.parent_id, 0 AS level FROM workspace_nodes AS node WHERE node.id = ANY (places)
        UNION
        SELECT parent.id, parent.parent_id, up.level + 1
        FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
        WHERE up.level < 1000
    )
    SELECT coalesce(array_agg(DISTINCT up.id ORDER BY up.id), '{}') FROM up WHERE up.parent_id IS NULL
$$;

-- Lock *nodes* FOR UPDATE, and lock the roots of the trees of *places* (nodes included), so that no place moves to
-- another tree before the end of the transaction. The roots are locked FOR SHARE; with *alone* FOR UPDATE, which excludes
-- all other callers in these trees. Return the rows that were locked FOR UPDATE; deleted nodes are missing.
-- The order of locks prevents deadlocks: first the roots, then the nodes, both by id. A locked root stays a root. If a
-- place moved before its root was locked, leaving the block releases the locks, and the function tries again.
-- All statements are in one function, because each needs a snapshot taken after the locks before it.
CREATE FUNCTION workspace_hold(places UUID[], nodes UUID[], alone BOOLEAN) RETURNS SETOF workspace_nodes
    LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    roots UUID[];
    root UUID;
BEGIN
    FOR attempt IN 1..10 LOOP
        BEGIN
            roots := workspace_roots(places);
            FOREACH root IN ARRAY roots LOOP
                -- Not FOR SHARE first: two transactions that both upgrade a shared lock deadlock.
                IF alone OR root = ANY (nodes) THEN
                    PERFORM FROM workspace_nodes AS node WHERE node.id = root AND node.parent_id IS NULL FOR UPDATE;
                ELSE
                    PERFORM FROM workspace_nodes AS node WHERE node.id = root AND node.parent_id IS NULL FOR SHARE;
                END IF;
                IF NOT FOUND THEN
                    RAISE EXCEPTION USING ERRCODE = 'WS001';
                END IF;
            END LOOP;
            IF NOT workspace_roots(places) <@ roots THEN
                RAISE EXCEPTION USING ERRCODE = 'WS001';
            END IF;
            RETURN QUERY SELECT node.* FROM workspace_nodes AS node
                WHERE node.id = ANY (CASE WHEN alone THEN roots || nodes ELSE nodes END)
                ORDER BY node.id FOR UPDATE;
            RETURN;
        EXCEPTION WHEN SQLSTATE 'WS001' THEN
            NULL; -- Another try.
        END;
    END LOOP;
    RAISE EXCEPTION 'the trees keep moving' USING ERRCODE = 'serialization_failure';
END
$$;

-- Replaces the function of 0001: the same rights on all tables of the applications.
CREATE OR REPLACE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions, workspace_nodes, workspace_chapters, '
        'workspace_versions, workspace_threads, workspace_replies, workspace_grants, workspace_links, '
        'workspace_link_secrets TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;
