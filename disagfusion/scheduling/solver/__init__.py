"""An exact solver for ratio problems: few rows, whole numbers, a best that is certain.

`best_plan` answers a `Ratio`. Floating point proposes, whole numbers decide:

    program      whole numbers within bounds and rows, and what is best
    relaxation   the linear relaxation on HiGHS, in the coordinates of a basis
    proof        what a relaxation's multipliers prove, in whole numbers
    lattice      a basis of the whole numbers that fits the body of good points
    body         how wide that body is
    search       branch and bound
    optimum      the best point for one goal
    ratio        one goal after the other, and the best plan of another kind
    single       the same where there is one pool, without any of this
"""
