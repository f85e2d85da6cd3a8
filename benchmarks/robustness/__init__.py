"""Who arrives: ``python -m benchmarks.robustness [--groups …] [--guesses N] [--limit N] [--solvers …]``.

One default call without hints on five groups of problems, from several guesses, beside IPOPT and fatrop:

* tasks: every task of `ocpkit list` that needs no extra;
* suite: the 23 published problems of `benchmarks.suite`;
* random: 200 random constrained problems, 20 of them infeasible with a certificate (`random_problems`);
* chains: 50 chains of unstable states with bounded controls (`chains`);
* quadrotor: twelve starts of an overturned quadrotor with quaternions (`quadrotor`).

A guess (`guesses`) is the declared one, zeros, or random. All systems (`systems`) solve the same discretization, a free
final time being a state for all of them. Every run has a worker process with a limit on its time; what is raised, hangs
or crashes is a recorded failure. What an answer is worth is decided by `kkt`, what counts by `verdicts`.

With ``--records FILE`` runs that the file has are not done again, but for those of systems named by ``--renew``.
"""
