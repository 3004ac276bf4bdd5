"""The guards that keep an adapting device from doing harm: one rule per file, and the transaction that applies them.

State of a guard is a flat mapping of tensors or a frozen dataclass, given and returned, never kept. Nothing here reads
a clock, draws at random or sees a label of a target.
"""
