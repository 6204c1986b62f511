#!/bin/sh
# Trains every run of the diffusion report's comparisons, about two hours on one CPU core; finished runs are passed over.
#   python3 prepare_data.py exp.config_path=configs/prepare_ten.yaml source=PATH && sh reports/diffusion/train.sh
train() {  # NAME SEED ARGUMENT...
  name=$1; seed=$2; shift 2
  python3 train.py exp.config_path=configs/compare/diffusion.yaml "exp.run=$name-$seed" "exp.seed=$seed" \
    train.checkpoint_path=latest "$@" || exit 1
}

train long 0 train.steps=4000 ema.name=power_function ema.snapshot_step=250
for seed in 0 1; do
  train edm $seed
  train noise-cosine $seed "objective.model.process={name: ddpm, schedule: cosine, prediction: eps}"
  train noise-linear $seed "objective.model.process={name: ddpm, schedule: linear, prediction: eps}"
  train v-cosine $seed "objective.model.process={name: ddpm, schedule: cosine, prediction: v}"
done
