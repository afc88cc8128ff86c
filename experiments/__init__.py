"""One script per question that the sources of the techniques ask; each prints a table and draws a figure."""
