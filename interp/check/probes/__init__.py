"""The probes, one idea a file. Each is a function of a ``Bench`` that yields ``Finding``s and returns what it did,
or raises
``DoesNotApply`` with the reason."""
