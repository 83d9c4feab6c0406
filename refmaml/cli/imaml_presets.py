"""iMAML on Omniglot, 5-way 1-shot, in three settings: plain data.

RELEASED  what the program does that the authors released, with the flags of its README:
          --inner_lr 1e-1 --outer_lr 1e-3 --n_steps 16 --task_mb_size 32 --lam 2.0
          --cg_steps 5; meta_steps "(at least) 20000"
PAPER     what the paper writes, with these flags. Rajeswaran et al. 2019, appendix
WORKS     what trains here. The head starts at 0, lambda is ten times as large, the
          inner step is controlled, and a task's steps end at a residual: docs/imaml.md
"""

# Data, net and loss of the program.
PROGRAM = {
    "data": "omniglot",
    "resample": "nearest",
    "invert": False,
    "split_by": "characters",
    "split_seed": 123,
    "train_classes": 1200,
    "validation_classes": 0,
    "rotations": "per_task",
    "n_way": 5,
    "k_shot": 1,
    "net": "conv4",
    "channels": 64,
    "downsample": "stride",
    "padding": "torch",
    "head": "flatten",
    "bn_gamma": True,
    "bn_eps": 1e-5,
    "frozen": [],
    "loss_scale": "mean",
    "optimizer": "adam",
    "lr": 1e-3,
    "schedule": "constant",
    "eval_tasks": 600,
}
FLAGS = {
    "weight_gain": 1.73,
    "regularization": 2.0,
    "cg_steps": 5,
    "inner_lr": 0.1,
    "inner_steps": 16,
    "k_query": 1,
    "tasks": 32,
    "adam_eps": 1e-3,
    "steps": 20000,
}
RELEASED = PROGRAM | FLAGS | {"method": "imaml-released"}
PAPER = PROGRAM | FLAGS | {"method": "imaml", "inner_solver": "gradient_descent"}
WORKS = PROGRAM | {
    "method": "imaml",
    "inner_solver": "controlled_descent",
    "head_init": "zero",
    "weight_gain": 1.0,
    "regularization": 20.0,
    "cg_steps": 5,
    "inner_lr": 0.02,  # of the first trial
    "inner_steps": 100,
    "inner_tol": 0.05,  # where a task's steps end
    "k_query": 5,
    "tasks": 8,
    "adam_eps": 1e-8,
    "steps": 5000,
}
# The number of Newton steps is not published.
NEWTON = {"inner_solver": "newton_cg", "inner_steps": 3}
# Of WORKS at its first meta-step, 3 steps leave an inner residual of 0.5, 10 of 0.14.
MORE_NEWTON = NEWTON | {"inner_steps": 30}
PRESETS = {
    "imaml-omniglot-5w1s-released": RELEASED,
    "imaml-omniglot-5w1s-paper": PAPER,
    "imaml-omniglot-5w1s-works": WORKS,
    "imaml-hf-omniglot-5w1s-paper": PAPER | NEWTON,
    "imaml-hf-omniglot-5w1s-works": WORKS | MORE_NEWTON,
}
