"""What an engine wrote, added up by one reader for all; prints JSON.

usage: check.py OUT
"""

import json
import os
import sys

import duckdb

# Engines write times as they like; so does the column's type differ.
TOTALS = """
  SELECT count(*), coalesce(sum(amount::DECIMAL(12,2)), 0)::VARCHAR,
         coalesce(sum(epoch_ms(occurred_at::TIMESTAMP)), 0)::VARCHAR
  FROM read_parquet($files, hive_partitioning = true, hive_types_autocast = false, union_by_name = true)
"""
GROUPED = """
  SELECT {column}::VARCHAR, count(*)
  FROM read_parquet($files, hive_partitioning = true, hive_types_autocast = false, union_by_name = true)
  GROUP BY 1 ORDER BY 1
"""


def listed(folder):
    found = []
    for parent, _, names in os.walk(folder):
        found += [os.path.join(parent, name) for name in names if name.endswith(".parquet")]
    return sorted(found)


def main():
    out = sys.argv[1]
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    files = listed(out)
    letters = [path for path in files if os.path.relpath(path, out).startswith("dead-letters")]
    data = [path for path in files if path not in set(letters)]
    if not data:
        raise SystemExit(f"no Parquet files below {out}")
    rows, amount, times = db.execute(TOTALS, {"files": data}).fetchone()
    grouped = lambda column: dict(db.execute(GROUPED.format(column=column), {"files": data}).fetchall())
    rejected = db.execute("SELECT count(*) FROM read_parquet($files)", {"files": letters}).fetchone()[0] if letters else 0
    print(json.dumps({
        "rows": rows, "amount_sum": amount, "occurred_at_ms_sum": times,
        "rows_by_currency": grouped("currency"), "rows_by_source": grouped("source"), "rejected": rejected,
        "files": len(data), "bytes": sum(os.path.getsize(path) for path in files),
        "table_partitions": len({os.path.dirname(path) for path in data}),
    }))


if __name__ == "__main__":
    main()
