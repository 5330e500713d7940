"""Names of everything in a results folder."""

import re

MODEL = "model.safetensors"
EMBEDDINGS = "embeddings.parquet"
EXPLANATIONS = "explanations.parquet"
RUN_ID = re.compile(r"[0-9a-f]{16}\Z")
MANIFEST = "archive.json"
"""The file that makes a folder an archive, see `bench.store.archive`."""
DISPUTED = "was finished twice"
"""Kind of the failure of a run with two different results."""
