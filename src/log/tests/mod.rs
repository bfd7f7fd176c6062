mod checkpoints;
