#!/bin/sh
# Draws and scores what the diffusion report compares, after train.sh; rows that are there already are passed over.
set -e
sample() {
  python3 inference.py exp.config_path=configs/compare/diffusion.yaml train.checkpoint_path=latest "$@"
}
swept() {  # NAME SWEEP ARGUMENT...
  name=$1; sweep=$2; shift 2
  sample exp.run=long-0 "inference.output_dir=runs/sweep-$name" "inference.sweep=$sweep" "$@"
}

python3 train.py exp.config_path=configs/compare/classifier.yaml train.checkpoint_path=latest
swept guidance "[{guidance.scale: 1}, {guidance.scale: 1.5, guidance.interval: [0, 100]},
  {guidance.scale: 2, guidance.interval: [0, 100]}, {guidance.scale: 3, guidance.interval: [0, 100]},
  {guidance.scale: 5, guidance.interval: [0, 100]}, {guidance.scale: 8, guidance.interval: [0, 100]},
  {guidance.scale: 2, guidance.interval: [0, 0.5]}, {guidance.scale: 3, guidance.interval: [0, 0.5]},
  {guidance.scale: 2, guidance.interval: [0.5, 3]}, {guidance.scale: 3, guidance.interval: [0.5, 3]},
  {guidance.scale: 5, guidance.interval: [0.5, 3]},
  {guidance.scale: 2, guidance.interval: [3, 100]}, {guidance.scale: 3, guidance.interval: [3, 100]}]"
swept average "{inference.ema_length: [0, 0.02, 0.05, 0.1, 0.15, 0.25]}"
swept sampler "[{sampler.name: heun, sampler.steps: 5}, {sampler.name: heun, sampler.steps: 9},
  {sampler.name: heun, sampler.steps: 17}, {sampler.name: euler, sampler.steps: 9},
  {sampler.name: euler, sampler.steps: 17}, {sampler.name: euler, sampler.steps: 33},
  {sampler.name: dpm_solver, sampler.steps: 9}, {sampler.name: dpm_solver, sampler.steps: 17},
  {sampler.name: dpm_solver, sampler.steps: 33}]" guidance.scale=1
for seed in 0 1; do
  for run in edm v-cosine noise-cosine noise-linear; do
    [ -f "runs/$run-$seed/metrics.json" ] || sample "exp.run=$run-$seed" inference.overwrite=true sampler.clip_denoised=1.0
  done
done
for run in edm-0 v-cosine-0 noise-cosine-0 noise-cosine-1 noise-linear-0 noise-linear-1; do
  [ -f "runs/raw-$run/metrics.json" ] || sample "exp.run=$run" inference.overwrite=true "inference.output_dir=runs/raw-$run"
done
sample exp.run=long-0 inference.output_dir=runs/exhibits-diffusion inference.overwrite=true guidance.scale=2 \
  "inference.visualisations=[trajectory, interpolation]" \
  "inference.metrics=[classifier/fid, classifier/memorisation, pixels/memorisation, classifier/label_accuracy]"
sample inference.images=data/food10/test inference.output_dir=runs/fresh-ten inference.overwrite=true
