"""The experiments of Liu, Chen & Theodorou, "DDPNOpt" (ICLR 2021), each reproduced by `ocpkit reproduce ITEM`.

An item is a module of this package, named in `harness.ITEMS`, with

``PAGE``
    Its prose, ``pages/ITEM.md``: title, the text of the verdict, captions and headers, notes, with placeholders for
    what is computed.
``runs(options) -> list[Run]``
    Everything to be trained for these `Options`; with ``options.quick`` less than two minutes of it in all.
``train(run) -> Result``
    One run, for an item that measures more than `trial.train` and puts it into `Result.measures`; the `watch` of
    `trial.train` is called after every update.
``report(results, folder) -> Report``
    Tables beside the paper's (`paper.json`), figures drawn into `folder`, and a verdict, all computed from the
    results. It must work on any subset that `runs` can give, so on one seed and on the quick form too.

and nothing else. The library is used by its public names alone. A `Run` is frozen and says all that its result
depends on; `Run.key` is a hash of it. `harness` trains what is neither in ``OUT/ITEM/runs/<key>.json`` nor in
``OUT/ITEM/results.json.gz`` yet, so a stopped item goes on where it was and a larger number of seeds only adds runs,
even with the published ``docs/results`` for OUT. ``results.json.gz`` collects the rows, ``report.md`` the tables.

To add an item, write its module and its page, name it in `harness.ITEMS` and in the help of `ocpkit.cli.reproduce`; the
tests of `tests/nn/test_experiments_items.py` then run its quick form, check its files and that nothing is trained
twice. An item that trains nothing in the usual sense (a runtime, a spectrum) has a `train` of its own that fills
`Result.measures`; its quick runs have ``samples=QUICK_SAMPLES``, by which a report knows that it has nothing to judge.
"""
