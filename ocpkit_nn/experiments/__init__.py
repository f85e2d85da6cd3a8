"""The experiments of Liu, Chen & Theodorou, "DDPNOpt" (ICLR 2021), each reproduced by `ocpkit reproduce ITEM`.

An item is a module of this package, named in `registry.ITEMS`, with

``TITLE``
    What it reproduces, one line.
``runs(options) -> list[Run]``
    Everything to be trained for these `Options`; with ``options.quick`` less than two minutes of it in all.
``train(run) -> Result``
    One run. Most items import `trial.train`, which trains a network and evaluates it; its `watch` is called after
    every update, for an item that measures more and puts it into `Result.measures`.
``report(results, folder) -> Report``
    Tables beside the paper's (`paper.py`), figures drawn into `folder`, and a verdict, all computed from the
    results. It must work on any subset that `runs` can give, so on one seed and on the quick form too.

and nothing else. A `Run` is frozen and says all that its result depends on; `Run.key` is a hash of it.
`runner.execute` trains what has no file in ``OUT/ITEM/runs/<key>.json`` yet, so a stopped item goes on where it was and
a larger number of seeds only adds runs; ``OUT/ITEM/results.json`` collects the rows, ``report.md`` the tables.
`page` writes the reports of all items in OUT as one document.

==============  ==============================================================================
`run`           `Run`, `Result`, `Options`: what goes in and comes out of a training
`trial`         data, network and method of a `Run` → its `Result`
`methods`       methods by name: baselines, their DDPNOpt twins, E-MSA, vanilla DDP, rivals
`runner`        which runs are missing, in which processes they are trained, where they are kept
`statistics`    groups of results, means with standard errors, paired differences
`report`        `Report`, tables and figures in one style
`paper`         the paper's numbers
==============  ==============================================================================
"""
