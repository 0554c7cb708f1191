"""The packages that are called like their function, as a type checker sees them: the function, and what is inside.

To a type checker a module can't be called, so a class stands for each such package (see `lazy_imports.call_like`). A
test compares what it holds with the package; nothing else imports this at run time.
"""

from __future__ import annotations

from .plan import allocation as _allocation
from .plan import allocation_of as _allocation_of
from .plan import choices as _choices
from .plan import plan as _plan
from .plan import realise as _realise
from .recover import recover as _recover
from .run import held as _held
from .run import plan_recipe as _plan_recipe
from .run import rehearse as _rehearse
from .run import run as _run
from .run import run_recipe as _run_recipe
from .run import runner_of as _runner_of
from .run import store_of as _store_of
from .verify import batches_of as _batches_of
from .verify import compare_finest as _compare_finest
from .verify import compare_random as _compare_random
from .verify import compare_slim_with_masked as _compare_slim_with_masked
from .verify import compare_training as _compare_training
from .verify import expanded as _expanded
from .verify import masked as _masked
from .verify import verify as _verify


class PlanPackage:
    from .plan import ALLOCATIONS as ALLOCATIONS
    from .plan import Allocation as Allocation
    from .plan import alignment as alignment
    from .plan import allocations as allocations
    from .plan import argument_checks as argument_checks
    from .plan import budget as budget
    from .plan import clustering as clustering
    from .plan import composed_programs as composed_programs
    from .plan import composition as composition
    from .plan import descent as descent
    from .plan import knapsack as knapsack
    from .plan import merging as merging
    from .plan import planning as planning
    from .plan import stale_configurations as stale_configurations
    from .plan import thresholds as thresholds
    from .plan import uniform as uniform

    __call__ = staticmethod(_plan)
    allocation = staticmethod(_allocation)
    allocation_of = staticmethod(_allocation_of)
    choices = staticmethod(_choices)
    realise = staticmethod(_realise)


class RecoverPackage:
    from .recover import RECOVERIES as RECOVERIES
    from .recover import Mending as Mending
    from .recover import Recovered as Recovered
    from .recover import Recovery as Recovery
    from .recover import RecoverySpec as RecoverySpec
    from .recover import batchnorm as batchnorm
    from .recover import least_squares as least_squares
    from .recover import means as means
    from .recover import method_sequence as method_sequence
    from .recover import moments as moments
    from .recover import polish as polish
    from .recover import recovery as recovery
    from .recover import refits as refits
    from .recover import rows as rows
    from .recover import temperature as temperature

    __call__ = staticmethod(_recover)


class RunPackage:
    from .run import RunFolder as RunFolder
    from .run import api as api
    from .run import folder as folder
    from .run import quality_bounds as quality_bounds
    from .run import quality_search as quality_search
    from .run import runner as runner
    from .run import stage as stage
    from .run import stages as stages

    __call__ = staticmethod(_run)
    held = staticmethod(_held)
    plan_recipe = staticmethod(_plan_recipe)
    rehearse = staticmethod(_rehearse)
    run_recipe = staticmethod(_run_recipe)
    runner_of = staticmethod(_runner_of)
    store_of = staticmethod(_store_of)


class VerifyPackage:
    from .verify import TOLERANCE as TOLERANCE
    from .verify import Comparison as Comparison
    from .verify import Gate as Gate
    from .verify import comparison as comparison
    from .verify import gate as gate
    from .verify import gate_records as gate_records
    from .verify import masked_reference as masked_reference
    from .verify import masking as masking
    from .verify import onnx_file as onnx_file
    from .verify import other_weights as other_weights
    from .verify import running as running
    from .verify import slim_and_masked as slim_and_masked
    from .verify import tied_reference as tied_reference
    from .verify import training_step as training_step
    from .verify import weight_origin as weight_origin

    __call__ = staticmethod(_verify)
    batches_of = staticmethod(_batches_of)
    compare_finest = staticmethod(_compare_finest)
    compare_random = staticmethod(_compare_random)
    compare_slim_with_masked = staticmethod(_compare_slim_with_masked)
    compare_training = staticmethod(_compare_training)
    expanded = staticmethod(_expanded)
    masked = staticmethod(_masked)
