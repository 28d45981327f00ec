"""Run relays and consumers under kills, freezes, cut and dropping connections, and report violations.

``make chaos`` runs it. The modules, in the order of a run::

    _schedule    the faults and their times: a pure function of the seed
    _servers     servers of the run, with a proxy (_proxy) between them and the processes
    _cluster     or three brokers, a primary with a standby and PgBouncer, with their faults
    _services    relay and consumer processes, killed and frozen
    _consumers   the group of consumers, and the operator of its dead letters; _handlers run in its processes
    _writers     events for hundreds of keys; the _journal records what was sent and its result
    _injector    injects the faults; after each fault the _probes measure the recovery
    _topic       all records of the topic, from offset 0
    _comparison  compares journal, tables and topic: pure
    _effects     compares the effects of the consumers with the published events: pure
    _cross_check compares the result with `relaybox verify`
    _report      tables for people, one JSON object for scripts
    _run         the whole run
"""
