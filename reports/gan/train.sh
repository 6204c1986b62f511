#!/bin/sh
# Trains every run of the GAN report's comparisons, about an hour on one CPU core; finished runs are passed over.
#   python3 prepare_data.py exp.config_path=configs/prepare_ten.yaml source=PATH && sh reports/gan/train.sh
train() {  # NAME SEED ARGUMENT...
  name=$1; seed=$2; shift 2
  python3 train.py exp.config_path=configs/compare/gan.yaml "exp.run=$name-$seed" "exp.seed=$seed" \
    train.checkpoint_path=latest "$@" || exit 1
}

train unconditional 0 objective.model.classes=0 objective.discriminator.classes=0
train projected 0 "objective.loss={name: hinge}" objective.penalties.r1=null "objective.discriminator={name: \
projected_gan_discriminator, width: 32, features: {name: efficientnet_lite, resolution: 64}}"
for seed in 0 1; do
  train logistic $seed
  train no-r1 $seed objective.penalties.r1=null
  train no-augment $seed "objective.augmentation={name: none}"
done
