"""Reports: measurements drawn as HTML, Markdown and model cards."""
