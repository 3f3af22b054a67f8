"""The archives of all servers as the view audit, for Spark.

spark-submit fleet_spark.py /srv/audit "SELECT COUNT(*) FROM audit WHERE month >= '2026-05'"
"""

import sys

from pyspark.sql import SparkSession


def fleet(spark, url):
    """Have the view."""
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    # A database may be called 0815, and no month is a date.
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    spark.read.option("basePath", url).parquet(f"{url}/host=*").createOrReplaceTempView("audit")


if __name__ == "__main__":
    session = SparkSession.builder.appName("audit").getOrCreate()
    fleet(session, sys.argv[1])
    for statement in sys.argv[2:]:
        session.sql(statement).show(1000, truncate=False)
