"""The option of the folder into which the scripts here write."""


def add_out(parser):
    """Add --out."""
    parser.add_argument(
        "--out",
        default="runs/conformance",
        metavar="DIR",
        help="where to write (default runs/conformance)",
    )
