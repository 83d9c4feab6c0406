"""check_meta_gradient: the whole procedure, from a function to a Report."""

import platform
from time import perf_counter

import numpy as np

from refmaml.doctor import matching, patterns
from refmaml.doctor.bisection import bisect
from refmaml.doctor.calls import UserFunction, elsewhere, repeat
from refmaml.doctor.dictionary import candidate
from refmaml.doctor.frameworks import framework as framework_called
from refmaml.doctor.layouts import Layout
from refmaml.doctor.probes import own_case
from refmaml.doctor.probes import probes as probes_for
from refmaml.doctor.report import INCONCLUSIVE, RIGHT, WRONG, CaseResult, Report, tensor_rows
from refmaml.errors import expect
from refmaml.methods import __all__ as methods
from refmaml.version import __version__

PRECISIONS = {"float64": np.float64, "float32": np.float32}
TF32 = (
    2.0**12
)  # TF32 keeps 10 bits where float32 keeps 23; a right answer uses half of what is allowed at most
KEPT = (
    30.0  # how far a tenth's change takes the truth at least, in multiples of what rounding allows
)
BLUR = 0.01  # where rounding alone may be off by so much of a tensor, nothing is said to be right
FLIPS = 10.0  # how many times what flipped choices were seen to do is still taken for that
INVISIBLE = 1e-6  # a second-order term smaller than this, relative, is as good as absent


def check_meta_gradient(
    fn,
    method,
    *,
    net=None,
    batch=None,
    probes=None,
    framework="numpy",
    layout=None,
    seed=0,
    tol=None,
    precision=None,
    repeats=6,
    seconds=30.0,
    kernels=None,
):
    """Whether a function's meta-gradient is right, and the name of its mistake if it is not: a Report.

    fn          fn(problem, params, batch) -> gradient: told what to differentiate, and given a loss in its own framework (problem.py);
                or fn(params, batch) -> gradient, which implements a net of its own and then needs `net`
    method      what it is meant to compute, e.g. rm.MAML(inner_lr=0.1, inner_steps=5)
    net         a net of the user's own, checked along with the probes; batch: tasks for it (None: random ones)
    probes      which of "quadratic", "two-layer", "mlp", "conv"; None: all
    framework   what params and batch are arrays of: "numpy", "torch", "jax", "cupy"
    layout      layouts by name where they are not torch's, e.g. {"*.weight": "HWIO", "x": "NHWC"}
    tol         the largest relative error of a tensor; None: what rounding allows, from the tensor's own conditioning
    precision   "float64" or "float32"; None: float64, then float32
    repeats     how often the first probe is asked again at most, for noise, state and memory; 0: never
    seconds     how long to look for a name
    kernels     the kernel set problem.net computes with, and so problem.loss, gradient and hvp in NumPy and CuPy; None: that of a net of
                the user's own on a GPU, or else the reference
    Gradients that can be read are judged; what cannot raises ArgumentError in one line. Units: errors are relative, seconds are wall time.
    """
    started = perf_counter()
    expect(
        type(method).__name__ in methods,
        "method",
        "a method of refmaml, such as rm.MAML(0.1, 5)",
        lambda: type(method).__name__,
    )
    expect(
        precision is None or precision in PRECISIONS,
        "precision",
        "float64 or float32",
        repr(precision),
    )
    kernels = (
        net.kernels if kernels is None and net is not None and net.kernels.on_device else kernels
    )
    examinee = UserFunction(
        fn, framework_called(framework)._replace(kernels=kernels), Layout(layout)
    )
    expect(
        examinee.told or net is not None,
        "net",
        "the net that a function of (params, batch) implements",
        "None",
    )
    cases, left_out = probes_for(method, probes, seed) if examinee.told else ([], [])
    cases += [own_case(net, method, batch, seed)] if net is not None else []
    expect(
        cases,
        "probes",
        "at least one that the method fits",
        lambda: "; ".join(f"{name}: {why}" for name, why in left_out),
    )
    cases = [case.with_(tol=tol) for case in cases]
    about = {
        "function": getattr(fn, "__name__", type(fn).__name__),
        "method": repr(method),
        "framework": framework,
        "seed": seed,
        "again": again(
            fn,
            method,
            framework,
            seed,
            net=net,
            batch=batch,
            probes=probes,
            layout=layout,
            tol=tol,
            precision=precision,
        ),
        "versions": {
            "refmaml": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
    remarks = [f"the {name} probe was left out: {why}" for name, why in left_out]
    report = examine(
        examinee, cases, [precision] if precision else list(PRECISIONS), repeats, seconds, remarks
    )
    return with_about(report, about | {"seconds": round(perf_counter() - started, 2)})


def again(fn, method, framework, seed, **others):
    """The call that runs the same check; a net or a batch by its name only."""
    given = {
        name: name if name in ("net", "batch") else repr(value)
        for name, value in others.items()
        if value is not None
    }
    options = "".join(f", {name}={value}" for name, value in given.items())
    return f"rm.check_meta_gradient({getattr(fn, '__name__', 'fn')}, rm.{method!r}, framework={framework!r}, seed={seed}{options})"


def with_about(report, about):
    """The report with its circumstances."""
    from dataclasses import replace

    return replace(report, about=about)


def examine(examinee, cases, precisions, repeats, seconds, remarks):
    """The Report on an examinee: precision after precision, until one is wrong, which is then named within so many seconds."""
    sittings = []
    for precision in precisions:
        seen = [
            sit(examinee, case, PRECISIONS[precision], earlier_right=bool(sittings))
            for case in cases
        ]
        sittings += [sitting for sitting, _, _ in seen]
        if precision == precisions[0]:
            remarks += invisible(cases)
            _, case, answer = seen[0]
            again = repeat(examinee, case, answer, repeats) if repeats else None
            if again is not None and again.apart > 1:
                return unsteady(again, sittings, remarks)
            remarks += noticed(again, answer, max(case.blur for _, case, _ in seen))
        deadline, off = (
            perf_counter() + seconds,
            any(sitting.verdict == WRONG for sitting, _, _ in seen),
        )
        found = [] if off else named_at_a_kink(seen, deadline)
        if off or found:
            return diagnosed(examinee, seen, sittings, remarks, deadline, found)
        own = [case for sitting, case, _ in seen if case.own and sitting.verdict == RIGHT]
        if precision == precisions[0] and any(kept_from_before(examinee, case) for case in own):
            return wrong(
                "right where it was asked first, wrong at other parameters and tasks: something is kept from the first call "
                "(a model loaded once, a batch, the answer itself)",
                "use each call's own params and batch",
                sittings,
                remarks,
            )
    return passed(sittings, remarks)


def kept_from_before(examinee, case):
    """Whether what is right on a user's own net is wrong at other parameters and tasks."""
    there, answer = elsewhere(examinee, case)
    return matching.misfit_of_truth(there, answer.grad) > KEPT and not there.near_kink


def sit(examinee, case, dtype, earlier_right):
    """(CaseResult, case, Answer) of a case in one precision. A function that rounds to float32 by itself is judged by float32's tolerance."""
    case = case.rounded(dtype)
    answer = examinee.answer(case)
    if answer.dtype is np.float32 and dtype is np.float64:
        case = case.with_(dtype=np.float32)
    misfit = matching.misfit_of_truth(case, answer.grad)
    verdict, remark = judge(case, misfit, earlier_right)
    noise = (
        max(case.noise.values())
        / np.abs(case.truth).max()
        * np.finfo(case.dtype).eps
        / np.finfo(np.float64).eps
    )
    rows = tensor_rows(case, answer.grad)
    return (
        CaseResult(
            case.name,
            np.dtype(dtype).name,
            verdict,
            remark,
            misfit,
            float(noise),
            float(case.margin),
            rows,
        ),
        case,
        answer,
    )


def judge(case, misfit, earlier_right):
    """(verdict, remark) of a misfit."""
    if misfit <= 1:
        remark = (
            f"so ill-conditioned that rounding allows errors of {case.blur:.0%}"
            if case.blur > BLUR
            else ""
        )
        return INCONCLUSIVE if remark and not earlier_right else RIGHT, remark
    if case.near_kink and misfit <= FLIPS * case.flip:
        return INCONCLUSIVE, "a kink is nearer than rounding"
    if case.dtype is np.float32 and earlier_right and misfit <= TF32:
        return (
            INCONCLUSIVE,
            "right in float64, off by as much as TF32 or another 10-bit format would be",
        )
    return WRONG, ""


# ---- what is said ----------------------------------------------------------------------------------------------------


def diagnosed(examinee, seen, sittings, remarks, deadline, found):
    """The Report on a wrong gradient: its name, or else where it is wrong. found: what explains it, if it is wrong near a kink only."""
    usable = [
        (case, answer) for sitting, case, answer in seen if found or sitting.verdict != INCONCLUSIVE
    ]
    if all(right_to_float32(case, answer) for case, answer in usable):
        return wrong(
            "right to float32, not to float64: something inside is computed in float32",
            "no .float(), no float32 constants or "
            "step sizes; torch.set_default_dtype(torch.float64); jax_enable_x64",
            sittings,
            remarks,
        )
    found = found or name_it(usable, lambda: deadline - perf_counter())
    if found:
        first, *others = found
        how = "; and ".join(
            text for text in (m.repair(examinee.lib.name) for m in first.mistakes) if text
        )
        how = how or "the mean over tasks of d(mean query loss)/d(parameters), times nothing"
        return Report(
            WRONG,
            str(first),
            how,
            tuple(map(str, others[:4])),
            sittings=tuple(sittings),
            remarks=tuple(remarks),
        )
    if perf_counter() > deadline:
        remarks = [*remarks, "time was up before all names had been tried (seconds=)"]
    worst = max(
        ((s, case, answer) for s, case, answer in seen if s.verdict == WRONG),
        key=lambda part: -matching.cost(part[1]),
    )
    findings = bisect(examinee, worst[1], worst[2])
    where = (
        f"; {findings[0].text}"
        if findings
        else f"; first seen on the {worst[0].case} probe, in {worst[0].worst.name}"
    )
    return Report(
        WRONG,
        f"no mistake of the dictionary{where}",
        "",
        (),
        tuple(f.text for f in findings),
        tuple((f.stage, f.tensor) for f in findings),
        tuple(sittings),
        tuple(remarks),
    )


def right_to_float32(case, answer):
    """Whether a float64 answer is what float32 would give, on a case where that says something."""
    single = case.with_(dtype=np.float32)
    return (
        case.dtype is np.float64
        and matching.misfit_of_truth(single, answer.grad) <= 1
        and single.blur <= BLUR
    )


def named_at_a_kink(seen, deadline):
    """[Explained] where what is off near a kink is off by a known mistake after all, to rounding: a flipped choice is never that."""
    near = [
        (case, answer)
        for sitting, case, answer in seen
        if sitting.verdict == INCONCLUSIVE and sitting.misfit > 1 and case.near_kink
    ]
    return (
        matching.explain(
            [c for c, _ in near], [a.grad for _, a in near], lambda: deadline - perf_counter()
        )
        if near
        else []
    )


def name_it(usable, seconds_left):
    """[Explained]: simple names before composed ones."""
    cases, answers = [case for case, _ in usable], [answer for _, answer in usable]
    grads = [answer.grad for answer in answers]
    return (
        patterns.nothing(cases, answers)
        or matching.explain(cases, grads, seconds_left)
        or patterns.structural(cases, answers)
        or matching.explain_by_two(cases, grads, seconds_left)
    )


def unsteady(again, sittings, remarks):
    """The Report on a function that answers differently when asked again."""
    if again.drifts is None:
        return wrong(
            "the answer changes when asked again: state is carried over, or noise (it takes too long to be asked more often)",
            "start every call afresh, and draw from a seed given",
            sittings,
            remarks,
        )
    if again.drifts:
        return wrong(
            "the answer moves on from call to call: state is carried over (an optimiser, running statistics, parameters "
            "updated in place)",
            "start every call afresh",
            sittings,
            remarks,
        )
    return wrong(
        "the answer changes to and fro from call to call: noise (dropout, random batches, unseeded draws)",
        "draw nothing inside, or from a seed given",
        sittings,
        remarks,
    )


def wrong(what, how, sittings, remarks):
    """The Report on a wrong gradient of which that is known."""
    return Report(WRONG, what, how, sittings=tuple(sittings), remarks=tuple(remarks))


def noticed(again, answer, blur):
    """Remarks on a function that answers alike when asked again. blur: what rounding may be off by, as a part of a tensor."""
    out = []
    if answer.dtype is np.float32:
        out.append(
            f"it returns float32 (given float64, that hides errors of up to {blur:.0e} of a parameter's gradient)"
        )
    out += [
        f"what came as {name} is left aside, as it is no array: {why}"
        for name, why in answer.unread
    ]
    if again is not None and not again.identical:
        out.append("repeated calls differ in their last bits: sums in a changing order")
    if again is not None and again.grows:
        out.append(
            f"memory grows by {again.grows[0]} {again.grows[1]} with every call: something keeps what a call has made"
        )
    return out


def invisible(cases):
    """A remark where the second-order term is too small for anybody to see."""
    out = []
    for case in (c for c in cases if c.own and hasattr(c.method, "kept")):
        part = (
            np.abs(case.truth - candidate(case, {"curvature": 0.0})).max()
            / np.abs(case.truth).max()
        )
        if part < INVISIBLE:
            out.append(
                f"on the own net the second-order term is {part:.0e} of the gradient: mistakes in it cannot be seen there"
            )
    return out


def passed(sittings, remarks):
    """The Report on a gradient that no precision has found wrong."""
    unsure = [s for s in sittings if s.verdict == INCONCLUSIVE]
    if unsure:
        tf32 = any("TF32" in s.remark for s in unsure)
        how = (
            "torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False; jax: default_matmul_precision highest"
            if tf32
            else "a smaller step size, or float64 inside and out"
            if "conditioned" in unsure[0].remark
            else "another seed, or float64 inside and out"
        )
        return Report(
            INCONCLUSIVE,
            f"{unsure[0].case}, {unsure[0].precision}: {unsure[0].remark}",
            how,
            sittings=tuple(sittings),
            remarks=tuple(remarks),
        )
    worst = max(s.worst.error for s in sittings if s.precision == sittings[0].precision)
    leak = next((r for r in remarks if r.startswith("memory grows")), "")
    text = f"the largest error of any parameter is {worst:.1e} in {sittings[0].precision}"
    return Report(
        RIGHT,
        f"{text}; but {leak}" if leak else text,
        sittings=tuple(sittings),
        remarks=tuple(remarks),
    )
