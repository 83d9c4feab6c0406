"""The main loops of kernels in machine code: compiled by NVRTC, read by nvdisasm.

Neither needs a GPU. A scheduler issues one instruction per cycle. So the share of
multiply-adds among the instructions of a loop is the largest part of peak arithmetic
that the loop can reach on that GPU, however well waits are hidden.
"""

import re
import subprocess
from importlib.metadata import PackageNotFoundError, files

PACKAGE = "nvidia-cuda-nvdisasm"
REASON = (
    f"{PACKAGE} is not installed, which reads the machine code of CUDA kernels: "
    "pip install 'refmaml[test]', where the package exists for the platform"
)


def disassembler():
    """The path of nvdisasm; None where it is not installed."""
    try:
        found = [f for f in files(PACKAGE) or () if f.name == "nvdisasm"]
    except PackageNotFoundError:
        return None
    return str(found[0].locate()) if found else None


def machine_code(tool, cubin, folder):
    """{kernel: its lines} of a compiled file.

    cubin   bytes
    folder  a folder for temporary files
    """
    path = folder / "kernels.cubin"
    path.write_bytes(cubin)
    text = subprocess.run(
        [tool, "-c", str(path)], check=True, capture_output=True, text=True
    ).stdout
    parts = re.split(r"\n\s*\.section\s+\.text\.(\w+),", text)
    return {name: body.splitlines() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def loops(lines):
    """The instructions, such as ["LDS", "FFMA", ...], of each loop.

    A loop is from a label to a jump back to it.
    """
    labels, instructions, found = {}, [], []
    for line in lines:
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found_instruction := re.match(
            r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\w+)(.*?);", line
        ):
            instructions.append(found_instruction[1])
            back = found_instruction[1] == "BRA" and re.search(r"\.L_x_\d+", found_instruction[2])
            if back and back[0] in labels:
                found.append(instructions[labels[back[0]] :])
    return found


def main_loops(lines, products):
    """The loops with multiply-adds from `products` to twice that: one per code path."""
    return [loop for loop in loops(lines) if products <= multiply_adds(loop) < 2 * products]


def multiply_adds(loop):
    return loop.count("FFMA") + loop.count("DFMA")


def share(loop):
    """The fraction of multiply-adds among the instructions of a loop."""
    return multiply_adds(loop) / len(loop)


def among(loop, instruction):
    """The fraction of multiply-adds between the first and last `instruction`."""
    first, last = loop.index(instruction), len(loop) - 1 - loop[::-1].index(instruction)
    return multiply_adds(loop[first:last]) / multiply_adds(loop)
