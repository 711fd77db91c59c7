"""Package models for TensorFlow Serving.

For the Bone Scan Index name the model of lesions and that of the skeleton.

DIR becomes the model repository that the server sees as /models. Packaging into the same DIR again adds a version or
another model. A running server finds new versions by itself, and new models if it was started with DIR/compose.yaml.
Weights that the highest version holds already are not added again. It holds nothing of a patient.

Examples:
  doubleunet-bs serve-package RUN/fold_01 --out models
  doubleunet-bs serve-package RUN/fold_01 SKELETON/fold_01 --out models
  doubleunet-bs serve-package ensemble --out models --name bone-metastasis
  docker compose -f models/compose.yaml up
  doubleunet-bs predict scan.dcm --model RUN/fold_01 --out predicted --engine serving --server grpc://HOST:8500

Writes into DIR:
  NAME/1/, NAME/2/, ...     versions of the model, each a SavedModel with warm-up requests; the server takes the highest
  models.config             list of all models in DIR; version policies and labels that you add are kept
and, unless they are there already:
  compose.yaml              starts TensorFlow Serving's image with these models
  batching_parameters.txt   batches of up to 4 scans
  monitoring.config         metrics for Prometheus at /monitoring/prometheus/metrics

A model that found nothing on its own validation scans is refused. --force packages it with a warning.

Exit codes: 0 done, 1 the model cannot be packaged, 2 wrong arguments.
Research software, not a medical device: not for diagnosis or treatment.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve-package`."""
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="a fold such as RUN/fold_01, an exported model or an ensemble"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="model repository; created if missing")
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="name of the model on the server (default: experiment and fold, such as dice-otsu-fold-01)",
    )
    parser.add_argument(
        "--mounted-at",
        default="/models",
        metavar="PATH",
        help="path of DIR on the server (default %(default)s, as in the compose file)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="package a model that found nothing on its validation scans, or weights that are there already",
    )


def run(args: argparse.Namespace) -> int:
    """Package the model and print how to serve it."""
    from doubleunet_bs.inference.engines import check_serving_installed
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    check_serving_installed()
    import_tensorflow()
    from doubleunet_bs.serving.package import package_models

    packages = package_models(args.models, args.out, args.name, args.mounted_at, args.force)
    for package in packages:
        description = package.description
        print(f"model    {description.name}, {description.quality}")
        if description.quality_warning:
            print(f"warning  {description.quality_warning}")
        if package.warmups:
            print(f"served   as {package.name}, version {package.version}; {package.warmups} warm-up requests")
            print(f"written  {package.path}")
        else:
            print(
                f"nothing added: version {package.version} of {package.name} already holds these weights; "
                "--force adds one"
            )
    if any(package.warmups for package in packages):
        kinds = {package.description.is_skeleton: package.name for package in packages}
        names = "".join(f" --{'skeleton' if kind else 'model'} {name}" for kind, name in sorted(kinds.items()))
        print(f"serve    docker compose -f {packages[0].path.parents[1] / 'compose.yaml'} up")
        print(f"predict  --engine serving --server grpc://HOST:8500{names}")
    return 0
