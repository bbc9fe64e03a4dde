"""python3 -m unittest tests: what the measurement says can be believed. Needs no engine; loadtest/tests/ runs it."""

import argparse
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)

import measure  # noqa: E402
import report  # noqa: E402

loader = importlib.machinery.SourceFileLoader("staging_run", os.path.join(HERE, "run"))
run = importlib.util.module_from_spec(importlib.util.spec_from_loader("staging_run", loader))
loader.exec_module(run)

TOTALS = {"rows": 97, "amount_sum": "12.50", "occurred_at_ms_sum": "5", "rows_by_currency": {"USD": 97},
          "rows_by_source": {"web": 97}}
EXPECTED = {"rows": 100, "rejected": 2, "duplicates": 1, "table_partitions": 3, "deduped": TOTALS,
            "with_duplicates": {**TOTALS, "rows": 98}}
FOUND = {**TOTALS, "table_partitions": 3, "rejected": 2, "fingerprint": "f"}
BUSY = "import time\nwhile time.process_time() < 0.4: pass"


def options(**changed):
    return argparse.Namespace(**{**dict(
        bytes="1MiB", object_bytes="1MiB", row_bytes=513, dirty_share=0.01, duplicate_share=0.005, hours=24, seed=1,
        rounds=3, dedupe=True, threads=2, floor_of=None), **changed})


def sample(cpu_seconds, disagreements=()):
    return {"input": "json", "bytes_in": 10**7, "unpacked_bytes": 10**7, "rows_in": 100, "bytes_out": 10**6,
            "cpu_seconds": cpu_seconds, "seconds": cpu_seconds / 2, "rss_bytes_max": 2**20,
            "disagreements": list(disagreements)}


class Disagreements(unittest.TestCase):
    def found(self, keeps=True, summary=None, changed=None, **options_changed):
        differing = run.disagreements(
            options(**options_changed), EXPECTED, {**FOUND, **(changed or {})}, keeps, summary or {}, "f")
        return [key for key, _, _ in differing]

    def test_what_is_as_expected_agrees(self):
        self.assertEqual(self.found(summary={"rows_in": 100, "rows_out": 97, "rejected": 2, "duplicates": 1}), [])

    def test_every_total_is_compared(self):
        for key in FOUND:
            self.assertEqual(self.found(changed={key: "other"}), [key])

    def test_rejects_are_asked_only_of_those_that_keep_them(self):
        self.assertEqual(self.found(keeps=False, changed={"rejected": 0}), [])

    def test_what_an_engine_says_itself_is_compared(self):
        self.assertEqual(self.found(summary={"rows_in": 99, "duplicates": 0}), ["summary rows_in", "summary duplicates"])

    def test_without_dedupe_all_rows_of_a_key_are_expected(self):
        self.assertEqual(self.found(dedupe=False), ["rows"])
        self.assertEqual(self.found(dedupe=False, changed={"rows": 98}, summary={"duplicates": 0}), [])


class Report(unittest.TestCase):
    def test_ratios_are_of_medians(self):
        samples = {"sluice": [sample(1), sample(9), sample(2)], "duckdb": [sample(5), sample(6), sample(50)],
                   "floor": [sample(1)] * 3}
        result = report.result(samples, options(), "x")
        self.assertEqual((result["ratio_duckdb"], result["ratio_floor"], result["mb_per_cpu_s"]), (3.0, 0.5, 5.0))
        self.assertNotIn("ratio_pyspark", result)
        self.assertIn("ratio_duckdb       3.00", report.table(result))

    def test_one_engine_that_differs_once_leaves_no_ratio(self):
        samples = {"sluice": [sample(1)], "duckdb": [sample(5), sample(5, [("rows", 97, 96)])]}
        result = report.result(samples, options(), "x")
        self.assertFalse(result["agreed"])
        self.assertFalse([key for key in result if key.startswith(("ratio", "mb_per"))])
        self.assertIn("duckdb: rows is 96, expected 97", report.table(result))
        self.assertNotIn("all agree", report.table(result))


class Measure(unittest.TestCase):
    def setUp(self):
        measure.become_subreaper()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log = os.path.join(folder.name, "log")

    def test_a_child_that_outlives_its_parent_is_counted(self):
        script = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {BUSY!r}], stdout=subprocess.DEVNULL)"
        _, cost = measure.run([sys.executable, "-c", script], self.log)
        self.assertGreater(cost["cpu_seconds"], 0.4)

    def test_peak_memory_is_of_all_processes_together(self):
        hold = "import time\nheld = b'x' * (60 << 20)\ntime.sleep(0.6)"
        script = f"import subprocess, sys\nfor each in [subprocess.Popen([sys.executable, '-c', {hold!r}]) for _ in 'ab']: each.wait()"
        output, cost = measure.run([sys.executable, "-c", script], self.log)
        self.assertEqual(output, "")
        self.assertGreater(cost["rss_bytes_max"], 120 << 20)

    def test_a_failure_comes_with_the_end_of_its_log(self):
        with self.assertRaisesRegex(measure.Failed, "exit code 3.*\n.*no such thing"):
            measure.run([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"], self.log)


if __name__ == "__main__":
    unittest.main()
