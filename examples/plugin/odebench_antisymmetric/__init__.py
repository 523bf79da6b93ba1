"""What the plugin brings, said without torch, so that listing names stays quick."""

from odebench import AttackDefinition, ModelDefinition, Schedule, Setting, fixed_step

ANTISYMMETRIC_ODE = ModelDefinition(
    name="antisymmetric-ode",
    architecture="odebench_antisymmetric.model:AntisymmetricOde",
    settings={
        8: Setting(  # for images of 8 pixels a side and more
            arguments={"width": 64, "damping": 0.1},
            schedule=Schedule(epochs=15, batch_size=32, learning_rate=1e-2, weight_decay=5e-4, warmup=0.2),
            solver=fixed_step("rk4", step=0.25),
        )
    },
    has_horizon=True,
)

MI_FGSM = AttackDefinition(
    name="mi-fgsm",
    function="odebench_antisymmetric.attack:mi_fgsm",
    norms=("linf",),
    parameters={"steps": 10, "decay": 1.0},
    passes=("steps",),  # what the estimate of the time counts
    step_share=1.0,  # relative_step, in units of epsilon, is this over steps unless it is given
)
