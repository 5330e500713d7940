"""Tables as the bytes of a Parquet file, and back."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def packed(table: Any, **options: Any) -> bytes:
    """Return a `pyarrow.Table` as the bytes of a file; options go to pyarrow's `write_table`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def unpacked(content: bytes) -> Any:
    """Return the `pyarrow.Table` in the bytes of a file; raises ValueError where there is none."""
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"does not read: {str(error).splitlines()[0]}") from error
