"""compute-sanitizer on every kernel, if it is installed and works.

    python -m refmaml.bench.gpu.sanitizer FILE.json

It finds accesses out of bounds, races in shared memory, and reads of uninitialized
memory. Each of its tools must first find a planted mistake. A tool that does not find
it gives no verdict on the kernels.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from time import perf_counter

from refmaml.bench.gpu.process import run_limited
from refmaml.bench.gpu.result_file import write_result

TOOLS = ("memcheck", "racecheck", "initcheck")
PROGRAM = (sys.executable, "-m", "refmaml.bench.gpu.sanitizer_program")
RUN_SECONDS, ALL_SECONDS = 150, 380  # limits of one run, and of all runs together
SUMMARY = re.compile(r"=+ (?:ERROR|RACECHECK) SUMMARY: (\d+) ")
FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/cuda/bin")
VERDICTS = {True: "passed", False: "FAILED", None: "no verdict"}


def find_sanitizer():
    """The path of compute-sanitizer, or None."""
    homes = [os.environ[name] + "/bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    paths = (shutil.which("compute-sanitizer", path=path) for path in (None, *homes, *FOLDERS))
    return next(filter(None, paths), None)


def run_under(path, tool, program, seconds):
    """Run the program under a tool: (exit status, lines).

    Without the option, memcheck also reports the failed driver calls by which CuPy
    finds out what the driver supports.
    """
    options = ("--report-api-errors", "no") if tool == "memcheck" else ()
    return run_limited([path, "--tool", tool, *options, "--print-limit", "10", *program], seconds)


def count_mistakes(status, lines):
    """(mistakes that the tool counted, how the program ended).

    The count is None if the tool printed no summary.

    An access out of bounds may end the program itself, so the exit status does not tell
    whether the tool found something.
    """
    summaries = [int(found[1]) for line in lines if (found := SUMMARY.match(line))]
    if status is None:
        return None, "it came to no end within its limit"
    return summaries[-1] if summaries else None, f"it ended with status {status}"


def check(path, tool, seconds_left, program=PROGRAM):
    """{"tool", "passed", "said"}; passed is None if the tool does not work here.

    seconds_left  () -> seconds that a run may take
    """
    status, lines = run_under(path, tool, (*program, tool), seconds_left())
    mistakes, ending = count_mistakes(status, lines)
    if not mistakes:
        reason = f"a planted mistake was not found: {ending}"
        return {"tool": tool, "passed": None, "reason": reason, "said": lines[-10:]}
    status, lines = run_under(path, tool, program, seconds_left())
    mistakes, ending = count_mistakes(status, lines)
    if mistakes or (mistakes == 0 and status == 0):
        report = [line for line in lines if line.startswith("=========") and line.strip("= ")]
        found = (report or lines)[:40]
        return {"tool": tool, "passed": not mistakes, "planted": "found", "said": found}
    row = {"tool": tool, "passed": None, "planted": "found"}
    return row | {"reason": ending, "said": lines[-10:]}


def main(path, tools=TOOLS, program=PROGRAM, seconds=ALL_SECONDS):
    """Run every tool; the file is written after each. Returns the exit status.

    seconds  for all tools together
    """
    started, tool, record = perf_counter(), find_sanitizer(), {"tools": []}

    def seconds_left():
        return max(1.0, min(RUN_SECONDS, seconds - (perf_counter() - started)))

    if tool is None:
        print("not available: compute-sanitizer is not installed")
        return write_result(path, record, None, "compute-sanitizer is not installed")
    # This caches compiled kernels on disk.
    status, lines = run_limited(program, seconds_left())
    if status != 0:
        print(*lines[-5:], sep="\n")
        reason = f"the program alone ended with status {status}"
        return write_result(path, {**record, "said": lines[-20:]}, False, reason)
    record["version"] = " ".join(run_limited([tool, "--version"], seconds_left())[1])
    for name in tools:
        row = check(tool, name, seconds_left, program)
        record["tools"].append(row)
        print(f"{name}: {VERDICTS[row['passed']]}", flush=True)
        write_result(path, record, None)
    verdicts = [row["passed"] for row in record["tools"]]
    if False in verdicts or True in verdicts:
        return write_result(path, record, False not in verdicts)
    return write_result(path, record, None, "no tool works here")


if __name__ == "__main__":
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    sys.exit(main(sys.argv[1]))
