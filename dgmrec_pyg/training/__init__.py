"""Training: batches, the loop with early stopping, and checkpoints."""

from dgmrec_pyg.training.checkpoint import load_checkpoint, save_checkpoint
from dgmrec_pyg.training.sampler import BPRSampler
from dgmrec_pyg.training.trainer import METRIC, Fit, Trainer

__all__ = ['METRIC', 'BPRSampler', 'Fit', 'Trainer', 'load_checkpoint', 'save_checkpoint']
