"""compute-sanitizer on every kernel, where it is installed and works: accesses out of bounds, races in shared memory, reading what nobody
wrote.

    python -m refmaml.bench.gpu.sanitizer FILE.json

Of each tool it is first asked that it finds a planted mistake; one that does not says nothing of the kernels.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from time import perf_counter

from refmaml.bench.gpu.part import finished
from refmaml.bench.gpu.process import limited

TOOLS = ("memcheck", "racecheck", "initcheck")
SMALL = (sys.executable, "-m", "refmaml.bench.gpu.small")
LIMIT, SECONDS = 150, 380  # seconds of one run, and of all
SUMMARY = re.compile(r"=+ (?:ERROR|RACECHECK) SUMMARY: (\d+) ")
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/cuda/bin")


def sanitizer():
    """The tool's path, or None."""
    homes = [os.environ[name] + "/bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    return shutil.which("compute-sanitizer") or next(
        (
            found
            for place in (*homes, *PLACES)
            if (found := shutil.which("compute-sanitizer", path=place))
        ),
        None,
    )


def under(path, tool, program, seconds):
    """What the tool makes of the program: (status, lines). Memcheck would also report calls of the driver that CuPy only tries."""
    options = ("--report-api-errors", "no") if tool == "memcheck" else ()
    return limited([path, "--tool", tool, *options, "--print-limit", "10", *program], seconds)


def counted(status, lines):
    """(how many mistakes the tool counted, None if it came to no end; in words how the program ended). An access out of bounds may end the
    program itself, with a status that says nothing of the tool's."""
    summaries = [int(found[1]) for line in lines if (found := SUMMARY.match(line))]
    how = (
        "it came to no end within its limit" if status is None else f"it ended with status {status}"
    )
    return (None if status is None or not summaries else summaries[-1]), how


def look(path, tool, left, program=SMALL):
    """{"tool", "passed", "said"}; passed None where the tool cannot be believed here. left: () -> seconds that a run may take."""
    status, lines = under(path, tool, (*program, tool), left())
    mistakes, how = counted(status, lines)
    if not mistakes:
        return {
            "tool": tool,
            "passed": None,
            "reason": f"a planted mistake was not found: {how}",
            "said": lines[-10:],
        }
    status, lines = under(path, tool, program, left())
    mistakes, how = counted(status, lines)
    said = [line for line in lines if line.startswith("=========") and line.strip("= ")] or lines
    if mistakes or (mistakes == 0 and status == 0):
        return {"tool": tool, "passed": not mistakes, "planted": "found", "said": said[:40]}
    return {"tool": tool, "passed": None, "planted": "found", "reason": how, "said": lines[-10:]}


def main(path, tools=TOOLS, program=SMALL, seconds=SECONDS):
    """Every tool, into a file that grows; all of them within so many seconds."""
    started, tool, record = perf_counter(), sanitizer(), {"tools": []}

    def left():
        return max(1.0, min(LIMIT, seconds - (perf_counter() - started)))

    if tool is None:
        print("not available: compute-sanitizer is not installed")
        return finished(path, record, None, "compute-sanitizer is not installed")
    status, lines = limited(program, left())  # compiled kernels are on disk after this
    if status != 0:
        print(*lines[-5:], sep="\n")
        return finished(
            path,
            {**record, "said": lines[-20:]},
            False,
            f"the program alone ended with status {status}",
        )
    record["version"] = " ".join(limited([tool, "--version"], left())[1])
    for name in tools:
        record["tools"].append(look(tool, name, left, program))
        print(
            f"{name}: { {True: 'passed', False: 'FAILED', None: 'nothing can be said'}[record['tools'][-1]['passed']] }",
            flush=True,
        )
        finished(path, record, None)
    verdicts = [row["passed"] for row in record["tools"]]
    if False in verdicts:
        return finished(path, record, False)
    return finished(
        path,
        record,
        True if True in verdicts else None,
        None if True in verdicts else "no tool works here",
    )


if __name__ == "__main__":
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    sys.exit(main(sys.argv[1]))
