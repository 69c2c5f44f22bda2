"""The vector benchmark: `python -m benchmark.vdb`. See README.md."""
