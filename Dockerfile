# docker build --target cpu -t moto_tf .
# docker build --target gpu -t moto_tf:gpu .
#
# As scripts/setup.sh does it: OpenGL of the system for headless rendering, then
# the pinned requirements, with TensorFlow's own CUDA libraries for GPUs. The
# recipe was read against that script; it was not built, since no Docker engine
# was at hand.

FROM python:3.11-slim-bookworm AS base
RUN apt-get update -qq \
  && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libglvnd0 \
  && rm -rf /var/lib/apt/lists/*
ENV MUJOCO_GL=egl PIP_NO_CACHE_DIR=1
WORKDIR /moto_tf
COPY requirements.txt ./

FROM base AS gpu
# Which parts of the host's driver a container gets: EGL needs graphics.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
RUN pip install -r requirements.txt \
  "$(sed -n 's/^tensorflow==/tensorflow[and-cuda]==/p' requirements.txt)"
COPY . .
RUN pip install --no-deps -e .
ENTRYPOINT ["python", "-m", "moto_tf"]
CMD ["--help"]

FROM base AS cpu
RUN pip install -r requirements.txt
COPY . .
RUN pip install --no-deps -e .
ENTRYPOINT ["python", "-m", "moto_tf"]
CMD ["--help"]
