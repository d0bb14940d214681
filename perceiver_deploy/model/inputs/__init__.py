"""What models take: one file per modality, which has its configuration and the adapter that makes tokens of it.

Tokens are [batch, tokens, channels].
"""
