"""A user's file with a right, a wrong and an inconclusive function, as text."""

CODE = """
def gradient(problem, params, batch, h=1.0):
    a, rows = problem.method.inner_lr, []
    for xs, ys, xq, yq in zip(*batch):
        phis = [params]
        for _ in range(problem.method.inner_steps):
            g = problem.gradient(phis[-1], xs, ys)
            phis.append({n: p - a * g[n] for n, p in phis[-1].items()})
        lam = problem.gradient(phis[-1], xq, yq)
        for phi in phis[-2::-1]:
            Hv = problem.hvp(phi, xs, ys, lam)
            lam = {n: v - a * h * Hv[n] for n, v in lam.items()}
        rows.append(lam)
    return {n: sum(r[n] for r in rows) / len(rows) for n in params}

def first_order(problem, params, batch):
    return gradient(problem, params, batch, h=0.0)

def coarse(problem, params, batch):
    out = gradient(problem, params, batch)
    single = batch.x_query.dtype.itemsize == 4
    if not single:
        return out
    return {n: (g.view("int32") >> 13 << 13).view("float32") for n, g in out.items()}

def raises(problem, params, batch):
    raise RuntimeError("no")

number = 3
"""
