"""Write shards as a data set of nnU-Net v2, to train it on the same scans and folds.

nnU-Net (https://github.com/MIC-DKFZ/nnUNet, Apache-2.0) is not needed for the export. Its fold 0 is fold 1 here: the
training scans of a fold train, its validation scans validate, its test scans lie in a folder of their own.

Examples:
  doubleunet-bs export-nnunet shards --run RUN --out nnunet
  doubleunet-bs evaluate RUN --predictions nnunet/nnU-Net

Writes into DIR, and prints the commands of nnU-Net that follow:
  nnUNet_raw/Dataset501_BoneScan/imagesTr, labelsTr      prepared grey images and class masks (PNG)
  nnUNet_raw/Dataset501_BoneScan/imagesTs_fold_01, ...   test scans of each fold
  nnUNet_raw/Dataset501_BoneScan/dataset.json            channel and labels
  nnUNet_preprocessed/Dataset501_BoneScan/splits_final.json   the folds

Exit codes: 0 done, 1 the shards are damaged or DIR exists, 2 wrong arguments.
Research software, not a medical device: not for diagnosis or treatment.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export-nnunet`."""
    parser.add_argument("shards", metavar="SHARDS", help="folder written by `prepare`")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; must be new or empty")
    parser.add_argument(
        "--run", metavar="RUN", help="take the folds of this run (default: those that `train` would make)"
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="without --run: number of folds (default 10); 1: the published split, the default for public data",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="without --run: random seed of the folds (default 0)")
    parser.add_argument("--no-normals", action="store_true", help="leave out scans without metastases")
    parser.add_argument("--name", default="BoneScan", metavar="NAME", help="name of the data set (default %(default)s)")
    parser.add_argument(
        "--number", type=int, default=501, metavar="N", help="number of the data set, 1 to 999 (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Export the shards and print what to do next."""
    from doubleunet_bs.dataset.folds import choose_folds
    from doubleunet_bs.dataset.nnunet import commands, export_nnunet
    from doubleunet_bs.errors import SettingsError
    from doubleunet_bs.preparation.shards import open_shards

    dataset = open_shards(args.shards, verify=True)
    if args.run is None:
        folds = choose_folds(dataset, args.folds, args.seed or 0)
    elif args.folds is not None or args.seed is not None:
        raise SettingsError("--folds and --seed are those of --run: leave them out")
    else:
        from doubleunet_bs.runs.run_folder import open_run

        found = open_run(args.run)
        found.check_data(dataset, args.shards)
        folds = found.folds(dataset)
    title = export_nnunet(dataset, folds, args.out, args.name, args.number, not args.no_normals)
    where = "the published split" if folds.is_published else f"{len(folds)} folds"
    print(f"written {args.out}: {title}, {where}\n\n{commands(args.out, title, [1])}")
    return 0
