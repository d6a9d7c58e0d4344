"""The engine: capture the attention of any torch model, measure it, change it, check its masks, draw it.

Its rooms, lowest first: ``masks`` · ``attention`` · ``subject`` · ``run`` · ``analysis`` and ``check`` · ``drawing``.
"""

if __name__ == "interp":  # from a checkout, by its old name
    from headwise._bridge import bridge

    globals().update(bridge("interp"))
