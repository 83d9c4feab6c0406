def add(subparsers):
    p = subparsers.add_parser("demo"); p.set_defaults(func=lambda a: 0)
