"""Making artefacts: tracing, graph passes, precision, engines."""
