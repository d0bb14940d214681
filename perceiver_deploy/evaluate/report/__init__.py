"""Reports as JSON, HTML and Markdown."""
