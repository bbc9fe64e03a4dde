"""python3 tests.py: what the measurement says can be believed. Needs no server; loadtest/tests/ runs it."""

import argparse
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)

import stack  # noqa: E402

loader = importlib.machinery.SourceFileLoader("pipeline_run", os.path.join(HERE, "run"))
run = importlib.util.module_from_spec(importlib.util.spec_from_loader("pipeline_run", loader))
loader.exec_module(run)


def scenario(name, share=1.0, round_bytes=4 * run.GIB, hours=None):
    return run.Scenario(name, argparse.Namespace(share=share, round_bytes=round_bytes, hours=hours, folder="/nowhere"))


class Rounds(unittest.TestCase):
    def test_rounds_hold_every_byte_once_and_no_more_at_a_time_than_is_allowed(self):
        for share in (1.0, 0.33, 0.001):
            found = scenario("end_to_end", share)
            parts = [part for parts in found.rounds() for part in parts]
            self.assertEqual(sum(size for _, size in parts), found.size)
            self.assertEqual([seed for seed, _ in parts], list(range(1, len(parts) + 1)))
            self.assertTrue(all(sum(size for _, size in parts) <= 4 * run.GIB for parts in found.rounds()))

    def test_one_object_is_one_part_however_large(self):
        self.assertEqual(scenario("one_object").rounds(), [[(1, 10 * run.GIB)]])

    def test_a_share_takes_fewer_small_objects_not_smaller_ones(self):
        self.assertEqual(scenario("small_objects", 0.5).object_bytes, 10_240)
        self.assertEqual(scenario("small_objects", 0.5).size, 50_000 * 10_240)


class Ledgers(unittest.TestCase):
    def setUp(self):
        self.scenario = scenario("end_to_end")
        self.scenario.expected = {"bytes": 1, "files": 2, "rows": 100, "rejected": 3, "duplicates": 4}
        self.found = {("objects", "emitted"): 2, ("rows_in", "passed"): 93, ("rows_in", "rejected"): 3,
                      ("rows_in", "duplicate"): 4}

    def test_what_must_come_out_differs_in_nothing(self):
        self.assertEqual(self.scenario.differing(self.found), [])

    def test_whatever_is_lost_or_doubled_is_named(self):
        for key in self.found:
            for change in (-1, 1):
                changed = {**self.found, key: self.found[key] + change}
                self.assertNotEqual(self.scenario.differing(changed), [], key)


class Reports(unittest.TestCase):
    def test_a_scenario_replaces_its_own_figures_and_leaves_the_others(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "new", "memory.json")
            run.write(path, {"one_object": 1})
            run.write(path, {"partitions": 2})
            run.write(path, {"one_object": 3})
            with open(path) as file:
                self.assertEqual(run.json.load(file), {"one_object": 3, "partitions": 2})


class Processes(unittest.TestCase):
    def test_children_count_and_memory_is_the_highest(self):
        busy = "import time; b = bytearray(64 << 20); del b\nwhile time.process_time() < 0.4: pass\ninput()"
        command = [sys.executable, "-c", busy]
        with subprocess.Popen(["sh", "-c", '"$@"; true', "sh", *command], stdin=subprocess.PIPE) as process:
            while sum(stack.cpu_seconds(pid) for pid in stack.processes_below(process.pid)) < 0.3:
                pass
            self.assertGreater(max(stack.rss_peak_mib(pid) for pid in stack.processes_below(process.pid)), 64)
            process.communicate(b"\n")


if __name__ == "__main__":
    unittest.main()
