"""A trainer of nnU-Net v2 that stops after a given processor time, to compare it with a training of ours.

    nnUNet_extTrainer=tests/benchmarks/nnunet NNUNET_SECONDS=480 nnUNet_n_proc_DA=0 nnUNet_compile=f \\
        nnUNetv2_train 501 2d 0 -tr EqualTimeTrainer -device cpu

`nnUNetv2_predict` needs `-tr EqualTimeTrainer` and `nnUNet_extTrainer`, too.

Everything but the length is nnU-Net's own: network, loss, augmentation, optimiser, and the polynomial schedule of the
learning rate, which reaches its end within the time. Runs in nnU-Net's environment, without this package.
"""

import os
import time

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class EqualTimeTrainer(nnUNetTrainer):
    """Ten epochs, whose steps are counted so that they take NNUNET_SECONDS of this process in all."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 10, 20, 3
        self.steps, self.budget = 0, float(os.environ.get("NNUNET_SECONDS", "480"))

    def on_train_start(self):
        super().on_train_start()
        self.start = time.process_time()

    def on_epoch_end(self):
        super().on_epoch_end()
        self.steps += self.num_iterations_per_epoch
        used = time.process_time() - self.start
        self.print_to_log_file(f"{self.steps} steps, {used:.0f} processor seconds, {used / self.steps:.2f} a step")
        # `current_epoch` already counts the epoch that has ended.
        left = max(1, self.num_epochs - self.current_epoch)
        self.num_iterations_per_epoch = max(1, int((self.budget - used) / left / (used / self.steps)))
