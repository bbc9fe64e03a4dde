"""Samples → medians, ratios, a table."""

import os
import statistics

# key in the result, engine
RATIOS = {
    "ratio_duckdb": "duckdb",
    "ratio_duckdb_clean": "duckdb-clean",
    "ratio_clickhouse": "clickhouse",
    "ratio_polars": "polars",
    "ratio_pyspark": "pyspark",
    # of what is possible: below 1
    "ratio_floor": "floor",
}


def summed(samples):
    """Median and minimum of what an engine's samples cost. Rates are of the input before compression."""
    of = lambda key: [sample[key] for sample in samples]
    cpu, wall = statistics.median(of("cpu_seconds")), statistics.median(of("seconds"))
    megabytes = samples[0]["unpacked_bytes"] / 1e6
    return {
        "input": samples[0]["input"],
        "bytes_in": samples[0]["bytes_in"],
        "unpacked_bytes": samples[0]["unpacked_bytes"],
        "cpu_seconds": cpu,
        "cpu_seconds_min": min(of("cpu_seconds")),
        "seconds": wall,
        "seconds_min": min(of("seconds")),
        "mb_per_s": megabytes / wall,
        "mb_per_cpu_s": megabytes / cpu,
        "mb_per_cpu_s_max": megabytes / min(of("cpu_seconds")),
        "rows_per_s": samples[0]["rows_in"] / wall,
        "rss_mib": statistics.median(of("rss_bytes_max")) / 2**20,
        "bytes_out": statistics.median(of("bytes_out")),
        "samples": samples,
    }


def result(samples, options, processor):
    engines = {name: summed(taken) for name, taken in samples.items()}
    differing = {
        name: [each for sample in taken for each in sample["disagreements"]]
        for name, taken in samples.items()
        if any(sample["disagreements"] for sample in taken)
    }
    found = {
        "agreed": not differing,
        "disagreements": differing,
        "machine": {"processor": processor, "cores": os.cpu_count()},
        "parameters": {key: getattr(options, key) for key in (
            "bytes", "object_bytes", "row_bytes", "dirty_share", "duplicate_share", "hours", "seed", "rounds", "dedupe",
            "threads", "floor_of")},
        "engines": engines,
    }
    if "sluice" in engines and not differing:
        speed = engines["sluice"]["mb_per_cpu_s"]
        found["mb_per_cpu_s"] = speed
        for key, engine in RATIOS.items():
            if engine in engines:
                found[key] = speed / engines[engine]["mb_per_cpu_s"]
    return found


def table(found):
    heads = ["engine", "input", "MB in", "CPU s min", "median", "MB/CPU-s", "wall s", "MB/s", "krows/s", "RSS MiB", "MB out"]
    rows = [
        [name, each["input"], f"{each['unpacked_bytes'] / 1e6:.0f}", f"{each['cpu_seconds_min']:.2f}",
         f"{each['cpu_seconds']:.2f}", f"{each['mb_per_cpu_s']:.1f}", f"{each['seconds']:.2f}", f"{each['mb_per_s']:.1f}",
         f"{each['rows_per_s'] / 1e3:.0f}", f"{each['rss_mib']:.0f}", f"{each['bytes_out'] / 1e6:.1f}"]
        for name, each in found["engines"].items()
    ]
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    line = lambda row: "  ".join(
        text.ljust(width) if at < 2 else text.rjust(width) for at, (text, width) in enumerate(zip(row, widths)))
    lines = [line(heads), line(["-" * width for width in widths]), *map(line, rows), ""]
    if not found["agreed"]:
        lines.append("the engines do not agree with what was generated; no ratios:")
        for name, differing in found["disagreements"].items():
            lines += [f"  {name}: {key} is {is_}, expected {wanted}" for key, wanted, is_ in differing]
        return "\n".join(lines)
    lines.append("all agree on rows, rejects where they are kept, and sums")
    lines += [f"{key:<18} {found[key]:.2f}" for key in RATIOS if key in found]
    return "\n".join(lines)
