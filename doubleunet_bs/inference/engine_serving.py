"""A model on a server as an engine: scans are prepared here, segmented there."""

import json

import numpy as np

from doubleunet_bs.errors import ServerError
from doubleunet_bs.inference.endpoints import ENDPOINT, INPUT, MASK, PAPERS, PAPERS_ENDPOINT, PAPERS_INPUT, PROBABILITY
from doubleunet_bs.inference.engines import check_images
from doubleunet_bs.inference.model_description import ModelDescription, parse_description
from doubleunet_bs.inference.serving_client import Output, open_client

LARGEST_BATCH = 4
ROUNDING = 1e-5
"""By which a probability may be above 1: a server has its own arithmetic."""


class ServingEngine:
    """See `engines`. More than four images go in several requests.

    Args:
        client: from `serving_client.open_client`.
        image_shape: (rows, columns) that the model takes.
    """

    def __init__(self, client, image_shape: tuple[int, int]):
        self._client, self.image_shape = client, image_shape
        self.name = f"serving, model {client.model} at {client.server}"

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment images: see `engines`.

        Raises:
            ServerError: see `serving_client`; or a probability that is none, or a mask of other values than 0 and 1.
        """
        check_images(grey, self.image_shape)
        answers = []
        for start in range(0, len(grey), LARGEST_BATCH):
            batch = grey[start : start + LARGEST_BATCH]
            outputs = {PROBABILITY: Output("float32", batch.shape), MASK: Output("uint8", batch.shape)}
            answer = self._client.call(ENDPOINT, {INPUT: batch}, outputs)
            # Written so that NaN fails: it compares as false.
            if not ((answer[PROBABILITY] >= 0) & (answer[PROBABILITY] <= 1 + ROUNDING)).all():
                raise ServerError(f"{self._client.server}: its {PROBABILITY} is not everywhere between 0 and 1")
            if not (answer[MASK] <= 1).all():
                raise ServerError(f"{self._client.server}: its {MASK} has other values than 0 and 1")
            answers.append(answer)
        if len(answers) == 1:
            return answers[0][PROBABILITY], answers[0][MASK]
        return tuple(np.concatenate([answer[name] for answer in answers]) for name in (PROBABILITY, MASK))


def open_served(
    server: str, model: str, local: ModelDescription | None, deadline: float
) -> tuple[ModelDescription, ServingEngine]:
    """Ask a server what its model is, and stay with that version of it.

    Args:
        server: "grpc://HOST:PORT" or "http://HOST:PORT".
        model: name of the model there; not used when `local` is given.
        local: the description of a model folder here; the server's model must be that one, under its usual name.
        deadline: seconds for each request.

    Raises:
        SettingsError: a wrong server.
        ServerError: the server does not answer, or its model is not one of this package, or not the local one.
        RunError: its description is of another format.
    """
    name = local.served_name if local else model
    client = open_client(server, name, deadline)
    query = {PAPERS_INPUT: np.zeros(1, np.uint8)}
    text = client.pin(PAPERS_ENDPOINT, query, {PAPERS: Output("string", (1,))})[PAPERS][0]
    try:
        content = json.loads(text)
    except (ValueError, TypeError):
        raise ServerError(f"{client.server}: the description of its model {name!r} is not JSON") from None
    description = parse_description(content, f"{client.server}, model {name}")
    if local and description.weights_sha256 != local.weights_sha256:
        raise ServerError(
            f"{client.server}: its model {name!r} has other weights than the one named with --model; "
            "package that again, or name the server's model"
        )
    return description, ServingEngine(client, description.image_shape)
