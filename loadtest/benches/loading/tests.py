"""python3 tests.py: what the measurement says can be believed. Needs no server; loadtest/tests/ runs it."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)

import server  # noqa: E402

loader = importlib.machinery.SourceFileLoader("loading_run", os.path.join(HERE, "run"))
run = importlib.util.module_from_spec(importlib.util.spec_from_loader("loading_run", loader))
loader.exec_module(run)


def result(seconds, rows=1000):
    return {"rows": rows, "seconds": seconds, "cpu_s": 0.0}


class Ratios(unittest.TestCase):
    def test_rates_are_compared_not_times(self):
        found = {"plain": result(10), "streaming": result(4, 2000), "single": result(4), "backfill": result(1), "replay": result(5)}
        expected = {"ratio_streaming": 5.0, "ratio_single": 2.5, "ratio_backfill": 10.0, "ratio_replay": 2.0}
        self.assertEqual(run.ratios(found), expected)

    def test_spark_is_taken_at_its_best(self):
        found = {name: result(2) for name in run.PHASES} | {"backfill": result(1)}
        found |= {"spark": result(8), "spark_rewritten": result(4)}
        self.assertEqual(run.ratios(found)["ratio_spark"], 4.0)
        self.assertEqual(run.ratios(found)["ratio_spark_streaming"], 2.0)

    def test_the_middle_run_counts(self):
        runs = [result(3), result(1), result(2)]
        self.assertIs(run.middle(runs), runs[2])


class Processes(unittest.TestCase):
    def test_children_that_have_ended_count(self):
        busy = "import time\nwhile time.process_time() < 0.3: pass"
        with subprocess.Popen(["sh", "-c", '"$@"; read line', "sh", sys.executable, "-c", busy], stdin=subprocess.PIPE) as process:
            measured = server.Server({})
            measured.pid = process.pid
            while measured.cpu_seconds() < 0.25:
                pass
            process.communicate(b"\n")


if __name__ == "__main__":
    unittest.main()
