"""ClickHouse, by chdb, on cleaned input: told to skip errors it loses good rows too, and it keeps no rejects.
With duplicates to remove, rows go into a table in memory first, so that they are parsed once.
"""

import os

import chdb.session

from job import arguments

COLUMNS = """transaction_id UUID, user_id String, product_id Nullable(String), amount Decimal(12, 2),
  currency Nullable(String), quantity Nullable(Int32), source Nullable(String),
  occurred_at DateTime64(3, 'UTC'), updated_at Nullable(DateTime64(3, 'UTC')), attributes Nullable(String)"""
CLEANED = """
  transaction_id, trimBoth(user_id) AS user_id, product_id, amount,
  ifNull(nullIf(upper(trimBoth(currency)), ''), 'USD') AS currency, quantity,
  ifNull(nullIf(trimBoth(source, ' \\t\\n\\r'), ''), 'unknown') AS source,
  occurred_at, updated_at, attributes
"""
FITS = "amount > 0 AND (quantity IS NULL OR quantity BETWEEN 1 AND 10000)"
SETTINGS = """
  output_format_parquet_compression_method = 'zstd', output_format_compression_level = 1,
  date_time_input_format = 'best_effort', input_format_json_read_objects_as_strings = 1,
  max_partitions_per_insert_block = 0, engine_file_truncate_on_insert = 1
"""


def main():
    job = arguments()
    os.makedirs(job.out)
    session = chdb.session.Session(os.path.join(job.out, ".session"))
    session.query(f"SET max_threads = {job.threads}, max_insert_threads = {job.threads}")
    raw = f"file('{os.path.abspath(job.input)}/transactions-*.json', JSONEachRow, $${COLUMNS}$$)"
    read = f"SELECT {CLEANED} FROM {raw} WHERE {FITS}"
    if job.dedupe:
        session.query("CREATE DATABASE IF NOT EXISTS bench")
        session.query(f"CREATE TABLE bench.fit ENGINE = Memory AS {read} SETTINGS {SETTINGS}")
        # Few keys come twice: only their rows are sorted.
        twice = "SELECT transaction_id, occurred_at FROM bench.fit GROUP BY ALL HAVING count() > 1"
        session.query(f"CREATE TABLE bench.twice ENGINE = Memory AS {twice}")
        key = "(transaction_id, occurred_at)"
        rows = f"""
            SELECT * FROM bench.fit WHERE {key} NOT IN (SELECT * FROM bench.twice)
            UNION ALL
            SELECT * FROM bench.fit WHERE {key} IN (SELECT * FROM bench.twice)
            ORDER BY updated_at DESC LIMIT 1 BY transaction_id, occurred_at
        """
    else:
        rows = read
    session.query(f"""
        INSERT INTO FUNCTION file('{os.path.abspath(job.data)}/{{_partition_id}}/part.parquet', Parquet)
        PARTITION BY concat('source=', source, '/date=', toString(toDate(occurred_at)), '/hour=',
                            leftPad(toString(toHour(occurred_at)), 2, '0'))
        SELECT * REPLACE (toString(transaction_id) AS transaction_id) FROM ({rows}) SETTINGS {SETTINGS}
    """)
    session.close()


if __name__ == "__main__":
    main()
