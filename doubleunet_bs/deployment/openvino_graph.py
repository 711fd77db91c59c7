"""What OpenVINO's own optimiser leaves in the decoders: concatenations."""


def split_convolutions(model) -> int:
    """Replace each convolution of two or three concatenated maps by the sum of their own convolutions, in place.

    The same arithmetic, but for the order of a sum. OpenVINO 2026.4 copies the maps of a concatenation in bfloat16 with its
    reference kernel, a tenth of the time of an image; sums it fuses into the convolutions. The five narrow maps of an
    ASPP block stay: there the copy is the cheaper one.

    Args:
        model: an `openvino.Model`, channels first inside.

    Returns:
        How many convolutions were split: eight in a Double U-Net, one per decoder level of both networks.
    """
    from openvino import opset13 as operations

    found = 0
    for concatenation in model.get_ordered_ops():
        users = [target.get_node() for target in concatenation.output(0).get_target_inputs()]
        if concatenation.get_type_name() != "Concat" or [user.get_type_name() for user in users] != ["Convolution"]:
            continue
        maps = [concatenation.input_value(place) for place in range(concatenation.get_input_size())]
        if concatenation.get_attributes()["axis"] != 1 or len(maps) > 3:
            continue
        [convolution] = users
        channels = [one.partial_shape[1].get_length() for one in maps]
        weights = operations.variadic_split(convolution.input_value(1), 1, channels)
        form = convolution.get_attributes()
        total = None
        for place, one in enumerate(maps):
            term = operations.convolution(
                *(one, weights.output(place), form["strides"], form["pads_begin"], form["pads_end"], form["dilations"]),
                auto_pad=form["auto_pad"],
            )
            total = term if total is None else operations.add(total, term)
        convolution.output(0).replace(total.output(0))
        found += 1
    return found
