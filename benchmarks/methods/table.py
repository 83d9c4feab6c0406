"""The results of run.py as a table in markdown."""

import protocol


def markdown(results):
    """A row for each method; accuracies in per cent with 95 % intervals."""
    if not results:
        return "Nothing was run yet.\n"
    lines = [
        "| method | accuracy, % | one at a time | meta-steps | ms a meta-step | parameters |",
        "|---|---|---|---|---|---|",
        *(row(result) for result in results),
    ]
    ended = [f"{protocol.TITLES[r['method']]}: {r['ended_early']}." for r in results
             if r["ended_early"]]  # fmt: skip
    return "\n".join([budget(results), "", *lines, *([""] if ended else []), *ended]) + "\n"


def budget(results):
    """One line: how long each was trained."""
    found = sorted({(r["budget_minutes"], r["threads"], r["held_out_tasks"]) for r in results})
    texts = [
        f"{minutes:g} minutes on {threads} {'core' if threads == 1 else 'cores'}, "
        f"counted in processor time; {tasks} held-out tasks"
        for minutes, threads, tasks in found
    ]
    return "Training of each method: " + "; or ".join(texts) + "."


def row(result):
    """The row of a result."""
    together, alone = (written(result, way) for way in ("transductive", "one at a time"))
    each = 60000 * result["processor_minutes"] / max(1, result["steps"])
    return (
        f"| {protocol.TITLES[result['method']]} | {together} | {alone} | {result['steps']:,} "
        f"| {each:,.0f} | {result['parameters']:,} |"
    )


def written(result, way):
    """ "98.2 +- 0.4"."""
    found = result["evaluations"][way]
    return f"{100 * found['accuracy']:.1f} +- {100 * found['interval']:.1f}"
