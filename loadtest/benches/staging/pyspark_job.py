"""PySpark, in mode PERMISSIVE: lines that are no JSON, or hold a value of another type, come with their text as
`_corrupt_record`. Other rows that do not fit are kept as JSON written anew; reading the lines as text and parsing
them by `from_json`, which would keep theirs too, costs a seventh more."""

import os

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as f

from job import arguments

FIELDS = """transaction_id STRING, user_id STRING, product_id STRING, amount DECIMAL(12,2), currency STRING,
  quantity INT, source STRING, occurred_at TIMESTAMP, updated_at TIMESTAMP, attributes STRING"""
UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
MEMORY = os.environ.get("SPARK_DRIVER_MEMORY", "6g")


def session(job):
    builder = SparkSession.builder.master(f"local[{job.threads}]").appName("staging")
    for name, value in {
        "spark.driver.memory": MEMORY,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(2 * job.threads),
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.hadoop.parquet.compression.codec.zstd.level": "1",
        "spark.local.dir": os.path.join(os.path.abspath(job.out), ".spill"),
        "spark.log.level": "ERROR",
    }.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def or_default(column, value):
    return f.when(f.coalesce(column, f.lit("")) == "", f.lit(value)).otherwise(column)


def main():
    job = arguments()
    os.makedirs(job.out)
    spark = session(job)
    schema = FIELDS if job.clean else f"{FIELDS}, _corrupt_record STRING"
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_corrupt_record"}
    rows = spark.read.schema(schema).options(**options).json(job.files)
    fits = (
        f.col("transaction_id").rlike(UUID) & f.col("user_id").isNotNull() & f.col("occurred_at").isNotNull()
        & (f.col("amount") > 0) & (f.col("quantity").isNull() | f.col("quantity").between(1, 10000))
    )
    if not job.clean:
        fits = f.col("_corrupt_record").isNull() & fits
    rows = rows.withColumn("fits", f.coalesce(fits, f.lit(False)))
    good = rows.where("fits").select(
        f.lower("transaction_id").alias("transaction_id"),
        f.trim("user_id").alias("user_id"),
        "product_id",
        "amount",
        or_default(f.upper(f.trim("currency")), "USD").alias("currency"),
        "quantity",
        or_default(f.trim("source", f.lit(" \t\n\r")), "unknown").alias("source"),
        "occurred_at",
        "updated_at",
        "attributes",
    )
    if job.dedupe:
        newest = Window.partitionBy("transaction_id", "occurred_at").orderBy(f.desc("updated_at"))
        good = good.withColumn("rank", f.row_number().over(newest)).where("rank = 1").drop("rank")
    good = good.withColumn("date", f.date_format("occurred_at", "yyyy-MM-dd"))
    good = good.withColumn("hour", f.date_format("occurred_at", "HH"))
    good.write.partitionBy("source", "date", "hour").parquet(job.data)
    if not job.clean:
        columns = [column for column in rows.columns if column not in ("fits", "_corrupt_record")]
        text = f.coalesce("_corrupt_record", f.to_json(f.struct(*columns))).alias("rejected")
        rows.where("NOT fits").select(text).coalesce(1).write.parquet(job.dead_letters)
    spark.stop()


if __name__ == "__main__":
    main()
