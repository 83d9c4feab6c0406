"""What an entry of the table of methods consists of; the table is table.py."""

from typing import NamedTuple

# What a method's meta_gradient returns; it decides which oracle the ladder uses.
# M(meta) is the query loss at the adapted parameters.
DERIVATIVE = "dM/dmeta, through all of the inner loop"
FIRST_ORDER = "dM/dmeta, the inner gradients being constants"
IMPLICIT = "dM/dmeta at the exact solution of the inner problem"
DISPLACEMENT = "meta minus what the inner loop makes of it"
PREDICTIVE = "dM/dmeta, M being a likelihood and not the net's loss"
LAPLACE = "dM/dmeta, M being the net's loss and a Laplace term"
DAMPED = "the solution of a damped linear system, which is no derivative"

# Which golden nets a case is computed on.
ALL_NETS = "all nets without a context"
NETS_WITH_A_BODY = "nets with more than a head"
NETS_WITH_EXAMPLES = "nets whose inputs are examples"  # not the quadratic
NETS_WITHOUT_DEAD_BIASES = "no bias before a batch-norm"
SMOOTH_NETS = "nets without kinks"
NETS_WITH_BATCH_NORM = "nets with batch-norm"
NETS_WITH_CONTEXT = "nets with a context"


class Option(NamedTuple):
    """An option of the command line that belongs to one method.

    field   the field of the method's dataclass that it sets; None: it describes the net
    kind    "integer >= 1", "integer >= 0", "integers >= 1", "number > 0",
            "number >= 0", "switch", or a tuple of the texts allowed
    help    one line for --help
    """

    field: str | None
    kind: str | tuple
    help: str


class GoldenCase(NamedTuple):
    """A method with settings under which golden vectors are computed.

    name      of its file, NET.NAME.npz
    nets      which golden nets it is computed on: one of the constants above
    settings  fields of the method; all numbers are exact in float32
    schema    the first version of the golden vectors that has it
    """

    name: str
    nets: str
    settings: dict
    schema: int = 1


class Entry(NamedTuple):
    """A method, and what the rest of refmaml has to know about it.

    name          on the command line
    cls           its class, a frozen dataclass
    title         in documents and pictures
    gradient      what its meta_gradient returns: one of the constants above
    defaults      {option: value}: defaults of the command line for this method
    options       {name: Option}: options of the command line that only it has
    context       whether it needs a net with a Context or FiLM layer
    checked_with  settings that the ladder checks it with. The ladder adds inner_lr and
                  inner_steps of its own where the method has these fields and the
                  settings do not name them
    probed_with   IMPLICIT only: settings with which the doctor's probes solve the inner
                  problem and the linear system down to rounding
    benched_with  settings of a small meta-gradient. The bench times kernels that only
                  this method calls, on the calls that it makes; None: there are none
    golden        its golden vectors
    """

    name: str
    cls: type
    title: str
    gradient: str = DERIVATIVE
    defaults: dict = {}
    options: dict = {}
    context: bool = False
    checked_with: tuple = ({},)
    probed_with: dict = {}
    benched_with: dict | None = None
    golden: tuple = ()
