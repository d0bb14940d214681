"""What a session is held to: inputs, outputs, and its graph's own numbers."""
