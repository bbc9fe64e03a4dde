"""DuckDB. With rows that do not fit, lines are read as text and taken apart once, since `read_json` with
`ignore_errors` goes on but forgets their text; on cleaned input its typed reader does the job."""

import os

import duckdb

from job import arguments

TYPES = {
    "transaction_id": "UUID",
    "user_id": "VARCHAR",
    "product_id": "VARCHAR",
    "amount": "DECIMAL(12,2)",
    "currency": "VARCHAR",
    "quantity": "INTEGER",
    "source": "VARCHAR",
    "occurred_at": "TIMESTAMP_MS",
    "updated_at": "TIMESTAMP_MS",
    "attributes": "JSON",
}
CLEANED = """
  transaction_id, trim(user_id) AS user_id, product_id, amount,
  coalesce(nullif(upper(trim(currency)), ''), 'USD') AS currency, quantity,
  coalesce(nullif(trim(source, E' \\t\\n\\r'), ''), 'unknown') AS source,
  occurred_at, updated_at, attributes
"""
# A line that is no JSON, or a value of another type, comes out as null. In columns that may be null the line says
# whether something stood there; a line that is no JSON has no id and is not asked.
FITS = """
  CASE WHEN transaction_id IS NULL OR user_id IS NULL OR occurred_at IS NULL OR amount IS NULL OR amount <= 0 THEN false
       WHEN quantity IS NULL AND coalesce(json_type(line, '$.quantity'), 'NULL') <> 'NULL' THEN false
       WHEN quantity NOT BETWEEN 1 AND 10000 THEN false
       WHEN updated_at IS NULL AND coalesce(json_type(line, '$.updated_at'), 'NULL') <> 'NULL' THEN false
       ELSE true END
"""
WRITE = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"


def main():
    job = arguments()
    os.makedirs(job.out)
    db = duckdb.connect()
    db.execute(f"SET threads = {job.threads}; SET preserve_insertion_order = false; SET enable_progress_bar = false")
    db.execute("SET TimeZone = 'UTC'; SET partitioned_write_max_open_files = 1000")
    db.execute(f"SET temp_directory = '{job.out}/.spill'")
    if job.clean:
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in TYPES.items())
        rows = f"SELECT {CLEANED} FROM read_json({job.files}, format = 'newline_delimited', columns = {{{columns}}})"
        where = "amount > 0 AND transaction_id IS NOT NULL AND user_id IS NOT NULL AND occurred_at IS NOT NULL"
        rows = f"{rows} WHERE {where} AND (quantity IS NULL OR quantity BETWEEN 1 AND 10000)"
        if job.dedupe:
            db.execute(f"CREATE TEMP TABLE fit AS {rows}")
    else:
        structure = ", ".join(f'"{name}": "{kind}"' for name, kind in TYPES.items())
        # one column: the delimiter is a byte that no line has
        lines = f"""read_csv({job.files}, columns = {{line: 'VARCHAR'}}, delim = E'\\x01', quote = '', escape = '',
            header = false, auto_detect = false, strict_mode = false)"""
        db.execute(f"""
            CREATE TEMP TABLE taken AS
            SELECT CASE WHEN fits THEN NULL ELSE line END AS rejected, * EXCLUDE (line)
            FROM (SELECT *, {FITS} AS fits FROM (
              SELECT line, unnest(json_transform(try_cast(line AS JSON), '{{{structure}}}')) FROM {lines}))
        """)
        db.execute(f"COPY (SELECT rejected FROM taken WHERE NOT fits) TO '{job.dead_letters}.parquet' ({WRITE})")
        rows = f"SELECT {CLEANED} FROM taken WHERE fits"
        if job.dedupe:
            db.execute(f"CREATE TEMP VIEW fit AS {rows}")
    if job.dedupe:
        # Few keys come twice: a join with those alone costs a third of a window over all rows.
        rows = """
            SELECT fit.* FROM fit LEFT JOIN (
              SELECT transaction_id, occurred_at, max(updated_at) AS newest FROM fit
              GROUP BY ALL HAVING count(*) > 1) again USING (transaction_id, occurred_at)
            WHERE newest IS NULL
        """
        twice = """
            SELECT DISTINCT ON (transaction_id, occurred_at) fit.* FROM fit
            SEMI JOIN (SELECT transaction_id, occurred_at FROM fit GROUP BY ALL HAVING count(*) > 1)
              USING (transaction_id, occurred_at)
            ORDER BY updated_at DESC
        """
        rows = f"{rows} UNION ALL ({twice})"
    # ids are text in the lake; until here they are sixteen bytes
    partitioned = """SELECT * REPLACE (transaction_id::VARCHAR AS transaction_id), occurred_at::DATE AS date,
      lpad(hour(occurred_at)::VARCHAR, 2, '0') AS hour"""
    db.execute(f"COPY ({partitioned} FROM ({rows})) TO '{job.data}' ({WRITE}, PARTITION_BY (source, date, hour))")


if __name__ == "__main__":
    main()
