"""What a kernel's main loop is made of: the machine code that NVRTC makes for a real GPU, taken apart by nvdisasm. Neither needs a GPU.

A scheduler issues one instruction a cycle, so the share of multiply-adds among a loop's instructions is the most of the arithmetic roof
that the loop can reach on that GPU, whatever waits are hidden.
"""

import re
import subprocess
from importlib.metadata import PackageNotFoundError, files

PACKAGE = "nvidia-cuda-nvdisasm"
REASON = f"{PACKAGE} is not installed: pip install 'refmaml[test]' brings it where there is one, to read the machine code of CUDA kernels"


def disassembler():
    """The path of nvdisasm; None where it is not installed."""
    try:
        found = [f for f in files(PACKAGE) or () if f.name == "nvdisasm"]
    except PackageNotFoundError:
        return None
    return str(found[0].locate()) if found else None


def machine_code(tool, cubin, folder):
    """{kernel: its lines} of a compiled file (bytes); folder: where it may be put down."""
    path = folder / "kernels.cubin"
    path.write_bytes(cubin)
    text = subprocess.run(
        [tool, "-c", str(path)], check=True, capture_output=True, text=True
    ).stdout
    parts = re.split(r"\n\s*\.section\s+\.text\.(\w+),", text)
    return {name: body.splitlines() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def loops(lines):
    """The instructions, such as ["LDS", "FFMA", ...], of each loop: from a label to a jump back to it."""
    labels, instructions, found = {}, [], []
    for line in lines:
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif said := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\w+)(.*?);", line):
            instructions.append(said[1])
            back = said[1] == "BRA" and re.search(r"\.L_x_\d+", said[2])
            if back and back[0] in labels:
                found.append(instructions[labels[back[0]] :])
    return found


def main_loops(lines, products):
    """The loops with at least so many multiply-adds and less than twice as many: one for each way through the kernel."""
    return [loop for loop in loops(lines) if products <= multiply_adds(loop) < 2 * products]


def multiply_adds(loop):
    return loop.count("FFMA") + loop.count("DFMA")


def share(loop):
    """Which part of a loop's instructions are multiply-adds."""
    return multiply_adds(loop) / len(loop)


def among(loop, instruction):
    """Which part of a loop's multiply-adds stands between the first and the last of an instruction."""
    first, last = loop.index(instruction), len(loop) - 1 - loop[::-1].index(instruction)
    return multiply_adds(loop[first:last]) / multiply_adds(loop)
