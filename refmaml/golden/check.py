"""Writes all golden vectors, and recomputes a folder's values from its inputs."""

from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path

import numpy as np

from refmaml.errors import DataError
from refmaml.golden import files
from refmaml.golden.intermediates import INPUTS, intermediates, meaning
from refmaml.golden.passes import passes
from refmaml.golden.problems import batch_of, draw, problems, terms
from refmaml.layers import Conv2d
from refmaml.oracles.tolerance import SPREAD, Check, relative_error, tolerance
from refmaml.quadratic import Quadratic

TOLERANCE = (
    f"max|value - array| <= {SPREAD} eps sqrt(terms) max|array| over a whole array; eps "
    f"= 2^-52 in float64 and 2^-23 in float32, "
    "terms: how many numbers the result sums from end to end, given with each method"
)


def write(folder, about, schema=files.SCHEMA):
    """Compute all golden vectors and write them to a folder that does not exist yet.

    about    {"command", "versions", "machine"}, for the manifest
    schema   the version: an older one has fewer problems

    Returns the manifest. Raises ArgumentError, DataError.
    """
    with files.new_folder(folder) as part:
        stated, described = {}, {}
        for name, problem in problems(schema).items():
            theta, v, batch, metas, margin = draw(problem)
            inputs = {"theta": theta, "v": v, **dict(batch.named)}
            stated[f"{name}.npz"] = files.write_arrays(
                part / f"{name}.npz", inputs | outputs_of(problem, inputs)
            )
            for key, method in problem.methods.items():
                arrays = intermediates(problem.net, method, metas[key], batch)
                stated[f"{name}.{key}.npz"] = files.write_arrays(part / f"{name}.{key}.npz", arrays)
            described[name] = describe(problem, batch) | {
                "kink_margin": margin if np.isfinite(margin) else None
            }
        manifest = {
            **about,
            "tolerance": TOLERANCE,
            "problems": described,
            "files": with_meanings(stated),
        }
        files.write_manifest(part, manifest, schema)
    return manifest


def outputs_of(problem, inputs):
    """The result of `passes` at a problem's inputs."""
    return passes(
        problem.net, inputs["theta"], inputs["v"], inputs["x_support"], inputs["y_support"]
    )


def describe(problem, batch):
    """A problem as JSON values.

    The net, its parameters in order, extents, and methods with fields and tolerances.
    """
    net = problem.net
    return {
        "title": problem.title,
        **({"ties": problem.ties} if problem.ties else {}),
        **({} if isinstance(net, Quadratic) else describe_net(net)),
        "extents": {
            "T": len(batch),
            "P": net.num_params,
            "N": batch.x_support.shape[1],
            "M": batch.x_query.shape[1],
        },
        "methods": {
            key: {
                "method": type(method).__name__,
                "fields": json_value(asdict(method)),
                "terms": terms(net, method, batch),
                "float64": tolerance(np.float64, terms(net, method, batch)),
                "float32": tolerance(np.float32, terms(net, method, batch)),
            }
            for key, method in problem.methods.items()
        },
    }


def describe_net(net):
    """The layers, the loss and the parameters of a net as JSON values.

    A layer has its fields, its padding in full, and its output's shape for one input.
    """
    return {
        "input_shape": list(net.input_shape),
        "layers": describe_layers(net.layers, tuple(net.input_shape)),
        "loss": {"loss": type(net.loss_function).__name__, **asdict(net.loss_function)},
        "parameters": [
            {"name": name, "shape": list(net.shapes[name]), "offset": part.start}
            for name, part in net.parameters.slices.items()
        ],
    }


def describe_layers(layers, shape):
    """Layers in a row as JSON values, for inputs of `shape`."""
    described = []
    for layer in layers:
        parts = getattr(layer, "parts", {})
        given = {} if parts else asdict(layer)
        given = {name: value for name, value in given.items() if name not in omitted(given)}
        if isinstance(layer, Conv2d):
            given["padding"] = layer.geometry(shape[1:])[2]
        given |= {part: describe_layers(inner, shape) for part, inner in parts.items()}
        shape = layer.output_shape(shape)
        described.append(
            json_value({"layer": type(layer).__name__, **given, "output_shape": shape})
        )
    return described


def omitted(given):
    """The fields of a layer that its description leaves out.

    Dilation and groups of 1 are among them: files written before these fields existed
    have descriptions without them.
    """
    return {"weight_init"} | {name for name in ("dilation", "groups") if given.get(name) == 1}


def json_value(value):
    """The same value with lists in place of tuples, as in JSON."""
    if isinstance(value, dict):
        return {name: json_value(v) for name, v in value.items()}
    return [json_value(v) for v in value] if isinstance(value, (list, tuple)) else value


def with_meanings(stated):
    """The manifest's files with the formula of every array added."""
    known = problems()

    def formula(path, name):
        problem, _, key = path.removesuffix(".npz").partition(".")
        return meaning(known[problem].methods[key], name) if key else INPUTS[name.partition(".")[0]]

    return {
        path: {
            **value,
            "arrays": {
                name: {**a, "meaning": formula(path, name)} for name, a in value["arrays"].items()
            },
        }
        for path, value in stated.items()
    }


def check(folder):
    """Compare every file with its sha256 and every array with a recomputation.

    Yields a Check for each array. Raises DataError if a byte differs from what the
    manifest states, or if the folder describes other problems than this version has.
    """
    manifest = files.read_manifest(folder)
    known = problems(manifest["schema"])
    for name, problem in known.items():
        inputs = read(folder, manifest, f"{name}.npz")
        batch = batch_of(inputs)
        fill_in_defaults(manifest["problems"].get(name), problem.methods)
        require_same(folder, manifest, name, describe(problem, batch))
        limit = max(terms(problem.net, method, batch) for method in problem.methods.values())
        yield from compared(folder, f"{name}.npz", outputs_of(problem, inputs), inputs, limit)
        for key, method in problem.methods.items():
            path = f"{name}.{key}.npz"
            arrays = read(folder, manifest, path)
            recomputed = intermediates(problem.net, method, arrays["meta"], batch)
            yield from compared(folder, path, recomputed, arrays, terms(problem.net, method, batch))
    strays = sorted(set(manifest["files"]) - expected_files(known))
    if strays:
        raise DataError(
            f"{Path(folder) / files.MANIFEST}: expected the files of this version, "
            f"got {strays[0]} too"
        )


def expected_files(known):
    """The names of all files."""
    return {f"{name}.npz" for name in known} | {
        f"{name}.{key}.npz" for name, problem in known.items() for key in problem.methods
    }


def read(folder, manifest, name):
    """One file's arrays. Raises DataError."""
    if name not in manifest["files"]:
        raise DataError(
            f"{Path(folder) / files.MANIFEST}: expected {name} among its files, "
            f"got {len(manifest['files'])} others"
        )
    stated = manifest["files"][name]
    return files.read_arrays(
        Path(folder) / name,
        {
            "sha256": stated["sha256"],
            "arrays": {
                array: {k: v for k, v in a.items() if k != "meaning"}
                for array, a in stated["arrays"].items()
            },
        },
    )


def fill_in_defaults(stated, methods):
    """Add the fields of methods that the version which wrote a folder did not have.

    Such a method is the same as one whose new fields have their defaults.
    """
    for key, method in methods.items():
        try:
            given = stated["methods"][key]["fields"]
            stated["methods"][key]["fields"] = defaults(method) | given
        except (KeyError, TypeError):  # no such problem or method: require_same says so
            continue


def defaults(method):
    """{field: default} of a method's class as JSON values."""
    found = {}
    for field in fields(method):
        factory = field.default_factory
        value = field.default if factory is MISSING else factory()
        if value is not MISSING:
            found[field.name] = json_value(asdict(value) if is_dataclass(value) else value)
    return found


def require_same(folder, manifest, name, described):
    """Raise DataError unless the manifest describes a problem as this version does."""
    stated = manifest["problems"].get(name)
    for what, value in described.items():
        if not isinstance(stated, dict) or stated.get(what) != value:
            raise DataError(
                f"{Path(folder) / files.MANIFEST}: expected this version's {what} of {name}, "
                f"got others"
            )


def compared(folder, path, recomputed, arrays, count):
    """Yield a Check for each recomputed array."""
    for name, value in recomputed.items():
        if name not in arrays:
            raise DataError(f"{Path(folder) / path}: expected an array {name}, got none")
        limit = tolerance(np.float32 if name.endswith("float32") else np.float64, count)
        error = (
            relative_error(value, arrays[name])
            if value.dtype.kind == "f"
            else float(not np.array_equal(value, arrays[name]))
        )
        yield Check("golden", path, name, "computed again", error, limit)
