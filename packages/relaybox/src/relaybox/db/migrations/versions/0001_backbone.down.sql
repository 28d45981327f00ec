DROP FUNCTION relaybox_retain_outbox(INTERVAL);
DROP FUNCTION relaybox_move_unsent(INT, INT);
DROP TABLE stream_tickets, aggregate_snapshots, flow_resume_handles,
    consumed_events, operator_acts, relay_members, relay_origin, relay_batches, relay_lanes, event_outbox, event_outbox_slots, async_tasks, command_inbox, domain_events;
DROP SEQUENCE event_outbox_turn;
DROP FUNCTION refuse_change_of_events();
DROP FUNCTION trigger_set_timestamp();
DROP TYPE handle_status, outbox_status, task_status, command_status;
