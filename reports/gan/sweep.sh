#!/bin/sh
# Draws and scores what the GAN report compares, after train.sh; rows that are there already are passed over.
set -e
sample() {
  python3 inference.py exp.config_path=configs/compare/gan.yaml train.checkpoint_path=latest "$@"
}

python3 train.py exp.config_path=configs/compare/classifier.yaml train.checkpoint_path=latest
for run in logistic-0 logistic-1 no-r1-0 no-r1-1 no-augment-0 no-augment-1 projected-0 unconditional-0; do
  [ -f "runs/$run/metrics.json" ] || sample "exp.run=$run" inference.overwrite=true
done
sample exp.run=logistic-0 inference.output_dir=runs/sweep-truncation \
  "inference.sweep={sampler.truncation: [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}"
sample exp.run=logistic-0 inference.output_dir=runs/exhibits-gan inference.overwrite=true "inference.visualisations=[interpolation]" \
  "inference.metrics=[classifier/fid, classifier/memorisation, classifier/label_accuracy]"
