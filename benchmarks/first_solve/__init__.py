"""The first second of a model: ``python -m benchmarks.first_solve [--only NAME …] [--repeat N] [--markdown PAGE]``.

Every traceable task of `ocpkit list` that needs no extra and every problem of `benchmarks.suite` is solved by ocpkit's
recommended solver and by IPOPT, each in a fresh process on one thread, in turn, ocpkit with an empty cache; its process
beside, which compiles meanwhile, may take another core.
*First* is the wall clock from declaring the problem, imports done, to the answer; for IPOPT from writing the nonlinear
program through `nlpsol` to the answer. *Second* is the same problem once more, at once, in the same process, *in C* a
solve after the compiled library is ready, *C ready* the seconds from the declaration to that library in a process that
does nothing else but wait. The discretization, the cost and the guess are the same; `benchmarks.suite.nlp` says how the
program is written.

IPOPT: MUMPS, tol = 1e-8, exact Hessians, else its defaults. Its first solve is that of functions mapped over the
stages, which are built soonest; its second one that of functions expanded to scalar graphs, which run fastest, their
building not counted. It is handed the model of a task as CasADi's graphs, traced before its clock starts; of the suite
it traces them itself, as ocpkit does.

What is judged is in `benchmarks.first_solve.verdicts`. With ``--json FILE`` every measured problem is written at once,
and those in the file are not measured again.
"""
