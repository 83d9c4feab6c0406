"""compute-sanitizer on every kernel, where it is installed and works: accesses out of bounds, races in shared memory, reading what nobody
wrote.

    python -m refmaml.bench.gpu.sanitizer FILE.json

Of each tool it is first asked that it finds a planted mistake; one that does not says nothing of the kernels.
"""
import os
import shutil
import sys
from pathlib import Path

from refmaml.bench.gpu.part import finished
from refmaml.bench.gpu.process import limited

TOOLS = ("memcheck", "racecheck", "initcheck")
FOUND, LIMIT, SMALL = 86, 150, (sys.executable, "-m", "refmaml.bench.gpu.small")     # exit status, seconds of one run
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/cuda/bin")


def sanitizer():
    """The tool's path, or None."""
    homes = [os.environ[name] + "/bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    return shutil.which("compute-sanitizer") or next(
        (found for place in (*homes, *PLACES) if (found := shutil.which("compute-sanitizer", path=place))), None)


def under(path, tool, program):
    """What the tool makes of the program: (status, lines)."""
    return limited([path, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "10", *program], LIMIT)


def look(path, tool, program=SMALL):
    """{"tool", "passed", "said"}; passed None where the tool cannot be believed here."""
    status, lines = under(path, tool, (*program, tool))
    if status != FOUND:
        why = "no end within its limit" if status is None else f"exit status {status}, where {FOUND} was expected"
        return {"tool": tool, "passed": None, "reason": f"a planted mistake: {why}", "said": lines[-10:]}
    status, lines = under(path, tool, program)
    said = [line for line in lines if line.startswith("=========") and line.strip("= ")] or lines
    if status in (0, FOUND):
        return {"tool": tool, "passed": status == 0, "planted": "found", "said": said[:40]}
    reason = "no end within its limit" if status is None else f"the program ended with status {status}"
    return {"tool": tool, "passed": None, "planted": "found", "reason": reason, "said": lines[-10:]}


def main(path, tools=TOOLS, program=SMALL):
    """Every tool, into a file that grows."""
    tool, record = sanitizer(), {"tools": []}
    if tool is None:
        print("not available: compute-sanitizer is not installed")
        return finished(path, record, None, "compute-sanitizer is not installed")
    status, lines = limited(program, LIMIT)                      # compiled kernels are on disk after this
    if status != 0:
        print(*lines[-5:], sep="\n")
        return finished(path, {**record, "said": lines[-20:]}, False, f"the program alone ended with status {status}")
    record["version"] = " ".join(limited([tool, "--version"], LIMIT)[1])
    for name in tools:
        record["tools"].append(look(tool, name, program))
        print(f"{name}: { {True: 'passed', False: 'FAILED', None: 'nothing can be said'}[record['tools'][-1]['passed']] }", flush=True)
        finished(path, record, None)
    verdicts = [row["passed"] for row in record["tools"]]
    if False in verdicts:
        return finished(path, record, False)
    return finished(path, record, True if True in verdicts else None, None if True in verdicts else "no tool works here")


if __name__ == "__main__":
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    sys.exit(main(sys.argv[1]))
