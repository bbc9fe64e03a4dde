"""What an engine wrote, added up by one reader for all; prints JSON.

usage: check.py OUT
"""

import json
import os
import sys

import duckdb

# Engines write times as they like; so the column's type differs.
TOTALS = """
  SELECT count(*), coalesce(sum(amount::DECIMAL(12,2)), 0)::VARCHAR,
         coalesce(sum(epoch_ms(occurred_at::TIMESTAMP)), 0)::VARCHAR,
         -- of every row and column but `attributes`, which engines may write anew; in any order of the rows
         sum((hash(transaction_id::VARCHAR, user_id::VARCHAR, product_id::VARCHAR, amount::DECIMAL(12,2),
                   currency::VARCHAR, quantity::INTEGER, source::VARCHAR, epoch_ms(occurred_at::TIMESTAMP),
                   epoch_ms(updated_at::TIMESTAMP)) >> 32)::HUGEINT)::VARCHAR
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
    rows, amount, times, fingerprint = db.execute(TOTALS, {"files": data}).fetchone()
    grouped = lambda column: dict(db.execute(GROUPED.format(column=column), {"files": data}).fetchall())
    rejected = db.execute("SELECT count(*) FROM read_parquet($files)", {"files": letters}).fetchone()[0] if letters else 0
    print(json.dumps({
        "rows": rows, "amount_sum": amount, "occurred_at_ms_sum": times, "fingerprint": fingerprint,
        "rows_by_currency": grouped("currency"), "rows_by_source": grouped("source"), "rejected": rejected,
        "files": len(data), "bytes": sum(os.path.getsize(path) for path in files),
        "table_partitions": len({os.path.dirname(path) for path in data}),
    }))


if __name__ == "__main__":
    main()
