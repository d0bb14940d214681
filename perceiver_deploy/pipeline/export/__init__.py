"""Export: checkpoint to bundle, behind the parity gate."""
