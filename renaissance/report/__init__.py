"""The report of a study: one HTML file, and the same as Markdown, from result files alone."""
