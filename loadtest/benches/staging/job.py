"""What every engine of the benchmark has in common: its arguments, and the names of the job.

The job: read JSON lines; keep the rows that hold each column in its type, have those that are required, and whose
amount is above 0 and whose quantity is null or from 1 to 10,000; trim `currency`, `source` and `user_id`, raise
`currency`, put USD and unknown where they are null or empty; of rows with one (transaction_id, occurred_at) keep
the newest by `updated_at`; write OUT/data/source=…/date=…/hour=…/*.parquet, zstd level 1, ids as text in lower
case, amounts as decimals, times as timestamps, `attributes` as JSON text. Where an engine can keep
the rows that do not fit, it writes them with their text below OUT/dead-letters.
"""

import argparse
import glob
import os


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--in", dest="input", required=True, help="folder of transactions-*.json")
    parser.add_argument("--out", required=True, help="folder that does not exist yet")
    parser.add_argument("--no-dedupe", dest="dedupe", action="store_false", help="keep all rows of a key")
    parser.add_argument("--clean", action="store_true", help="the input has no rows that do not fit")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parsed = parser.parse_args()
    parsed.files = sorted(glob.glob(os.path.join(parsed.input, "transactions-*.json")))
    if not parsed.files:
        raise SystemExit(f"no transactions-*.json in {parsed.input}")
    parsed.data = os.path.join(parsed.out, "data")
    parsed.dead_letters = os.path.join(parsed.out, "dead-letters")
    return parsed
