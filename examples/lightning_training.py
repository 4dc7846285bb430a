"""DGMRec trained by PyTorch Lightning, with its logging and early stopping (``pip install -e ".[lightning]"``)."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig, TrainingConfig
from dgmrec_pyg.datasets import SyntheticMultimodal
from dgmrec_pyg.evaluation import SplitEvaluator
from dgmrec_pyg.nn import DGMRec
from dgmrec_pyg.schema import INTERACTS, training_edges
from dgmrec_pyg.training import BPRSampler
from dgmrec_pyg.transforms import MissingModality


class LitDGMRec(pl.LightningModule):
    def __init__(self, data: HeteroData, config: DGMRecConfig, training: TrainingConfig) -> None:
        super().__init__()
        self.model = DGMRec.from_data(data, config, torch.Generator().manual_seed(0))
        self.training_config = training
        self.validation = SplitEvaluator(data[INTERACTS].val_edge_label_index, training_edges(data),
                                         self.model.num_users, self.model.num_items)

    def on_train_epoch_start(self) -> None:
        self.model.start_epoch(self.current_epoch + 1)  # generates what is missing, refreshes the item graphs

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        loss = self.model.loss(*batch)
        self.log('loss', loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def on_train_epoch_end(self) -> None:
        ranking = self.validation.rank(self.model.eval().scorer())
        self.log('recall@20', self.validation.metrics(ranking)['recall@20'])
        self.model.train()

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.model.trainable_parameters(), lr=self.training_config.learning_rate)
        decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.training_config.learning_rate_decay ** (1 / 50))
        return [optimizer], [decay]


if __name__ == '__main__':
    data = MissingModality(ratio=0.6, seed=0)(SyntheticMultimodal(num_users=300, num_items=200)[0])
    module = LitDGMRec(data, DGMRecConfig(hidden_channels=32), TrainingConfig(learning_rate=0.005))
    batches = BPRSampler(training_edges(data), module.model.num_users, module.model.num_items, batch_size=512,
                         generator=torch.Generator().manual_seed(1))
    trainer = pl.Trainer(max_epochs=10, accelerator='cpu', logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False,
                         callbacks=[EarlyStopping('recall@20', mode='max', patience=5, check_on_train_epoch_end=True)])
    trainer.fit(module, batches)
    print(f"recall@20 on validation: {trainer.callback_metrics['recall@20']:.3f}")
    items, scores = module.model.recommend([0], k=5)
    print('user 0 is recommended', *items[0].tolist())
