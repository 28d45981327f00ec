"""Defects seeded on purpose, which the suite must notice: ``python -m tests.mutants``, or ``make mutants``.

``mutants.toml`` has them; :mod:`tests.mutants._trial` applies one to a copy of the sources and runs
the tests that must fail there.
"""
