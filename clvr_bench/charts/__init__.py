"""Charts of a suite's rows, as matplotlib figures: how they learned, and what it cost. Needs no torch."""
