"""Weights and nets of other libraries: what fastcnn reads from their files, and writes for them."""
