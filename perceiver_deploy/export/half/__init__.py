"""Half precision graphs: fp16 and bf16."""
