"""Figure 2 of arXiv 2210.03163, as published and as measured. Needs no torch."""
