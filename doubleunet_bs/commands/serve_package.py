"""Put a model into a repository for TensorFlow Serving.

DIR is what the server is given as /models (assets/serving in the source has a compose file for the official image):

  NAME/1/  NAME/2/ ...      versions of a model, each a SavedModel with warm-up requests; the server takes the highest
  models.config             every model in DIR
  batching_parameters.txt   batches of up to 4 scans
  monitoring.config         figures for Prometheus under /monitoring/prometheus/metrics

Packaging into the same DIR again adds a version, or another model. A running server finds a version by itself, another
model when it was started as in the compose file (--model_config_file_poll_wait_seconds). The warm-up requests are
phantoms: nothing of a patient is in a package.

Examples:
  python -m doubleunet_bs serve-package RUN/fold_01 --out models
  python -m doubleunet_bs serve-package ensemble --out models --name bone-metastasis
  python -m doubleunet_bs predict scan.dcm --out predicted --engine serving --server grpc://HOST:8500 --model RUN/fold_01
  python -m doubleunet_bs predict scan.dcm --out predicted --engine serving --server grpc://HOST:8500 \\
      --model bone-metastasis

Research software, not a medical device: not for diagnosis or treatment.

Exit code: 0 done, 1 the model cannot be packaged, 2 wrong arguments.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options to `parser`."""
    parser.add_argument("model", metavar="MODEL", help="a fold such as RUN/fold_01, or an exported model or ensemble")
    parser.add_argument("--out", required=True, metavar="DIR", help="the repository; made when it is not there")
    parser.add_argument(
        "--name", metavar="NAME", help="of the model on the server; default experiment and fold: dice-otsu-fold-01"
    )
    parser.add_argument(
        "--mounted-at",
        default="/models",
        metavar="PATH",
        help="where the server sees DIR (default /models, as in the compose file)",
    )


def run(args: argparse.Namespace) -> int:
    """Package the model and print how to serve it."""
    from doubleunet_bs.inference.engines import check_serving_installed
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    check_serving_installed()
    import_tensorflow()
    from doubleunet_bs.serving.package import package_model

    package = package_model(args.model, args.out, args.name, args.mounted_at)
    print(f"model    {package.description.name}")
    print(f"served   as {package.name}, version {package.version}; {package.warmups} warm-up requests")
    print(f"written  {package.path}")
    print("serve    docker compose -f assets/serving/compose.yaml up   with MODELS set to the repository")
    print(f"predict  --engine serving --server grpc://HOST:8500 --model {package.name}")
    return 0
