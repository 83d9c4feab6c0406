"""One setting of run.py: seconds of meta-steps of the strided net on glyphs, as JSON.

python benchmarks/ranks/worker.py THREADS TASKS STEPS
mpiexec -n 2 python -m mpi4py benchmarks/ranks/worker.py THREADS TASKS STEPS
"""

import hashlib
import json
import sys
from time import perf_counter

from refmaml.cli import mpi, options, problem
from refmaml.training import train

WARM_UP = 3  # steps that are not timed


def main(threads, tasks, steps):
    ranks = mpi.detect_ranks()
    config = options.settle({"data": "glyphs", "k_query": 1, "tasks": tasks, "chunk": tasks})
    with ranks.local_rank_0_first():
        method, net = problem.make_method(config), problem.make_net(config, threads)
        recipe = problem.make_recipe(
            config, net, method, problem.make_tasks(config, "train"), ranks
        )
    now = train(recipe, recipe.start(net.init(config["seed"], config["dtype"])), steps=WARM_UP)
    times = [perf_counter()]
    now = train(recipe, now, steps=WARM_UP + steps, show=lambda now: times.append(perf_counter()))
    if ranks.rank == 0:
        print(
            json.dumps(
                {
                    "seconds": [b - a for a, b in zip(times, times[1:], strict=False)],
                    "sha256": hashlib.sha256(now.meta.tobytes()).hexdigest(),
                }
            )
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
