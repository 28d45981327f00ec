"""Relays under everything that dies, freezes, cuts and swallows, and an account of what became of it.

``make chaos`` runs it. The parts, in the order in which a run meets them::

    _schedule    which faults come when: a pure function of the seed
    _stage       servers of the run's own, with a proxy (_proxy) between them and the relays
    _cluster     or three brokers, a primary with a standby and PgBouncer, with faults of their own
    _relays      relay processes, killed and frozen
    _writers     events for hundreds of keys; what was sent and answered stands in the _journal
    _injector    carries the schedule out; after every fault the _probes ask when events flow again
    _topic       everything on the topic, from offset 0
    _verdict     journal, tables and topic compared: pure
    _cross_check `relaybox verify` must say the same
    _report      the table for people, one JSON object for scripts
    _run         all of it, one after the other
"""
