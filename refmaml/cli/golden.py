"""`refmaml golden`: writes golden vectors for implementations in other languages, or
checks them.

Golden vectors are inputs, intermediates and meta-gradients.
"""

COMMAND = "refmaml golden DIR"


def add(subparsers):
    """Register the command."""
    command = subparsers.add_parser(
        "golden",
        help="write golden vectors for implementations in other languages, or check them",
        description="Writes nets, parameters, batches, every intermediate and the "
        "meta-gradient of every method as .npz files with a manifest (docs/golden.md). "
        "With --check, compares a folder with its sha256 sums and computes every value "
        "again: exit status 1 if one differs.",
    )
    command.add_argument(
        "folder",
        metavar="DIR",
        help="a folder that does not exist yet; with --check, one that this command wrote",
    )
    command.add_argument("--check", action="store_true", help="write nothing; check DIR")
    command.set_defaults(func=run)


def run(arguments):
    """Write or check; returns 1 if a value differs, else 0."""
    return verify(arguments.folder) if arguments.check else write(arguments.folder)


def write(folder):
    """Write all files, and print how many."""
    from refmaml.cli.report import circumstances
    from refmaml.documents import document
    from refmaml.golden import check

    manifest = check.write(folder, {"command": COMMAND, **circumstances()})
    arrays = sum(len(entry["arrays"]) for entry in manifest["files"].values())
    print(
        f"{arrays} arrays in {len(manifest['files'])} files of {len(manifest['problems'])} "
        f"problems are in {folder}; {document('golden.md')} says how to read them"
    )


def verify(folder):
    """Print a line for each array that differs, and a summary; 1 if one differs, else
    0.
    """
    from refmaml.golden.check import check

    rows = list(check(folder))
    failed = [row for row in rows if not row.passed]
    for row in failed:
        print(
            f"{row.subject}: {row.quantity} is {row.error:.1e} off, "
            f"where {row.tolerance:.1e} is allowed"
        )
    worst = max(row.error / row.tolerance for row in rows)
    print(
        f"{folder}: every sha256 as stated; {len(rows) - len(failed)} arrays as computed again, "
        f"{len(failed)} not; the largest error is {worst:.0%} of its tolerance"
    )
    return 1 if failed else 0
