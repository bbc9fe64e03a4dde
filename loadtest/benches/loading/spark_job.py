"""Spark's JDBC writer: rows with their keys, from Parquet, appended to a table that checks them. Prints one line of JSON.

It can neither look keys up nor upsert, so the keys are joined before the clock starts, and every row is new."""

import argparse
import json
import os
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

TABLE = "warehouse.spark_sales"


def main():
    parser = argparse.ArgumentParser()
    for name in ("jar", "rows", "port"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rewrite", action="store_true", help="the driver's reWriteBatchedInserts, which is off by default")
    job = parser.parse_args()
    threads = os.cpu_count()
    builder = SparkSession.builder.master(f"local[{threads}]").appName("loading")
    for name, value in {
        "spark.jars": job.jar, "spark.driver.extraClassPath": job.jar, "spark.ui.enabled": "false", "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false", "spark.sql.session.timeZone": "UTC", "spark.driver.memory": "3g",
    }.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    url = f"jdbc:postgresql://127.0.0.1:{job.port}/bench?stringtype=unspecified&reWriteBatchedInserts={str(job.rewrite).lower()}"
    options = {"user": "postgres", "driver": "org.postgresql.Driver"}
    rows = spark.read.parquet(job.rows)
    keyed = rows
    for dimension, member in (("users", "user"), ("products", "product"), ("stores", "store")):
        table = spark.read.jdbc(url, f"(SELECT {member}_id, {member}_key FROM warehouse.dim_{dimension}) d", properties=options)
        keyed = keyed.join(f.broadcast(table), f"{member}_id")
    columns = ["sale_id", "occurred_at", "user_key", "product_key", "store_key", "amount", "currency", "quantity", "source",
               "updated_at", "attributes"]
    keyed = keyed.select(columns).repartition(threads).cache()
    count = keyed.count()
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    keyed.write.option("batchsize", 50_000).jdbc(url, TABLE, mode="append", properties=options)
    seconds = time.monotonic() - began
    print(json.dumps({"rows": count, "seconds": seconds}), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
