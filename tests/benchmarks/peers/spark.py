"""Spark's `pyspark.ml` `LogisticRegression`, from Parquet, by `local[2]`.

The Parquet file is of vectors, as `VectorAssembler` makes them, written by Spark: assembling 100
columns within each fit took twice as long. Spark 4 uses Java's vector instructions by itself. A fit
is told its iterations of L-BFGS, without a penalty, as it is by default; it reads the file and
keeps its blocks in memory (`maxBlockSizeInMB` as it chooses: others were no faster).
"""

import os
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession

from tests.benchmarks.peers.contest import Contestant, Data, Step, slabs, told_beforehand

_MEMORY = "8g"


def start(data: Data, folder: str, stack: ExitStack) -> Contestant:
    """Start Spark, write Parquet, and return the contestant."""
    spark = _session(folder)
    stack.callback(spark.stop)
    started = perf_counter()
    columns, vectors = f"{folder}/columns.parquet", f"{folder}/vectors.parquet"
    names = [f"x{j}" for j in range(data.store.n_features)]
    _write(data, columns, names)
    assembler = VectorAssembler(inputCols=names, outputCol="features")
    assembled = assembler.transform(spark.read.parquet(columns)).select("label", "features")
    assembled.write.parquet(vectors)
    seconds = perf_counter() - started
    os.unlink(columns)
    rows = spark.read.parquet(vectors)

    def fit(iterations: int) -> Step:
        model = LogisticRegression(maxIter=iterations).fit(rows)
        return Step(model.coefficients.toArray(), model.intercept, iterations)

    return Contestant(told_beforehand(fit), f"Parquet of vectors in {seconds:.0f} s")


def _session(folder: str) -> Any:
    """Start Spark, on this machine only."""
    # Its launcher asks for these before it looks at any setting.
    os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": folder}
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", _MEMORY)
        .config("spark.sql.warehouse.dir", f"{folder}/warehouse")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _write(data: Data, path: str, names: list[str]) -> None:
    schema = pa.schema([("label", pa.float64()), *((name, pa.float32()) for name in names)])
    with pq.ParquetWriter(path, schema) as writer:
        for X, y in slabs(data.store, rows=131_072):
            writer.write_table(pa.table([y.astype("f8"), *X.T], schema=schema))
